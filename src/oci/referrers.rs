//! Lists of referrers (distribution-spec, "Listing Referrers"): the index and its filter.
//!
//! The tag under which registries without the endpoint keep such an index is [`super::Tag::of_referrers`].

use serde::{Deserialize, Serialize};

use super::manifest::null_as_default;
use super::{Descriptor, MediaType};

/// The body of `referrers/<digest>`: an image index of what refers to the digest.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ReferrersIndex {
    /// The manifests that refer to it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
}

impl ReferrersIndex {
    /// Reads an index from the endpoint or from behind the fallback tag.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// Keeps those whose artifact type is one of `wanted`; all where that is empty.
    pub fn retain_types(&mut self, wanted: &[String]) {
        if wanted.is_empty() {
            return;
        }
        self.manifests.retain(|manifest| {
            let own = manifest.artifact_type.as_ref();
            own.is_some_and(|own| wanted.contains(own))
        });
    }

    /// The index as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Index<'a> {
            schema_version: u8,
            media_type: &'a str,
            manifests: &'a [Descriptor],
        }
        // Strings, numbers and JSON that has been read always serialise.
        serde_json::to_vec(&Index {
            schema_version: 2,
            media_type: MediaType::OCI_INDEX,
            manifests: &self.manifests,
        })
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn an_empty_list_is_what_the_specification_shows() {
        assert_eq!(
            String::from_utf8(ReferrersIndex::default().to_json()).unwrap(),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
    }

    #[test]
    fn what_is_known_of_a_referrer_survives_reading_and_writing() {
        let body = json!({"schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [
            {"mediaType": "a/b", "digest": A, "size": 3, "artifactType": "a/c", "annotations": {"k": "v", "j": "w"}},
            {"mediaType": "a/b", "digest": A, "size": 4},
        ]});
        let index = ReferrersIndex::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&index.to_json()).unwrap(),
            body
        );
        assert!(
            ReferrersIndex::parse(br#"{"manifests":null}"#)
                .unwrap()
                .manifests
                .is_empty()
        );
        assert!(ReferrersIndex::parse(b"<html>").is_err());
    }

    #[test]
    fn a_filter_keeps_the_types_that_it_names() {
        let body = json!({"manifests": [
            {"digest": A, "size": 1, "artifactType": "a/x"},
            {"digest": A, "size": 2, "artifactType": "a/y"},
            {"digest": A, "size": 3},
        ]});
        let kept = |wanted: &[&str]| {
            let mut index = ReferrersIndex::parse(body.to_string().as_bytes()).unwrap();
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            index.retain_types(&wanted);
            index
                .manifests
                .iter()
                .map(|one| one.size)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(&[]), [1, 2, 3]);
        assert_eq!(kept(&["a/y", "a/z"]), [2]);
    }
}
