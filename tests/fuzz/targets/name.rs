//! Names of repositories show as they were written, and are safe as paths of a data directory.

#![no_main]

use layby::oci::RepoName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(name) = text.parse::<RepoName>() else {
        return;
    };
    assert_eq!(name.as_str(), text);
    assert_eq!(name.components().collect::<Vec<_>>().join("/"), text);
    assert!(
        name.components()
            .all(|part| !part.is_empty() && !part.starts_with(['.', '_']) && !part.contains('\0'))
    );
});
