use proptest::prelude::*;

use super::*;

fn resolve(header: &str, len: u64) -> Ranges {
    parse(Some(header.as_bytes())).resolve(len)
}

fn one(range: Range<u64>) -> Ranges {
    Ranges::Satisfiable(vec![range])
}

#[test]
fn the_cases_of_the_conformance_suite() {
    assert_eq!(resolve("bytes=500-1499", 2048), one(500..1500));
    assert_eq!(resolve("bytes=500-", 2048), one(500..2048));
    assert_eq!(resolve("bytes=-500", 2048), one(1548..2048));
    assert_eq!(resolve("bytes=2000-5000", 2048), one(2000..2048));
    assert_eq!(resolve("bytes=500-0", 2048), Ranges::Unsatisfiable);
    assert_eq!(resolve("bytes=5000-10000", 2048), Ranges::Unsatisfiable);
}

#[test]
fn an_end_past_the_last_byte_is_clamped() {
    assert_eq!(resolve("bytes=10-100", 100), one(10..100)); // regclient: one too far
    assert_eq!(resolve("bytes=0-18446744073709551615", 100), one(0..100));
    assert_eq!(resolve("bytes=99-99", 100), one(99..100));
    assert_eq!(resolve("bytes=100-", 100), Ranges::Unsatisfiable);
    assert_eq!(resolve("bytes=0-", 100), one(0..100));
}

#[test]
fn a_suffix_longer_than_the_content_is_all_of_it() {
    assert_eq!(resolve("bytes=-100", 100), one(0..100));
    assert_eq!(resolve("bytes=-101", 100), one(0..100));
    assert_eq!(resolve("bytes=-99999999999999999999999", 100), one(0..100));
    assert_eq!(resolve("bytes=-0", 100), Ranges::Unsatisfiable);
}

#[test]
fn empty_content_satisfies_no_range() {
    for header in ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0", "bytes=5-1"] {
        assert_eq!(resolve(header, 0), Ranges::Unsatisfiable, "{header}");
    }
    assert_eq!(parse(None).resolve(0), Ranges::None);
}

#[test]
fn what_is_no_range_of_bytes_is_ignored() {
    for header in [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=--1",
        "bytes:0-1",
        "items=0-1",
        "bytes=0-1,x",
        "bytes=0x0-1",
    ] {
        assert_eq!(resolve(header, 100), Ranges::None, "{header}");
        assert!(!parse(Some(header.as_bytes())).is_ranged(), "{header}");
    }
    assert_eq!(parse(Some(b"bytes=0-\xff")).resolve(9), Ranges::None);
    assert!(parse(Some(b"bytes=5-1")).is_ranged());
}

#[test]
fn units_and_lists_are_read_as_the_rfc_has_them() {
    assert_eq!(resolve("BYTES=0-1", 9), one(0..2));
    assert_eq!(
        resolve("bytes= 0-1 ,, 4-5\t,", 9),
        Ranges::Satisfiable(vec![0..2, 4..6])
    );
}

#[test]
fn several_ranges_keep_their_order_and_are_never_coalesced() {
    assert_eq!(
        resolve("bytes=50-59,0-9,10-19,5-14,-5", 100),
        Ranges::Satisfiable(vec![50..60, 0..10, 10..20, 5..15, 95..100])
    );
}

#[test]
fn a_range_outside_is_left_out_while_another_is_inside() {
    assert_eq!(resolve("bytes=200-300,0-9,-0", 100), one(0..10));
    assert_eq!(resolve("bytes=200-300,400-", 100), Ranges::Unsatisfiable);
    assert_eq!(resolve("bytes=0-9,7-3", 100), Ranges::Unsatisfiable);
}

#[test]
fn numbers_of_any_size_are_survived() {
    let huge = "9".repeat(5000);
    assert_eq!(
        resolve(&format!("bytes={huge}-"), 100),
        Ranges::Unsatisfiable
    );
    assert_eq!(resolve(&format!("bytes=0-{huge}"), 100), one(0..100));
    assert_eq!(
        resolve(&format!("bytes={huge}-{huge}"), u64::MAX),
        Ranges::Unsatisfiable
    );
    assert_eq!(resolve("bytes=0-", u64::MAX), one(0..u64::MAX));
    assert_eq!(resolve("bytes=0-,0-,0-", u64::MAX), Ranges::TooMany);
}

