//! `[[warm]]`: images that the server brings into the cache by itself, again and again.

use std::sync::Arc;
use std::time::Duration;

use super::document::Section;
use super::faults::Wrong;
use super::upstream::Upstream;
use super::values::finite;
use crate::oci::{PlatformName, Platforms, Reference, RepoName, split_image};

/// Images that are brought at intervals.
#[derive(Debug, Clone)]
pub struct Warm {
    /// Their names, as people write them.
    pub images: Vec<String>,
    /// From the start of one run to that of the next.
    pub every: Duration,
    /// What is brought of them.
    pub platforms: Platforms,
    /// Whether what refers to them comes along.
    pub referrers: bool,
}

/// Where nobody says how often.
const EVERY: Duration = Duration::from_hours(1);
/// Registries are not to be asked more often than this.
const LEAST: Duration = Duration::from_mins(1);

impl Warm {
    pub(super) fn read(section: &Section<'_>, upstreams: &[Arc<Upstream>]) -> Self {
        let images = section.list("images", |text| image(text, upstreams));
        if !section.has("images") || section.is_empty_list("images") {
            let instead = r#"write images = ["alpine:3.20", "ghcr.io/org/app:v1"]"#;
            section.fault("images", Wrong::new("names no image", instead));
        }
        let platforms = section.list("platforms", platform);
        let warm = Self {
            images: images.unwrap_or_default(),
            every: section.text("every", every).unwrap_or(EVERY),
            platforms: platforms_of(platforms.unwrap_or_default()),
            referrers: section.flag("referrers").unwrap_or(false),
        };
        section.close();
        warm
    }
}

/// An image of an upstream that is configured, and lets it be pulled.
fn image(text: &str, upstreams: &[Arc<Upstream>]) -> Result<String, Wrong> {
    let wrong =
        |why: &str, instead: &str| Err(Wrong::new(format!("{text:?} {why}"), instead.to_owned()));
    let instead = r#"write an image such as "alpine:3.20" or "ghcr.io/org/app@sha256:…""#;
    let (name, reference) = split_image(text);
    if reference.is_some_and(|reference| reference.parse::<Reference>().is_err()) {
        return wrong("has no right tag or digest", instead);
    }
    let is = |one: &Upstream, name: &str| {
        one.name.as_str().eq_ignore_ascii_case(name)
            || one
                .aliases
                .iter()
                .any(|alias| alias.eq_ignore_ascii_case(name))
    };
    let (upstream, repository) = match name.split_once('/') {
        Some((first, rest)) => match upstreams.iter().find(|one| is(one, first)) {
            Some(upstream) => (Some(upstream), rest),
            None if first.contains(['.', ':']) => {
                let instead =
                    format!("write [upstreams.{first:?}] with its url, or an image of another");
                return wrong("is of an upstream that is not configured", &instead);
            }
            None => (None, name),
        },
        None => (None, name),
    };
    let Ok(repository) = repository.parse::<RepoName>() else {
        return wrong("is not the name of an image", instead);
    };
    let is_kept_out = |upstream: &Arc<Upstream>| {
        let is_short = upstream.library && !repository.as_str().contains('/');
        let whole = is_short.then(|| repository.prefixed("library"));
        let whole = whole.and_then(Result::ok);
        !upstream
            .repositories
            .permits(whole.as_ref().unwrap_or(&repository))
    };
    if upstream.is_some_and(is_kept_out) {
        return wrong(
            "is kept out by allow and deny of its upstream",
            "let it in, or leave it out here",
        );
    }
    Ok(text.to_owned())
}

/// A platform; `None` for all.
fn platform(text: &str) -> Result<Option<PlatformName>, Wrong> {
    if text == "all" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Wrong::new(
            format!("{text:?} is not a platform"),
            r#"write "linux/amd64", "linux/arm/v7" or the like, or "all""#,
        )
    })
}

fn platforms_of(listed: Vec<Option<PlatformName>>) -> Platforms {
    if listed.is_empty() {
        return Platforms::Only(vec![PlatformName::of_this_machine()]);
    }
    match listed.into_iter().collect() {
        Some(platforms) => Platforms::Only(platforms),
        None => Platforms::All,
    }
}

fn every(text: &str) -> Result<Duration, Wrong> {
    let every = finite(text)?;
    if every < LEAST {
        return Err(Wrong::new(
            format!("{text:?} is too often for registries"),
            r#"write a minute at least, such as "1h""#,
        ));
    }
    Ok(every)
}
