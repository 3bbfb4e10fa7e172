//! Descriptors: how manifests and indexes name content (image-spec, descriptor.md).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::oci::Digest;

/// What is said about content elsewhere. Unknown fields are dropped; it is never a proof that the content exists.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its media type; any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where else it may be had; never asked by Layby.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub urls: Vec<String>,
    /// What an image in an index runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Type of an artifact, in an index and in a list of referrers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its annotations as they were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Box<RawValue>>,
}

/// What an image runs on (image-spec, image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Platform {
    /// `GOARCH`, such as `amd64`; `unknown` for attestations.
    #[serde(default)]
    pub architecture: String,
    /// `GOOS`, such as `linux`; `unknown` for attestations.
    #[serde(default)]
    pub os: String,
    /// Version of a Windows kernel.
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features that a Windows image needs.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Variant of the processor, such as `v8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Takes `null` for an absent field: Go writes nil lists so.
pub(in crate::oci) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
