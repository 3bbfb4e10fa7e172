//! From a file, flags and the environment to a [`Config`], and what no section can check alone.

use std::collections::HashSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::document::{Document, Section, nearest};
use super::faults::{Faults, Wrong};
use super::overrides::{Given, Overrides};
use super::upstream::{self, Upstream, UpstreamName};
use super::values::{address, host, network, path, yes_or_no};
use super::{Admin, Cache, Config, Limits, Log, TagPolicy, TagRules, TlsListener, Warm, log};

impl Config {
    /// The configuration of `file`, or the defaults without one, changed by `overrides`. The files that it names are
    /// there and can be read.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Faults> {
        let Some(file) = file else {
            let config = Self::from_toml("", overrides)?;
            return config.check_files().map(|()| config);
        };
        std::fs::read_to_string(file)
            .map_err(|error| {
                let problem = format!("cannot be read: {error}");
                Faults::one(Wrong::new(problem, "name a TOML file that Layby may read"))
            })
            .and_then(|text| Self::from_toml(&text, overrides))
            .and_then(|config| config.check_files().map(|()| config))
            .map_err(|faults| faults.of_file(file))
    }

    /// The configuration that `text` describes, changed by `overrides`. Everything that is wrong is reported at once.
    /// Looks at no file that it names: that is [`Config::check_files`].
    pub fn from_toml(text: &str, overrides: &Overrides) -> Result<Self, Faults> {
        let document = Document::new(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            document.syntax(error);
        }
        // What can be read of a broken text would only give faults that are not there.
        let config = if errors.is_empty() {
            read(&document, &Section::root(&document, &table), overrides)
        } else {
            None
        };
        match document.faults() {
            Some(faults) => Err(faults),
            None => config.ok_or_else(|| {
                Faults::one(Wrong::new(
                    "is not complete",
                    "report this as a bug of Layby",
                ))
            }),
        }
    }
}

/// The configuration, as far as it is right; what is not is noted in the document.
fn read(document: &Document<'_>, root: &Section<'_>, overrides: &Overrides) -> Option<Config> {
    let tags_section = root.section("tags");
    let tags = TagPolicy::read(&tags_section);
    let upstreams = upstream::read_all(&root.section("upstreams"), &tags);
    let tag_rules = Arc::new(TagRules::read(&tags_section, &upstreams));
    tags_section.close();
    let written_log = Log::read(&root.section("log"));
    let given = Outside { document };
    let listen_by = overrides.listen.as_ref().map_or("listen", |given| given.by);

    let listen = root.list("listen", address);
    let data_dir = root.text("data_dir", path);
    let offline = root.flag("offline").unwrap_or(false);
    let default_upstream = default_upstream(root, &upstreams);
    let config = Config {
        listen: given
            .list(overrides.listen.as_ref(), address)
            .or(listen)
            .unwrap_or_else(|| vec![(Ipv4Addr::LOCALHOST, 5000).into()]),
        tls: TlsListener::read(&root.section("tls")),
        data_dir: overrides
            .data_dir
            .as_ref()
            .map(|given| given.value.clone())
            .or(data_dir)
            .or_else(|| home(root))?,
        default_upstream: default_upstream?,
        offline: given
            .text(overrides.offline.as_ref(), yes_or_no)
            .unwrap_or(offline),
        clients: root.list("clients", network).unwrap_or_default(),
        public: root.flag("public").unwrap_or(false),
        server_names: root.list("server_names", host).unwrap_or_default(),
        catalog: root.flag("catalog").unwrap_or(true),
        admin: Admin::read(&root.section("admin")),
        cache: Cache::read(&root.section("cache"), &upstreams),
        warm: warm(root, &upstreams),
        upstreams,
        tag_rules,
        limits: Limits::read(&root.section("limits")),
        log: Log {
            format: given
                .text(overrides.log_format.as_ref(), log::format)
                .unwrap_or(written_log.format),
            filter: given
                .text(overrides.log_filter.as_ref(), log::filter)
                .unwrap_or(written_log.filter),
        },
    };
    root.close();
    check_listeners(document, listen_by, &config);
    check_exposure(document, listen_by, &config);
    Some(config)
}

/// Reads values from flags and the environment; what is wrong is a fault of whoever gave it.
struct Outside<'d> {
    document: &'d Document<'d>,
}

impl Outside<'_> {
    fn text<T>(
        &self,
        given: Option<&Given<String>>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let given = given?;
        parse(&given.value)
            .map_err(|wrong| self.document.fault(wrong.of(given.by, None)))
            .ok()
    }

    fn list<T>(
        &self,
        given: Option<&Given<Vec<String>>>,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let given = given?;
        let values = given.value.iter().filter_map(|value| {
            parse(value)
                .map_err(|wrong| self.document.fault(wrong.of(given.by, None)))
                .ok()
        });
        Some(values.collect())
    }
}

