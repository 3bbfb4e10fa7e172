//! Names of images: as Layby writes them, and as people do.

use std::fmt;
use std::str::FromStr;

use crate::config::{Config, ImagePattern, Pin, UpstreamName};
use crate::oci::{Reference, RepoName, Tag, Target, split_image};
use crate::proxy::{Place, SelectError, Selector};

use super::AdminError;

/// An image by its whole name: `docker.io/library/alpine:3.20`, `ghcr.io/org/app@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) struct ImageName {
    pub(in crate::proxy) place: Place,
    pub(in crate::proxy) reference: Reference,
}

/// The images that an operator means.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// One.
    One(ImageName),
    /// Those with a tag that the pattern matches.
    Matching(ImagePattern),
}

/// Understands names as people write them.
#[derive(Debug)]
pub(in crate::proxy) struct Names {
    selector: Selector,
    keys: Vec<UpstreamName>,
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place {
            upstream,
            repository,
        } = &self.place;
        let mark = match self.reference {
            Reference::Tag(_) => ':',
            Reference::Digest(_) => '@',
        };
        write!(f, "{upstream}/{repository}{mark}{}", self.reference)
    }
}

impl FromStr for ImageName {
    type Err = AdminError;

    fn from_str(text: &str) -> Result<Self, AdminError> {
        let wrong = || {
            AdminError::Invalid(format!(
                "{text:?} is not the whole name of an image; write upstream/repository:tag or upstream/repository@digest"
            ))
        };
        let (name, reference) = split_image(text);
        let reference = reference.ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        let place = place(name).ok_or_else(wrong)?;
        Ok(Self { place, reference })
    }
}

impl Names {
    /// Names under the upstreams of a configuration.
    pub(in crate::proxy) fn new(config: &Config) -> Self {
        Self {
            selector: Selector::new(config),
            keys: config
                .upstreams
                .iter()
                .map(|one| one.name.clone())
                .collect(),
        }
    }

    /// A name or, where it holds `*`, `?`, `[` or `{`, a pattern.
    pub(super) fn wanted(&self, text: &str) -> Result<Wanted, AdminError> {
        if !text.contains(['*', '?', '[', '{']) {
            return self.image(text).map(Wanted::One);
        }
        match text.parse::<ImagePattern>() {
            Ok(pattern) => Ok(Wanted::Matching(pattern)),
            Err(error) => Err(AdminError::Invalid(format!("{text:?} {error}"))),
        }
    }

    /// An image that is to be pulled, named as people write it: of an upstream that is configured and lets it be pulled.
    pub(in crate::proxy) fn to_pull(&self, text: &str) -> Result<ImageName, AdminError> {
        self.read(text, |error, _| Err(error))
    }

    /// An image as people write it: without an upstream, the default one; without a tag, `latest`; `library/` on Docker
    /// Hub as docker has it.
    pub(super) fn image(&self, text: &str) -> Result<ImageName, AdminError> {
        self.read(text, |error, name| match error {
            // What was stored before it was forbidden is still there.
            SelectError::Forbidden {
                upstream,
                repository,
            } => Ok(Place {
                upstream,
                repository,
            }),
            // And so is what came from an upstream that is configured no longer.
            error => place(name).ok_or(error),
        })
    }

    fn read(
        &self,
        text: &str,
        otherwise: impl FnOnce(SelectError, &str) -> Result<Place, SelectError>,
    ) -> Result<ImageName, AdminError> {
        let wrong = |why: &dyn fmt::Display| {
            AdminError::Invalid(format!("{text:?} is not the name of an image: {why}"))
        };
        let (name, reference) = split_image(text);
        let reference = match reference {
            Some(reference) => reference
                .parse::<Reference>()
                .map_err(|error| wrong(&error))?,
            None => Reference::Tag("latest".parse::<Tag>().map_err(|error| wrong(&error))?),
        };
        let target = self.target(name).map_err(|error| wrong(&error))?;
        let place = match self.selector.select(&target, None) {
            Ok(selected) => selected.place,
            Err(error) => otherwise(error, name).map_err(|error| wrong(&error))?,
        };
        Ok(ImageName { place, reference })
    }

    /// Whether an upstream is configured.
    pub(super) fn has(&self, upstream: &UpstreamName) -> bool {
        self.keys.contains(upstream)
    }

    /// A pin as people write it: an image, or a pattern.
    pub(super) fn pin(&self, text: &str) -> Result<Pin, AdminError> {
        let text = match self.wanted(text)? {
            Wanted::One(image) => image.to_string(),
            Wanted::Matching(pattern) => return Ok(Pin::Tags(pattern)),
        };
        text.parse()
            .map_err(|error| AdminError::Invalid(format!("{text:?} {error}")))
    }

    /// The repository part of a name, as a client would ask for it.
    fn target(&self, name: &str) -> Result<Target, crate::oci::NameError> {
        let mut target = Target {
            prefix: None,
            registry: None,
            repository: name.parse().or_else(|error| match name.split_once('/') {
                Some((_, rest)) => rest.parse::<RepoName>(),
                None => Err(error),
            })?,
            ns: None,
        };
        if let Some((first, rest)) = name.split_once('/') {
            let first = first.to_ascii_lowercase();
            if self.keys.iter().any(|key| key.as_str() == first) {
                target.repository = rest.parse()?;
                target.prefix = Some(first);
            } else if target.repository.as_str() == rest {
                target.registry = Some(first);
            }
        }
        Ok(target)
    }
}

fn place(name: &str) -> Option<Place> {
    let (upstream, repository) = name.split_once('/')?;
    Some(Place {
        upstream: upstream.parse().ok()?,
        repository: repository.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const DIGEST: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn names() -> Names {
        let toml = r#"
            [upstreams.hub]
            url = "https://hub.example"
            [upstreams."reg.example:5000"]
            url = "https://reg.example:5000"
            deny = ["secret/**"]
        "#;
        Names::new(&Config::from_toml(toml, &Overrides::default()).unwrap())
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        for (text, name) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/org/app:1", "docker.io/org/app:1"),
            ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1"),
            ("hub/org/app", "hub/org/app:latest"),
            ("reg.example:5000/a", "reg.example:5000/a:latest"),
            ("reg.example:5000/a:v1", "reg.example:5000/a:v1"),
            (
                "reg.example:5000/secret/a:v1",
                "reg.example:5000/secret/a:v1",
            ),
            ("gone.example/a/b:v1", "gone.example/a/b:v1"),
        ] {
            let image = names().image(text).expect(text);
            assert_eq!(image.to_string(), name, "{text}");
            assert_eq!(image.to_string().parse::<ImageName>().unwrap(), image);
        }
        let by_digest = format!("alpine:3.20@{DIGEST}");
        let image = names().image(&by_digest).unwrap();
        assert_eq!(
            image.to_string(),
            format!("docker.io/library/alpine@{DIGEST}")
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "/",
            "a//b",
            "A b",
            "alpine:",
            "alpine@sha256:0",
            "alpine:-x",
            ":",
            "@",
        ] {
            assert!(
                matches!(names().image(text), Err(AdminError::Invalid(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wildcard_makes_a_pattern_that_has_to_be_whole() {
        assert!(matches!(
            names().wanted("docker.io/library/*:3.*"),
            Ok(Wanted::Matching(_))
        ));
        let error = names().wanted("alp*").unwrap_err().to_string();
        assert!(error.contains("docker.io/library/alpine:*"), "{error}");
    }
}
