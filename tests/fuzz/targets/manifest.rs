//! No bytes make reading a manifest panic, and no manifest is both an image and an index.

#![no_main]

use layby::oci::{ManifestInfo, MediaType, ReferrersIndex};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let oci = MediaType::parse(MediaType::OCI_MANIFEST);
    for sent in [None, oci.as_ref()] {
        if let Ok(info) = ManifestInfo::parse(sent, body) {
            assert!(info.manifests().is_empty() || info.blobs().next().is_none());
            assert!(!info.media_type.is_generic() && !info.media_type.is_schema1());
        }
    }
    if let Ok(mut index) = ReferrersIndex::parse(body) {
        index.retain_types(&["application/x".to_owned()]);
        assert!(ReferrersIndex::parse(&index.to_json()).is_ok());
    }
});
