//! Digests show as they were written, are safe as file names, and name a tag of referrers.

#![no_main]

use layby::oci::{Digest, Tag};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(digest) = text.parse::<Digest>() else {
        return;
    };
    assert_eq!(digest.as_str(), text);
    assert_eq!(
        format!("{}:{}", digest.algorithm_name(), digest.encoded()),
        text
    );
    assert!(!digest.encoded().contains(['/', '.', '\0']));
    let tag = Tag::of_referrers(&digest);
    assert_eq!(tag.as_str().parse(), Ok(tag));
});
