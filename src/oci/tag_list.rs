//! Lists of tags, and paging through sorted lists (distribution-spec, "Listing Tags").

use serde::{Deserialize, Serialize};

use super::manifest::null_as_default;

/// The body of `tags/list`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct TagList {
    /// The repository, as whoever sent it calls it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub name: String,
    /// Its tags. Texts, not [`super::Tag`]s: an odd one among them must not hide the others.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tags: Vec<String>,
}

impl TagList {
    /// Reads an upstream's list; `"tags": null`, which old registries send, is an empty one.
    pub fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// The list as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// One page of a sorted list: what comes behind `last`, at most `n` of it, and whether there is more.
///
/// `last` need not be in the list. With `n` of zero there is nothing, and nothing more.
pub fn page<'a, T: AsRef<str>>(
    sorted: &'a [T],
    n: Option<u32>,
    last: Option<&str>,
) -> (&'a [T], bool) {
    let start = last.map_or(0, |last| {
        sorted.partition_point(|item| item.as_ref() <= last)
    });
    let rest = sorted.get(start..).unwrap_or_default();
    let most = n.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    match rest.get(..most) {
        Some(page) => (page, most > 0 && page.len() < rest.len()),
        None => (rest, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_tags_is_an_empty_one() {
        for body in [
            r#"{"name":"a","tags":null}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a","tags":[],"x":1}"#,
        ] {
            let list = TagList::parse(body.as_bytes()).unwrap();
            assert_eq!(
                String::from_utf8(list.to_json()).unwrap(),
                r#"{"name":"a","tags":[]}"#
            );
        }
        for bad in ["", "[1]", "<html>", r#"{"tags":{}}"#, r#"{"tags":[1]}"#] {
            assert!(TagList::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let all = ["a", "b", "c", "d", "e"];
        assert_eq!(page(&all, None, None), (&all[..], false));
        assert_eq!(page(&all, Some(2), None), (&all[..2], true));
        assert_eq!(page(&all, Some(2), Some("b")), (&all[2..4], true));
        assert_eq!(page(&all, Some(2), Some("d")), (&all[4..], false));
        assert_eq!(page(&all, Some(5), None), (&all[..], false));
        assert_eq!(page(&all, Some(2), Some("bb")), (&all[2..4], true));
        assert_eq!(page(&all, Some(2), Some("z")), (&all[5..], false));
    }

    #[test]
    fn a_page_of_nothing_has_no_next() {
        assert_eq!(page(&["a"], Some(0), None), (&[][..], false));
        assert_eq!(page::<&str>(&[], Some(9), None), (&[][..], false));
    }
}
