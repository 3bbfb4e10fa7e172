//! `tags/list`, page by page.

use super::list;
use crate::oci::{TagsQuery, Target};
use crate::server::answer::Answer;
use crate::server::reject::Rejection;
use crate::server::service::Exchange;

pub(in crate::server) async fn answer(
    exchange: &mut Exchange<'_>,
    target: &Target,
    query: &TagsQuery,
) -> Result<Answer, Rejection> {
    let selected = exchange.select(target)?;
    let content = &exchange.service.content;
    let list = content.tags(&selected.place, query, &exchange.call).await?;
    Ok(list::page(exchange, target, &selected, &list, "tags/list"))
}
