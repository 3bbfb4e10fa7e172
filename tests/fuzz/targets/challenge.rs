//! Whatever a registry writes into `WWW-Authenticate`: a realm to ask, a login to show, or nothing.

#![no_main]

// The parser is the upstream side's own and public to nobody; it stands on `http` alone.
#[path = "../../../src/upstream/auth/challenge.rs"]
mod challenge;

use challenge::{Challenge, strongest};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
    }
    if let Some(Challenge::Bearer(bearer)) = strongest(&headers) {
        assert!(!bearer.realm.is_empty());
        let longest = lines.len() * 3;
        for text in [bearer.service, bearer.scope].into_iter().flatten() {
            assert!(text.len() <= longest);
        }
    }
});
