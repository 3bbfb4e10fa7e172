//! Memory under many slow readers: of a warm blob at random places, and of a cold one.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bed::Bed;
use crate::client::{Bodies, SlowReaders, pull};
use crate::measure;
use crate::origin::Pace;
use crate::peers::{LAYBY, Layby};
use crate::report::{Bound, Report, Series, Target, Unit};

const SCENARIO: &str = "memory";

/// Bytes per second of the origin that the cold blob comes from.
const RATE: f64 = 50e6;

/// Most that was taken, in bytes.
#[derive(Debug, Clone, Copy)]
struct Peak {
    resident: u64,
    sockets: u64,
}

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    for (has_tls, how, most) in [(false, "plain", 64.0), (true, "TLS", 96.0)] {
        let large = measure(bed, bed.scale.large, has_tls)?;
        let small = measure(bed, bed.scale.large / 16, has_tls)?;
        let both = |figure: fn(&Peak) -> u64| {
            [(LAYBY, &large), ("a 16th of the blob", &small)].map(|(name, peak)| Series {
                name,
                values: vec![figure(peak) as f64 / f64::from(1 << 20)],
            })
        };
        let readers = bed.scale.readers;
        let what = format!("{how}, {readers} + {} readers", readers / 5);
        let target = |most| [("", Target::value(Bound::AtMost(most)))];
        let resident = both(|peak| peak.resident);
        report.add(
            SCENARIO,
            &format!("{what}, resident"),
            Unit::Mebibytes,
            &resident,
            &target(most),
        );
        let sockets = both(|peak| peak.sockets);
        report.add(
            SCENARIO,
            &format!("{what}, sockets"),
            Unit::Mebibytes,
            &sockets,
            &target(300.0),
        );
    }
    Ok(())
}

fn measure(bed: &Bed, size: u64, has_tls: bool) -> Result<Peak> {
    let data = bed.folder("data-")?;
    let layby = || Layby {
        has_tls,
        data: Some(data.path().to_owned()),
        ..Layby::default()
    };
    let (warm, cold) = (bed.blob(size), bed.blob(size / 4));
    bed.origin.pace(Pace::Free);
    let first = layby().start(bed)?;
    pull(first.target(), &warm.blob_path(), &warm, Bodies::Hash)?;
    drop(first);
    bed.settle()?;

    // Anew, so that what it took for fetching is not counted.
    let layby = layby().start(bed)?;
    let before = measure::socket_memory()?;
    bed.origin.pace(Pace::Together(RATE));
    let of_warm = SlowReaders::start(layby.target(), &warm, bed.scale.readers)?;
    let of_cold = SlowReaders::start(layby.target(), &cold, bed.scale.readers / 5)?;
    let mut sockets = 0;
    let until = Instant::now() + 10 * bed.while_warm();
    while Instant::now() < until {
        sockets = sockets.max(measure::socket_memory()?.saturating_sub(before));
        thread::sleep(Duration::from_millis(20));
    }
    if of_warm.bytes() == 0 || of_cold.bytes() == 0 {
        return Err("the slow readers got nothing".into());
    }
    Ok(Peak {
        resident: layby.peak_resident()?,
        sockets,
    })
}
