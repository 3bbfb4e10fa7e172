//! What lists of tags and of referrers have in common: a page and a link to the next.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, LINK};

use crate::oci::{Target, next_link};
use crate::proxy::{ListAnswer, Selected};
use crate::server::answer::{Answer, Payload};
use crate::server::service::Exchange;

/// A page of `list`; `end` is the path behind the repository.
pub(super) fn page(
    exchange: &mut Exchange<'_>,
    target: &Target,
    selected: &Selected,
    list: &ListAnswer,
    end: &str,
) -> Answer {
    exchange.record.set_cache(list.outcome);
    let link = list.next.as_deref().map(|query| {
        let path = format!("{}/{end}", selected.link_base);
        next_link(&path, query, target.ns.as_deref())
    });
    Answer::new(StatusCode::OK, Payload::Memory(Bytes::clone(&list.body)))
        .with(CONTENT_TYPE, list.media_type.as_str())
        .with_some(LINK, link.as_deref())
        .with_some(FILTERS_APPLIED, list.filters_applied.as_deref())
        .with_lifetime(false, false)
        .with_outcome(list.outcome, list.warning.as_deref())
        .with_namespace(selected)
}

/// Which filters the list has gone through (distribution-spec, "Listing Referrers").
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
