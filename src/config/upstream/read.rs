//! Reading `[upstreams."name"]`, over what is built in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::builtin::{BUILT_IN, BuiltIn};
use super::{ProxyChoice, RepositoryFilter, Upstream, UpstreamName, credentials};
use crate::config::TagPolicy;
use crate::config::document::{Section, nearest};
use crate::config::faults::Wrong;
use crate::config::values::{host_port, path};
use crate::oci::RepoName;

/// Most steps of one blob at once: more would reach beyond the 64 MiB that may be ahead of its verified prefix.
const MAX_PARALLEL: u32 = 8;

/// All upstreams, those of `section` and the built-in ones, sorted by name.
pub(in crate::config) fn read_all(section: &Section<'_>, tags: &TagPolicy) -> Vec<Arc<Upstream>> {
    let mut written: Vec<(Upstream, Section<'_>)> = Vec::new();
    for (key, section) in section.sections() {
        let name = match key.parse::<UpstreamName>() {
            Ok(name) => name,
            Err(instead) => {
                section.fault_here(Wrong::new("is not a name for an upstream", instead));
                continue;
            }
        };
        if written.iter().any(|(upstream, _)| upstream.name == name) {
            section.fault_here(Wrong::new(
                format!("{name} is there twice"),
                "put its keys into one section",
            ));
        }
        written.push((read(&section, name, tags), section));
    }
    // Those that are not written come first, so that a name taken twice is a fault of the one that is.
    let mut all: Vec<(Upstream, Section<'_>)> = Vec::new();
    for known in BUILT_IN {
        if !written.iter().any(|(u, _)| u.name.as_str() == known.name) {
            let section = section.absent(known.name);
            if let Ok(name) = known.name.parse() {
                all.push((read(&section, name, tags), section));
            }
        }
    }
    all.append(&mut written);
    refuse_shared_names(&all);
    let mut upstreams: Vec<_> = all.into_iter().map(|(u, _)| Arc::new(u)).collect();
    upstreams.sort_by(|a, b| a.name.cmp(&b.name));
    upstreams
}

fn read(section: &Section<'_>, name: UpstreamName, tags: &TagPolicy) -> Upstream {
    let known = BUILT_IN.iter().find(|known| known.name == name.as_str());
    let urls = urls(section, &name, known);
    let tags = match known {
        Some(_) => tags.clone(),
        None => TagPolicy {
            ttl: Duration::ZERO,
            ..tags.clone()
        },
    };
    // What a built-in registry's realm may see, another server in its place may not pass on.
    let is_genuine = known.is_some_and(|known| {
        let genuine = Url::parse(known.url).ok();
        urls.iter().any(|url| genuine.as_ref() == Some(url))
    });
    let upstream = Upstream {
        name,
        aliases: section
            .list("aliases", alias)
            .unwrap_or_else(|| owned(known.map_or(&[], |known| known.aliases))),
        hosts: section
            .list("hosts", |text| host_port(text).map(|host| host.to_string()))
            .unwrap_or_default(),
        prefixes: section.list("prefixes", prefix).unwrap_or_default(),
        repositories: repositories(section),
        tags: tags.changed_by(section, "tag_ttl"),
        token_hosts: section.list("token_hosts", host_port).unwrap_or_else(|| {
            known
                .filter(|_| is_genuine)
                .into_iter()
                .flat_map(|known| known.token_hosts)
                .filter_map(|host| host_port(host).ok())
                .collect()
        }),
        urls: credentials::assign(section, urls),
        ca_file: section.text("ca_file", path),
        client_cert: client_cert(section),
        proxy: section
            .text("proxy", proxy)
            .unwrap_or(ProxyChoice::Environment),
        send_ns: section.flag("send_ns").unwrap_or(false),
        parallel: section.number("parallel", 1..=MAX_PARALLEL).unwrap_or(1),
        allow_private: section.flag("allow_private").unwrap_or(false),
        library: known.is_some_and(|known| known.library),
    };
    section.close();
    upstream
}

fn urls(section: &Section<'_>, name: &UpstreamName, known: Option<&BuiltIn>) -> Vec<Url> {
    match (section.list("url", url), known) {
        (Some(urls), _) => {
            if urls.is_empty() && section.is_empty_list("url") {
                let wrong = Wrong::new("is empty", r#"write url = "https://registry.example.com""#);
                section.fault("url", wrong);
            }
            urls
        }
        (None, Some(known)) => Url::parse(known.url).into_iter().collect(),
        (None, None) => {
            let instead = match nearest(name.as_str(), BUILT_IN.iter().map(|known| known.name)) {
                Some(near) => format!("did you mean the built-in {near}? Else write its url"),
                None => format!(r#"write url = "https://{name}", or wherever it answers"#),
            };
            section.fault("url", Wrong::new("is missing", instead));
            Vec::new()
        }
    }
}

fn repositories(section: &Section<'_>) -> RepositoryFilter {
    let allow = section.list("allow", pattern);
    let deny = section.list("deny", pattern).unwrap_or_default();
    let everything = || vec!["**".to_owned()];
    RepositoryFilter::new(&allow.unwrap_or_else(everything), &deny).unwrap_or_else(|error| {
        // Each pattern alone was right.
        let wrong = Wrong::new(format!("cannot be used: {error}"), "write fewer patterns");
        section.fault("allow", wrong);
        RepositoryFilter::nothing()
    })
}

fn client_cert(section: &Section<'_>) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    let cert = section.text("client_cert", path);
    let key = section.text("client_key", path);
    for (one, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
        if section.has(one) && !section.has(other) {
            let wrong = Wrong::new(format!("needs {other}"), "write both or neither");
            section.fault(one, wrong);
        }
    }
    cert.zip(key)
}

/// Refuses what would leave open which of two upstreams a request means.
fn refuse_shared_names(all: &[(Upstream, Section<'_>)]) {
    let mut names: HashMap<&str, &UpstreamName> = HashMap::new();
    let mut hosts: HashMap<&str, &UpstreamName> = HashMap::new();
    // Keys first: they cannot give way.
    for (upstream, _) in all {
        names.insert(upstream.name.as_str(), &upstream.name);
    }
    for (upstream, section) in all {
        let aliases = upstream.aliases.iter().map(|alias| ("aliases", alias));
        let prefixes = upstream.prefixes.iter().map(|prefix| ("prefixes", prefix));
        for (key, text) in aliases.chain(prefixes) {
            claim(&mut names, section, key, text, &upstream.name);
        }
        for host in &upstream.hosts {
            claim(&mut hosts, section, "hosts", host, &upstream.name);
        }
    }
}

fn claim<'a>(
    taken: &mut HashMap<&'a str, &'a UpstreamName>,
    section: &Section<'_>,
    key: &str,
    text: &'a str,
    by: &'a UpstreamName,
) {
    let owner = *taken.entry(text).or_insert(by);
    if owner != by {
        section.fault(
            key,
            Wrong::new(
                format!("{text:?} already stands for the upstream {owner}"),
                format!("give it to one of the two, {owner} or {by}"),
            ),
        );
    }
}

fn url(text: &str) -> Result<Url, Wrong> {
    let example =
        r#"write a URL such as "https://registry.example.com" or "https://example.com/project""#;
    // Not shown when it may hold a password.
    let shown = if text.contains('@') { "it" } else { text };
    let mut url =
        Url::parse(text).map_err(|_| Wrong::new(format!("{shown} is not a URL"), example))?;
    if !matches!(url.scheme(), "http" | "https") {
        let problem = format!("{shown} starts with neither https:// nor http://");
        return Err(Wrong::new(problem, example));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::new(
            "holds a user name or password",
            "take it out of the URL and write username and password_file",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new(
            "has a query or fragment",
            "take out what follows the path",
        ));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path.ends_with("/v2") {
        return Err(Wrong::new(
            format!("{shown} ends in /v2"),
            "leave that out: it is added to every request",
        ));
    }
    url.set_path(&path);
    Ok(url)
}

fn proxy(text: &str) -> Result<ProxyChoice, Wrong> {
    match text {
        "none" => return Ok(ProxyChoice::Direct),
        "environment" => return Ok(ProxyChoice::Environment),
        _ => {}
    }
    match Url::parse(text) {
        Ok(url) if url.scheme() == "http" && matches!(url.path(), "" | "/") => {
            Ok(ProxyChoice::Via(url))
        }
        _ => Err(Wrong::new(
            "is not an HTTP proxy",
            r#"write "http://[user:password@]host:port", "none", or "environment" for what HTTPS_PROXY and NO_PROXY say"#,
        )),
    }
}

fn alias(text: &str) -> Result<String, Wrong> {
    text.parse::<UpstreamName>()
        .map(|name| name.to_string())
        .map_err(|instead| {
            Wrong::new(
                format!("{text:?} is not a name for an upstream"),
                format!("write {instead}"),
            )
        })
}

fn prefix(text: &str) -> Result<String, Wrong> {
    let name = text.parse::<RepoName>().ok();
    if name.is_none_or(|name| name.components().count() != 1) || text.contains('.') {
        return Err(Wrong::new(
            format!("{text:?} is not a first component without a dot"),
            r#"write lower-case letters, digits and dashes such as "hub"; names with a dot belong in aliases"#,
        ));
    }
    Ok(text.to_owned())
}

fn pattern(text: &str) -> Result<String, Wrong> {
    let patterns = [text.to_owned()];
    match RepositoryFilter::new(&patterns, &[]) {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(Wrong::new(
            format!("{text:?} is not a pattern for repositories"),
            r#"write "library/*", "team/**" or "**": * stays within a component, ** crosses them"#,
        )),
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
