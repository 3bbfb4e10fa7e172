//! Media types of manifests (image-spec, media-types.md) and the ones that registries send instead.

use std::fmt;

/// A media type without parameters, lower-case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaType(Box<str>);

impl MediaType {
    /// Docker image manifest, version 2, schema 2.
    pub const DOCKER_MANIFEST: &'static str =
        "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &'static str =
        "application/vnd.docker.distribution.manifest.list.v2+json";
    /// OCI image manifest.
    pub const OCI_MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// OCI artifact manifest (withdrawn, still stored by registries).
    pub const OCI_ARTIFACT: &'static str = "application/vnd.oci.artifact.manifest.v1+json";

    /// The types of manifest that Layby asks upstreams for, in one `Accept` value.
    pub const ACCEPT: &'static str = "application/vnd.oci.image.index.v1+json, \
application/vnd.oci.image.manifest.v1+json, \
application/vnd.docker.distribution.manifest.list.v2+json, \
application/vnd.docker.distribution.manifest.v2+json, \
application/vnd.oci.artifact.manifest.v1+json";

    /// Takes a `Content-Type` value: parameters are dropped, letters become lower-case. `None` when nothing sensible is left.
    pub fn parse(value: &str) -> Option<Self> {
        let essence = value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        let is_token = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&b))
        };
        (essence.len() <= 255 && is_token(kind) && is_token(subtype)).then(|| Self(essence.into()))
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it says nothing about a manifest, so that the body's own `mediaType` is to be believed.
    pub fn is_generic(&self) -> bool {
        matches!(
            &*self.0,
            "application/json" | "text/plain" | "application/octet-stream" | "binary/octet-stream"
        )
    }

    /// Whether it is one of Docker's first schema, which no current client takes.
    pub fn is_schema1(&self) -> bool {
        self.0
            .starts_with("application/vnd.docker.distribution.manifest.v1+")
    }

    /// Whether it lists other manifests.
    pub fn is_index(&self) -> bool {
        matches!(&*self.0, Self::DOCKER_LIST | Self::OCI_INDEX)
    }

    /// Whether it is a web page: a captive portal, a log-in form, a wrong path. Never content of a registry.
    pub fn is_html(&self) -> bool {
        matches!(&*self.0, "text/html" | "application/xhtml+xml")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for MediaType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for MediaType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a media type"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_are_dropped() {
        let parsed = MediaType::parse("Application/JSON; charset=utf-8").unwrap();
        assert_eq!(parsed.as_str(), "application/json");
        assert!(parsed.is_generic());
    }

    #[test]
    fn nonsense_is_no_media_type() {
        for bad in ["", "json", "/", "a/", "a/b c", "a/b\r\nx: y", ";"] {
            assert_eq!(MediaType::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_accept_list_names_no_first_schema() {
        for entry in MediaType::ACCEPT.split(',') {
            let parsed = MediaType::parse(entry).unwrap();
            assert!(!parsed.is_schema1() && !parsed.is_generic(), "{entry}");
        }
        assert_eq!(MediaType::ACCEPT.split(',').count(), 5);
    }
}
