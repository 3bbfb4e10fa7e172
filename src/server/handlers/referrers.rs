//! What refers to a manifest: signatures, SBOMs. An upstream that has no such list is believed, since its clients then
//! look for the tag that stands in for it.

use super::list;
use crate::oci::{Digest, Target};
use crate::server::answer::Answer;
use crate::server::reject::Rejection;
use crate::server::service::Exchange;

/// What the route says.
pub(in crate::server) struct Asked<'a> {
    pub(in crate::server) digest: &'a Digest,
    pub(in crate::server) artifact_types: &'a [String],
    pub(in crate::server) query: &'a str,
}

pub(in crate::server) async fn answer(
    exchange: &mut Exchange<'_>,
    target: &Target,
    asked: &Asked<'_>,
) -> Result<Answer, Rejection> {
    let selected = exchange.select(target)?;
    let list = exchange
        .service
        .content
        .referrers(
            &selected.place,
            asked.digest,
            asked.artifact_types,
            asked.query,
            &exchange.call,
        )
        .await?;
    let end = format!("referrers/{}", asked.digest);
    Ok(list::page(exchange, target, &selected, &list, &end))
}
