//! Digests, tags, references, names and media types show as they were written, and are safe as file names.

#![no_main]

use layby::oci::{Digest, MediaType, Reference, RepoName, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
        assert_eq!(
            format!("{}:{}", digest.algorithm_name(), digest.encoded()),
            text
        );
        assert!(!digest.encoded().contains(['/', '.', '\0']));
        let tag = Tag::of_referrers(&digest);
        assert_eq!(tag.as_str().parse(), Ok(tag));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.as_str(), text);
        if let Reference::Tag(tag) = reference {
            assert!(!tag.as_str().starts_with('.') && !tag.as_str().contains('/'));
        }
    }
    if let Ok(name) = text.parse::<RepoName>() {
        assert_eq!(name.components().collect::<Vec<_>>().join("/"), text);
        assert!(
            name.components()
                .all(|part| !part.is_empty() && !part.starts_with(['.', '_']))
        );
    }
    if let Some(media_type) = MediaType::parse(text) {
        assert_eq!(MediaType::parse(media_type.as_str()), Some(media_type));
    }
});
