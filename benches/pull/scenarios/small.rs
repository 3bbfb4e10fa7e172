//! Many small blobs that nobody had before.

use std::sync::Arc;

use super::present;
use crate::Result;
use crate::bed::Bed;
use crate::client;
use crate::content::Content;
use crate::origin::Pace;
use crate::peers::{Layby, direct, distribution, nginx_cache};
use crate::report::{Bound, Report, Target, Unit};
use crate::rounds::{interleaved, series};

/// Connections at once.
const CONNECTIONS: usize = 16;

/// Bytes of a blob.
const SIZE: u64 = 32 << 10;

pub(crate) fn run(bed: &Bed, report: &mut Report) -> Result<()> {
    let contenders = present([
        Some(Layby::default().start(bed)?),
        distribution(bed)?,
        nginx_cache(bed)?,
        Some(direct(bed)),
    ]);
    let first = bed.blob(SIZE);
    bed.warm(&contenders, &first.blob_path(), &first)?;
    let lot = || (0..bed.scale.small).map(|_| bed.blob(SIZE)).collect();
    let lots: Vec<Vec<Arc<Content>>> = (0..bed.scale.pairs).map(|_| lot()).collect();
    let samples = interleaved(bed.scale.pairs, &contenders, |round, contender| {
        bed.settle()?;
        bed.origin.pace(Pace::Free);
        client::many(contender.target(), &lots[round], CONNECTIONS, bed.bodies())
    })?;
    let rate = series(&samples, |time| bed.scale.small as f64 / time.as_secs_f64());
    let least = [("distribution", Target::ratio(Bound::AtLeast(4.0)))];
    report.add(
        "small_blobs",
        "32 KiB, 16 connections",
        Unit::PerSecond,
        &rate,
        &least,
    );
    Ok(())
}
