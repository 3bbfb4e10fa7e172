//! Many clients at once for one blob that nobody had before.

use super::present;
use crate::Result;
use crate::bed::Bed;
use crate::client::{self, Pull};
use crate::origin::Pace;
use crate::peers::{Contender, Layby, direct, distribution, nginx_cache};
use crate::report::{Bound, Report, Target, Unit};
use crate::rounds::{Samples, interleaved, series};

const SCENARIO: &str = "herd";

/// How one herd did.
#[derive(Debug)]
struct Herd {
    /// Bytes that the origin sent, for each byte of the blob.
    asked: f64,
    /// When the last client had all, in seconds.
    last: f64,
}

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    for (clients, rate, size) in [
        (1, 100e6, bed.scale.herd),
        (10, 100e6, bed.scale.herd),
        (100, 25e6, bed.scale.herd / 4),
    ] {
        let most = clients.min(bed.scale.connections);
        let pair = [Layby::default().start(bed)?, direct(bed)];
        let mut samples = measure(bed, &pair, bed.scale.pairs, (most, rate, size))?;
        if clients == 10 {
            // Once: each client costs those that fetch for it alone the time of a whole blob.
            let others = present([distribution(bed)?, nginx_cache(bed)?]);
            samples.extend(measure(bed, &others, 1, (most, rate, size))?);
        }
        let what = format!("{clients} at {:.0} MB/s", rate / 1e6);
        let once = [("", Target::value(Bound::AtMost(1.0)))];
        let asked = series(&samples, |herd| herd.asked);
        let asked: Vec<_> = asked
            .into_iter()
            .filter(|series| series.name != "direct")
            .collect();
        let upstream = format!("{what}, upstream bytes");
        report.add(SCENARIO, &upstream, Unit::Times, &asked, &once);
        let last = series(&samples, |herd| herd.last);
        let soon = [("direct", Target::ratio(Bound::AtMost(1.1)))];
        let targets = if clients == 1 { &[] } else { &soon[..] };
        report.add(
            SCENARIO,
            &format!("{what}, last finish"),
            Unit::Seconds,
            &last,
            targets,
        );
    }
    Ok(())
}

/// A herd through each of `contenders`; without a cache, one client.
fn measure(
    bed: &Bed,
    contenders: &[Contender],
    pairs: usize,
    (clients, rate, size): (usize, f64, u64),
) -> Result<Vec<Samples<Herd>>> {
    let first = bed.blob(1 << 20);
    bed.warm(contenders, &first.blob_path(), &first)?;
    let blobs: Vec<_> = (0..pairs).map(|_| bed.blob(size)).collect();
    interleaved(pairs, contenders, |round, contender| {
        bed.settle()?;
        bed.origin.pace(Pace::Together(rate));
        let clients = if contender.name == "direct" {
            1
        } else {
            clients
        };
        bed.origin.count();
        let pulls = client::herd(contender.target(), &blobs[round], clients, bed.bodies())?;
        let last = pulls.iter().map(|pull: &Pull| pull.time.as_secs_f64());
        Ok(Herd {
            asked: bed.origin.count().bytes as f64 / size as f64,
            last: last.fold(0.0, f64::max),
        })
    })
}
