//! Whatever a token service answers: a header that can be sent for a bounded time, or no token.

#![no_main]

use std::time::Duration;

// The parser is the upstream side's own and public to nobody.
#[path = "../../../src/upstream/auth/token/answer.rs"]
mod answer;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Some((header, lifetime)) = answer::read(body) {
        assert!(header.is_sensitive());
        assert!(header.as_bytes().starts_with(b"Bearer "));
        assert!(header.len() > "Bearer ".len());
        assert!(lifetime <= Duration::from_secs(24 * 60 * 60));
    }
});
