//! Lists of tags and the links between their pages.

#![no_main]

use layby::oci::{TagList, next_link, next_query, page};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(list) = TagList::parse(body) {
        assert_eq!(TagList::parse(&list.to_json()).ok().as_ref(), Some(&list));
        let mut tags = list.tags;
        tags.sort_unstable();
        let last = tags.first().cloned();
        assert!(page(&tags, Some(3), last.as_deref()).0.len() <= 3);
    }
    if let Ok(header) = std::str::from_utf8(body)
        && let Some(query) = next_query(header)
    {
        assert!(!query.contains(['<', '>', ' ', '"', '#']));
        assert_eq!(
            next_query(&next_link("/v2/a/tags/list", &query, Some("x.io"))),
            Some(query)
        );
    }
});
