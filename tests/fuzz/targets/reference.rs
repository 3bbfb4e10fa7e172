//! References, tags and media types show as they were written, and a tag is safe as a file name.

#![no_main]

use layby::oci::{MediaType, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.as_str(), text);
        if let Reference::Tag(tag) = reference {
            assert!(!tag.as_str().starts_with('.') && !tag.as_str().contains(['/', '\0']));
        }
    }
    if let Some(media_type) = MediaType::parse(text) {
        assert_eq!(MediaType::parse(media_type.as_str()), Some(media_type));
    }
});
