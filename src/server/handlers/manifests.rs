//! Manifests, by tag or digest, byte for byte and with the type they were stored with, whatever `Accept` says.

use http::header::{ACCEPT_RANGES, CONTENT_TYPE};
use http::{Method, StatusCode};

use crate::oci::{Reference, Target};
use crate::server::answer::{Answer, Payload};
use crate::server::conditional::client_has;
use crate::server::reject::Rejection;
use crate::server::service::Exchange;

pub(in crate::server) async fn answer(
    exchange: &mut Exchange<'_>,
    target: &Target,
    reference: &Reference,
) -> Result<Answer, Rejection> {
    let selected = exchange.select(target)?;
    let service = exchange.service;
    let manifest = service
        .content
        .manifest(&selected.place, reference, &exchange.call)
        .await?;
    exchange.record.set_cache(manifest.outcome);
    let client_has = client_has(&exchange.request.headers, &manifest.digest);
    if !client_has && exchange.request.method == Method::GET {
        service.content.sends(&manifest);
    }
    let by_digest = matches!(reference, Reference::Digest(_));
    let answer = Answer::new(StatusCode::OK, Payload::Memory(manifest.bytes))
        .with(CONTENT_TYPE, manifest.media_type.as_str())
        .with_digest(&manifest.digest)
        // A manifest always comes whole.
        .with_static(ACCEPT_RANGES, "none")
        .with_lifetime(by_digest, service.clients.is_restricted())
        .with_outcome(manifest.outcome, manifest.warning.as_deref())
        .with_namespace(&selected);
    Ok(if client_has {
        answer.not_modified()
    } else {
        answer
    })
}
