//! The upstreams: whether each can be reached and lets us in.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::report::Report;
use crate::config::Config;
use crate::runtime::{Clock, Tasks};
use crate::telemetry::Metrics;
use crate::upstream::{Access, Error, Probe, Upstream, Upstreams};

/// Asks each upstream of `config` that is not turned off, several at once.
pub(super) async fn upstreams(config: &Config, report: &mut Report) {
    if config.offline {
        return report.warn(
            "upstreams",
            "offline is set, so no upstream is asked, here as in `layby serve`",
            "",
        );
    }
    let (clock, metrics, tasks) = (Clock::system(), Arc::new(Metrics::default()), Tasks::new());
    let upstreams = match Upstreams::new(config, "check", &clock, &metrics, &tasks) {
        Ok(upstreams) => upstreams,
        Err(error) => {
            return report.fail(
                "upstreams",
                error.to_string(),
                "`layby serve` does not start either",
            );
        }
    };
    let open = |upstream: &&Arc<Upstream>| !upstream.config().repositories.is_closed();
    let looks = upstreams.iter().filter(open).map(|upstream| async move {
        let probes = upstream.probe(Instant::now() + PATIENCE).await;
        (upstream, probes)
    });
    let mut looks = futures_util::stream::iter(looks).buffered(AT_ONCE);
    while let Some((upstream, probes)) = looks.next().await {
        match probes {
            Ok(probes) => probes
                .iter()
                .for_each(|probe| tell(upstream, probe, report)),
            Err(error) => report.fail(what(upstream), error.to_string(), ""),
        }
    }
    tasks.stop();
    tasks.drained(PATIENCE).await;
}

fn what(upstream: &Upstream) -> String {
    format!("upstream {}", upstream.name())
}

fn tell(upstream: &Upstream, probe: &Probe, report: &mut Report) {
    let what = what(upstream);
    let through = match &probe.proxy {
        Some(proxy) => format!(" through the proxy {proxy}"),
        None => String::new(),
    };
    let error = match &probe.outcome {
        Ok(access) => {
            let words = match access {
                Access::Open => "answers, and wants no login there",
                Access::Anonymous => "answers, and is pulled from without a login",
                Access::Accepted => "answers, and takes our login",
            };
            return report.ok(what, format!("{}{through} {words}", probe.url));
        }
        Err(error) => error,
    };
    let name = upstream.name();
    let advice = match error {
        Error::Denied { ours: true, .. } => {
            format!("see user and password (or helper) of upstreams.\"{name}\"")
        }
        Error::RateLimited { .. } => "wait; with a login the limit is another".to_owned(),
        Error::Unavailable { .. } if probe.proxy.is_some() => format!(
            "see whether that proxy lets it through; proxy = \"none\" in upstreams.\"{name}\" goes past it"
        ),
        Error::Unavailable { .. } => {
            "see name server, route, firewall and certificates of this machine; what is cached is served meanwhile, and a \
             registry that nobody wants is turned off with allow = []"
                .to_owned()
        }
        // The message says what to set.
        _ => String::new(),
    };
    report.fail(what, format!("{error}{through}"), advice);
}

/// For all that is asked of one upstream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Upstreams that are asked at once.
const AT_ONCE: usize = 8;