#[test]
fn as_many_ranges_as_containers_image_asks_for_are_served_and_no_more() {
    let header = |count: u64| {
        let ranges: Vec<String> = (0..count)
            .map(|i| format!("{}-{}", i * 4, i * 4 + 1))
            .collect();
        format!("bytes={}", ranges.join(","))
    };
    let Ranges::Satisfiable(ranges) = resolve(&header(1024), 10_000) else {
        panic!("1024 ranges");
    };
    assert_eq!((ranges.len(), ranges[1023].clone()), (1024, 4092..4094));
    assert_eq!(resolve(&header(1025), 10_000), Ranges::TooMany);
}

#[test]
fn a_short_header_cannot_ask_for_an_endless_answer() {
    assert_eq!(
        resolve("bytes=0-,0-", 100),
        Ranges::Satisfiable(vec![0..100, 0..100])
    );
    assert_eq!(resolve("bytes=0-,0-,0-0", 100), Ranges::TooMany);
}

#[test]
fn a_content_range_shows_as_it_is_read() {
    for text in ["bytes 0-0/1", "bytes 500-1499/2048", "bytes 7-9/*"] {
        assert_eq!(text.parse::<ContentRange>().unwrap().to_string(), text);
    }
    let read: ContentRange = "Bytes 5-9/10".parse().unwrap();
    assert_eq!((read.range, read.total), (5..10, Some(10)));
    assert_eq!(ContentRange::unsatisfied(0), "bytes */0");
}

#[test]
fn a_content_range_that_contradicts_itself_is_refused() {
    for text in [
        "",
        "bytes",
        "bytes 0-9",
        "bytes */10",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes -5/10",
        "items 0-1/2",
        "bytes 0-18446744073709551615/*",
        "bytes 0-1/18446744073709551616",
        "bytes 0-1/",
        "bytes +0-1/2",
    ] {
        assert_eq!(
            text.parse::<ContentRange>(),
            Err(ContentRangeError),
            "{text}"
        );
    }
}

#[test]
fn a_body_of_several_ranges_is_as_long_as_it_says() {
    let content: Vec<u8> = (0..100).collect();
    let ranges = [90..100, 0..1, 0..1];
    let layout = Multipart::new(7, "application/octet-stream", &ranges, 100);
    let mut body = Vec::new();
    for part in &layout.parts {
        body.extend_from_slice(part.head.as_bytes());
        let range =
            usize::try_from(part.range.start).unwrap()..usize::try_from(part.range.end).unwrap();
        body.extend_from_slice(&content[range]);
    }
    body.extend_from_slice(layout.tail.as_bytes());
    assert_eq!(layout.total_len, body.len() as u64);

    let text = String::from_utf8(body).unwrap();
    let parts: Vec<&str> = text.split(&format!("--{}", layout.boundary)).collect();
    assert_eq!(parts.len(), 5);
    assert_eq!((parts[0], parts[4]), ("", "--\r\n"));
    assert_eq!(
        parts[2],
        "\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-0/100\r\n\r\n\0\r\n"
    );
    assert_eq!(
        layout.content_type(),
        "multipart/byteranges; boundary=layby-00000000000000000000000000000007"
    );
}

proptest! {
    #[test]
    fn every_header_has_a_meaning_within_the_content(
        header in "(bytes=)?([0-9]{0,22}-?[0-9]{0,22}[, a]{0,2}){0,6}",
        len in prop_oneof![0_u64..200, any::<u64>()],
    ) {
        if let Ranges::Satisfiable(ranges) = resolve(&header, len) {
            prop_assert!(!ranges.is_empty());
            for range in ranges {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(header in prop::collection::vec(any::<u8>(), 0..64), len: u64) {
        let _ = parse(Some(&header)).resolve(len);
        if let Ok(text) = std::str::from_utf8(&header) {
            let _ = text.parse::<ContentRange>();
        }
    }

    #[test]
    fn ranges_inside_are_given_back_as_asked(
        bounds in prop::collection::vec((0_u64..1000, 0_u64..20), 1..20),
    ) {
        let ranges: Vec<Range<u64>> = bounds.iter().map(|&(start, more)| start..start + more + 1).collect();
        let written: Vec<String> =
            ranges.iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect();
        prop_assert_eq!(
            resolve(&format!("bytes={}", written.join(",")), 2000),
            Ranges::Satisfiable(ranges)
        );
    }

    #[test]
    fn a_content_range_survives_writing_and_reading(
        start in 0..u64::MAX / 4,
        len in 1..u64::MAX / 4,
        rest in prop::option::of(0..u64::MAX / 4),
    ) {
        let written = ContentRange { range: start..start + len, total: rest.map(|rest| start + len + rest) };
        prop_assert_eq!(written.to_string().parse(), Ok(written));
    }
}
