//! Whatever an upstream sends with an error status becomes a bounded line without control characters.

#![no_main]

use layby::oci::ErrorBody;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let read = ErrorBody::parse(body);
    let shown = read.to_string();
    assert!(!shown.chars().any(char::is_control));
    assert!(shown.chars().count() <= ErrorBody::MAX_MESSAGE + 80);
    assert_eq!(
        ErrorBody::parse(&read.to_json()).errors.len(),
        read.errors.len()
    );
});
