//! Every `Range` stays within the content, and every `Content-Range` that is read can be written.

#![no_main]

use layby::oci::range::{self, Multipart};
use layby::oci::{ContentRange, Ranges};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (len, header) = input;
    if let Ranges::Satisfiable(ranges) = range::parse(Some(header)).resolve(len) {
        assert!(!ranges.is_empty());
        assert!(
            ranges
                .iter()
                .all(|range| range.start < range.end && range.end <= len)
        );
        let layout = Multipart::new(1, "application/octet-stream", &ranges, len);
        assert_eq!(layout.parts.len(), ranges.len());
    }
    if let Ok(text) = std::str::from_utf8(header)
        && let Ok(read) = text.parse::<ContentRange>()
    {
        assert_eq!(read.to_string().parse(), Ok(read));
    }
});
