//! The server: whether it answers where clients ask it, and whether it is a Layby.

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

use super::super::mirror::Mirror;
use super::report::Report;
use crate::cli::with_causes;

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Asks the mirror, and the admin listener of the same server where that is on this machine.
pub(super) async fn server(
    mirror: &Mirror,
    admin: Option<std::net::SocketAddr>,
    report: &mut Report,
) {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(PATIENCE));
    let client = Client::builder(TokioExecutor::new()).build(connector);
    if mirror.is_tls() {
        report.warn(
            "mirror",
            format!("{mirror} speaks TLS, and is not asked here"),
            format!("see that `curl {mirror}/v2/` answers {{}}"),
        );
    } else if !asked(&client, mirror, report).await {
        return;
    }
    if let Some(address) = admin {
        readiness(&client, address, report).await;
    }
}

/// Whether anybody answers at the mirror's address.
async fn asked(client: &Http, mirror: &Mirror, report: &mut Report) -> bool {
    match get(client, &format!("{mirror}/v2/")).await {
        Err(error) => {
            report.fail(
                "mirror",
                format!("{mirror} does not answer: {error}"),
                "start it with `layby serve`, or name where it is with --mirror",
            );
            return false;
        }
        Ok((StatusCode::OK, _)) => {}
        Ok((status, _)) => {
            let advice = match status {
                StatusCode::FORBIDDEN => {
                    "this machine is in none of the networks of `clients`: add it"
                }
                _ => "something else listens there, or stands before it: see what that is",
            };
            report.fail("mirror", format!("{mirror}/v2/ answers {status}"), advice);
            return true;
        }
    }
    // Of a registry that nobody has a Layby says what to configure, and asks nobody.
    match get(
        client,
        &format!("{mirror}/v2/{NOBODY}/check/manifests/latest"),
    )
    .await
    {
        Ok((StatusCode::NOT_FOUND, body)) if body.contains("this mirror knows no registry") => {
            report.ok("mirror", format!("{mirror} answers, and is a Layby"));
        }
        _ => report.fail(
            "mirror",
            format!("{mirror} answers like a registry, but not like a Layby"),
            "something else listens there, or stands before it and changes paths: see what that is",
        ),
    }
    true
}

async fn readiness(client: &Http, address: std::net::SocketAddr, report: &mut Report) {
    let url = format!("http://{address}/readyz");
    match get(client, &url).await {
        Ok((StatusCode::OK, _)) => report.ok("readiness", format!("{url} says ready")),
        Ok((status, body)) => report.warn(
            "readiness",
            format!("{url} answers {status}: {}", body.trim()),
            "wait, or see its log",
        ),
        Err(error) => report.warn(
            "readiness",
            format!("{url} does not answer: {error}"),
            "the server on this configuration does not run, or its [admin] listen differs",
        ),
    }
}

/// Status and body, or why there is none.
async fn get(client: &Http, url: &str) -> Result<(StatusCode, String), String> {
    let url: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let ask = async {
        let answer = client.get(url).await.map_err(|error| with_causes(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| with_causes(&*error))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let patience = format!("nothing came within {} s", PATIENCE.as_secs());
    timeout(PATIENCE, ask).await.unwrap_or(Err(patience))
}

/// A name that is reserved to be nobody's (RFC 6761, section 6.4).
const NOBODY: &str = "layby.invalid";
/// For an answer of the same network.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any of these answers has.
const MOST_BYTES: usize = 64 * 1024;