fn default_upstream(root: &Section<'_>, upstreams: &[Arc<Upstream>]) -> Option<UpstreamName> {
    let names = || upstreams.iter().map(|upstream| upstream.name.as_str());
    let known = |text: &str| {
        let found = upstreams
            .iter()
            .find(|u| u.name.as_str() == text.to_ascii_lowercase());
        found.map(|upstream| upstream.name.clone()).ok_or_else(|| {
            Wrong::new(
                format!("there is no upstream {text:?}"),
                match nearest(text, names()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("write [upstreams.{text:?}] with its url"),
                },
            )
        })
    };
    if root.has("default_upstream") {
        root.text("default_upstream", known)
    } else {
        root.text("default_upstream", known)
            .or_else(|| known("docker.io").ok())
    }
}

fn warm(root: &Section<'_>, upstreams: &[Arc<Upstream>]) -> Vec<Warm> {
    let tables = root.tables("warm");
    tables
        .iter()
        .map(|table| Warm::read(table, upstreams))
        .collect()
}

/// The data directory when nobody names one.
fn home(root: &Section<'_>) -> Option<PathBuf> {
    let is_root = rustix::process::geteuid().is_root();
    let home = home_from(is_root, |name| std::env::var_os(name));
    if home.is_none() && !root.has("data_dir") {
        root.fault(
            "data_dir",
            Wrong::new(
                "is missing, and there is no home directory to use instead",
                "write the directory that the cache is kept in",
            ),
        );
    }
    home
}

fn home_from(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if is_root {
        return Some("/var/lib/layby".into());
    }
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("layby"))
}

/// Each address has one listener, and there is one at all.
fn check_listeners(document: &Document<'_>, listen_by: &str, config: &Config) {
    let tls = config.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
    if config.listen.is_empty() && tls.is_empty() && document.faults().is_none() {
        let wrong = Wrong::new(
            "leaves no address to listen on",
            r#"write listen = "127.0.0.1:5000", or a [tls] section"#,
        );
        document.fault(wrong.of(listen_by, None));
    }
    let mut seen = HashSet::new();
    let admin = config.admin.listen.as_ref();
    let all = config
        .listen
        .iter()
        .map(|address| (listen_by, address))
        .chain(tls.iter().map(|address| ("tls.listen", address)))
        .chain(admin.map(|address| ("admin.listen", address)));
    for (key, address) in all.filter(|(_, address)| address.port() != 0) {
        if !seen.insert(address) {
            let problem = format!("{address} is listened on twice");
            document.fault(Wrong::new(problem, "give each listener its own").of(key, None));
        }
    }
}

/// Everyone who reaches us uses our credentials: beyond this machine that has to be meant.
fn check_exposure(document: &Document<'_>, listen_by: &str, config: &Config) {
    let is_outside = |address: &&SocketAddr| !address.ip().to_canonical().is_loopback();
    let tls = config.tls.iter().flat_map(|tls| &tls.listen);
    let outside = config.listen.iter().chain(tls).find(is_outside);
    let with_credentials: Vec<&str> = config
        .upstreams
        .iter()
        .filter(|upstream| {
            upstream.client_cert.is_some()
                || upstream.urls.iter().any(|url| url.credentials.is_some())
        })
        .map(|upstream| upstream.name.as_str())
        .collect();
    if config.public || !config.clients.is_empty() || with_credentials.is_empty() {
        return;
    }
    if let Some(address) = outside {
        let wrong = Wrong::new(
            format!(
                "{address} can be reached from other machines, and whoever reaches it would pull with the credentials of {}",
                with_credentials.join(", ")
            ),
            r#"write who may in clients = ["10.0.0.0/8"], or public = true if everyone may"#,
        );
        document.fault(wrong.of(listen_by, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_follows_the_user() {
        let variables = |name: &str| match name {
            "HOME" => Some("/home/u".into()),
            _ => None,
        };
        assert_eq!(home_from(true, variables), Some("/var/lib/layby".into()));
        assert_eq!(
            home_from(false, variables),
            Some("/home/u/.cache/layby".into())
        );
        let xdg = |name: &str| match name {
            "XDG_CACHE_HOME" => Some("/fast".into()),
            other => variables(other),
        };
        assert_eq!(home_from(false, xdg), Some("/fast/layby".into()));
        let relative = |name: &str| match name {
            "XDG_CACHE_HOME" => Some("fast".into()),
            other => variables(other),
        };
        assert_eq!(
            home_from(false, relative),
            Some("/home/u/.cache/layby".into())
        );
        assert_eq!(home_from(false, |_| None), None);
    }
}
