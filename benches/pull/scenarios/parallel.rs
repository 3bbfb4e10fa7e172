//! An upstream that limits each connection, with several at once against one.

use crate::Result;
use crate::bed::Bed;
use crate::client;
use crate::origin::Pace;
use crate::peers::Layby;
use crate::report::{Bound, Report, Target, Unit};
use crate::rounds::{interleaved, series};

/// Bytes per second of each connection.
const RATE: f64 = (10 << 20) as f64;

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let with = |parallel| Layby {
        parallel,
        ..Layby::default()
    };
    let mut contenders = [with(4).start(bed)?, with(1).start(bed)?];
    contenders[1].name = "one at once";
    let size = bed.scale.parallel;
    let blobs: Vec<_> = (0..bed.scale.pairs).map(|_| bed.blob(size)).collect();
    let samples = interleaved(bed.scale.pairs, &contenders, |round, contender| {
        bed.settle()?;
        bed.origin.pace(Pace::Each(RATE));
        let blob = &blobs[round];
        client::pull(contender.target(), &blob.blob_path(), blob, bed.bodies())
    })?;
    let rate = series(&samples, |pull| size as f64 / 1e9 / pull.time.as_secs_f64());
    let least = [("one at once", Target::ratio(Bound::AtLeast(3.0)))];
    let what = "parallel = 4, 10 MiB/s each";
    report.add("parallel", what, Unit::GigabytesPerSecond, &rate, &least);
    Ok(())
}
