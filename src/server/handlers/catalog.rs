//! `/v2/_catalog`: the repositories in the cache, page by page, unless that is turned off.

use bytes::Bytes;
use http::StatusCode;
use http::header::LINK;

use crate::oci::{TagsQuery, next_link};
use crate::server::answer::Answer;
use crate::server::reject::Rejection;
use crate::server::service::Exchange;

pub(in crate::server) async fn answer(
    exchange: &Exchange<'_>,
    n: Option<u32>,
    last: Option<&str>,
) -> Result<Answer, Rejection> {
    if !exchange.service.catalog {
        return Err(Rejection::no_catalog());
    }
    let page = exchange.service.content.catalog(n, last).await?;
    let last = page.repositories.last().filter(|_| page.more);
    let next = last.map(|last| {
        let query = TagsQuery::new(n, Some(last));
        next_link(exchange.request.uri.path(), query.as_query(), None)
    });
    let body = serde_json::json!({ "repositories": page.repositories }).to_string();
    Ok(Answer::json(StatusCode::OK, Bytes::from(body))
        .with_some(LINK, next.as_deref())
        .with_lifetime(false, false))
}
