//! Manifests that are cached: requests per second, and how long one takes.

use std::thread;
use std::time::Duration;

use super::present;
use super::warm::plural;
use crate::Result;
use crate::bed::Bed;
use crate::client::{self, Requests};
use crate::content::Content;
use crate::peers::{Contender, Layby, distribution, nginx};
use crate::report::{Bound, Report, Target, Unit};
use crate::rounds::{Samples, interleaved, series};
use std::sync::Arc;

const SCENARIO: &str = "manifests";
const TAG: &str = "latest";

/// Blobs that stream beside the requests.
const STREAMS: usize = 4;

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let (manifest, blob) = (Arc::new(Content::manifest()), bed.blob(bed.scale.warm));
    let (by_tag, by_digest) = (
        manifest.manifest_path(Some(TAG)),
        manifest.manifest_path(None),
    );
    let files = [
        (by_tag.clone(), &*manifest),
        (by_digest.clone(), &*manifest),
        (blob.blob_path(), &*blob),
    ];
    for path in [&by_tag, &by_digest] {
        bed.origin.put(path.clone(), &manifest);
    }
    let contenders = present([
        Some(Layby::default().start(bed)?),
        nginx(bed, &files, false)?,
        distribution(bed)?,
    ]);
    for path in [&by_tag, &by_digest] {
        bed.warm(&contenders, path, &manifest)?;
    }
    bed.warm(&contenders, &blob.blob_path(), &blob)?;
    for (how, path) in [("by tag", &by_tag), ("by digest", &by_digest)] {
        for connections in bed.connections(&[1, 16, 256]) {
            let samples = interleaved(bed.scale.pairs, &contenders, |_, contender| {
                let time = bed.while_warm();
                client::requests(contender.target(), path, &manifest, connections, time)
            })?;
            let what = format!("{how}, {}", plural(connections));
            let is_judged = how == "by tag" && connections == 16;
            rate(report, &what, &samples, is_judged);
            latencies(report, &what, &samples, is_judged.then_some(3.0));
        }
    }
    for connections in bed.connections(&[16]) {
        let samples = interleaved(bed.scale.pairs, &contenders, |_, contender| {
            beside_streams(bed, contender, (&by_tag, &manifest), &blob, connections)
        })?;
        let what = format!("by tag, {}, {STREAMS} blobs stream", plural(connections));
        latencies(report, &what, &samples, Some(5.0));
    }
    Ok(())
}

fn rate(report: &mut Report, what: &str, samples: &[Samples<Requests>], is_judged: bool) {
    let least = Target {
        ratio: Some(Bound::AtLeast(0.8)),
        value: Some(Bound::AtLeast(40_000.0)),
    };
    let targets = [
        ("nginx", least),
        ("distribution", Target::ratio(Bound::AtLeast(20.0))),
    ];
    let targets = if is_judged { &targets[..] } else { &[] };
    let rate = series(samples, Requests::per_second);
    report.add(SCENARIO, what, Unit::PerSecond, &rate, targets);
}

fn latencies(report: &mut Report, what: &str, samples: &[Samples<Requests>], most: Option<f64>) {
    for percent in [50, 99] {
        let milliseconds = |requests: &Requests| requests.percentile(percent).as_secs_f64() * 1e3;
        let series = series(samples, milliseconds);
        let most = most.filter(|_| percent == 99);
        let targets: Vec<(&str, Target)> = most
            .map(|most| ("", Target::value(Bound::AtMost(most))))
            .into_iter()
            .collect();
        let what = format!("{what}, p{percent}");
        report.add(SCENARIO, &what, Unit::Milliseconds, &series, &targets);
    }
}

/// Requests while blobs are sent at full speed.
fn beside_streams(
    bed: &Bed,
    contender: &Contender,
    (path, manifest): (&str, &Content),
    blob: &Content,
    connections: usize,
) -> Result<Requests> {
    let (target, time) = (contender.target(), bed.while_warm());
    let margin = Duration::from_millis(50);
    thread::scope(|scope| {
        let streams =
            scope.spawn(|| client::stream(target, blob, STREAMS, time + 2 * margin, || 0.0));
        thread::sleep(margin);
        let requests = client::requests(target, path, manifest, connections, time);
        streams.join().map_err(|_| "the streams have panicked")??;
        requests
    })
}
