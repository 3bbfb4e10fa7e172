//! One large blob that nobody had before.

use super::present;
use crate::Result;
use crate::bed::Bed;
use crate::client::{self, Pull};
use crate::origin::Pace;
use crate::peers::{LAYBY, Layby, direct, distribution, nginx_cache};
use crate::report::{Bound, Report, Series, Target, Unit};
use crate::rounds::{Samples, interleaved, series};

const SCENARIO: &str = "cold_blob";

/// Bytes per second of a fast upstream.
const FAST: f64 = 200e6;

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let paced = measure(bed, Pace::Together(FAST))?;
    let seconds = series(&paced, |pull| pull.time.as_secs_f64());
    let most = [("direct", Target::ratio(Bound::AtMost(1.05)))];
    report.add(SCENARIO, "at 200 MB/s", Unit::Seconds, &seconds, &most);
    later(
        report,
        &series(&paced, |pull| pull.first_byte.as_secs_f64() * 1e3),
    );

    let free = measure(bed, Pace::Free)?;
    let size = bed.scale.cold as f64 / 1e9;
    let rate = series(&free, |pull| size / pull.time.as_secs_f64());
    let least = [("", Target::value(Bound::AtLeast(0.6)))];
    report.add(
        SCENARIO,
        "unthrottled",
        Unit::GigabytesPerSecond,
        &rate,
        &least,
    );
    Ok(())
}

/// First bytes: of everyone, and how much later than without a cache Layby's comes.
fn later(report: &mut Report, first: &[Series]) {
    report.add(SCENARIO, "first byte", Unit::Milliseconds, first, &[]);
    let of = |name| first.iter().find(|series| series.name == name);
    let Some((own, direct)) = of(LAYBY).zip(of("direct")) else {
        return;
    };
    let pairs = own.values.iter().zip(&direct.values);
    let later = Series {
        name: LAYBY,
        values: pairs.map(|(own, direct)| own - direct).collect(),
    };
    let most = [("", Target::value(Bound::AtMost(2.0)))];
    report.add(
        SCENARIO,
        "first byte, later than direct",
        Unit::Milliseconds,
        &[later],
        &most,
    );
}

fn measure(bed: &Bed, pace: Pace) -> Result<Vec<Samples<Pull>>> {
    let contenders = present([
        Some(Layby::default().start(bed)?),
        Some(direct(bed)),
        distribution(bed)?,
        nginx_cache(bed)?,
    ]);
    // So that nobody's first connection to the origin is measured.
    let first = bed.blob(1 << 20);
    bed.warm(&contenders, &first.blob_path(), &first)?;
    let blobs: Vec<_> = (0..bed.scale.pairs)
        .map(|_| bed.blob(bed.scale.cold))
        .collect();
    interleaved(bed.scale.pairs, &contenders, |round, contender| {
        bed.settle()?;
        bed.origin.pace(pace);
        let blob = &blobs[round];
        client::pull(contender.target(), &blob.blob_path(), blob, bed.bodies())
    })
}
