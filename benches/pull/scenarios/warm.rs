//! Large blobs that are cached: how fast, and what they cost the server.

use super::present;
use crate::Result;
use crate::bed::Bed;
use crate::client::{self, Volume};
use crate::content::Content;
use crate::peers::{Contender, Layby, direct, distribution, nginx};
use crate::report::{Bound, Report, Target, Unit};
use crate::rounds::{interleaved, series};

/// Over plain HTTP, against everyone.
pub(crate) fn plain(bed: &Bed, report: &mut Report) -> Result<()> {
    let blob = bed.blob(bed.scale.warm);
    let files = [(blob.blob_path(), &*blob)];
    let mut contenders = present([
        Some(Layby::default().start(bed)?),
        nginx(bed, &files, false)?,
        distribution(bed)?,
        Some(direct(bed)),
    ]);
    bed.warm(&contenders, &blob.blob_path(), &blob)?;
    for connections in bed.connections(&[1, 8, 64]) {
        let least = if connections == 1 { 0.9 } else { 1.0 };
        let speed = [
            ("nginx", Target::ratio(Bound::AtLeast(least))),
            ("distribution", Target::ratio(Bound::AtLeast(1.5))),
        ];
        let cost = [("nginx", Target::ratio(Bound::AtMost(1.1)))];
        measure(
            bed,
            report,
            "warm_blob",
            &mut contenders,
            &blob,
            connections,
            &speed,
            &cost,
        )?;
    }
    Ok(())
}

/// Over TLS, against nginx.
pub(crate) fn tls(bed: &Bed, report: &mut Report) -> Result<()> {
    let blob = bed.blob(bed.scale.warm);
    let files = [(blob.blob_path(), &*blob)];
    let layby = Layby {
        has_tls: true,
        ..Layby::default()
    };
    let mut contenders = present([Some(layby.start(bed)?), nginx(bed, &files, true)?]);
    bed.warm(&contenders, &blob.blob_path(), &blob)?;
    for connections in bed.connections(&[1, 8]) {
        let least = if connections == 1 { 1.0 } else { 1.2 };
        let speed = [("nginx", Target::ratio(Bound::AtLeast(least)))];
        measure(
            bed,
            report,
            "warm_tls",
            &mut contenders,
            &blob,
            connections,
            &speed,
            &[],
        )?;
    }
    Ok(())
}

#[expect(
    clippy::too_many_arguments,
    reason = "two callers, who differ in nearly all of it"
)]
fn measure(
    bed: &Bed,
    report: &mut Report,
    scenario: &'static str,
    contenders: &mut [Contender],
    blob: &Content,
    connections: usize,
    speed: &[(&str, Target)],
    cost: &[(&str, Target)],
) -> Result<()> {
    for contender in contenders
        .iter_mut()
        .filter(|contender| contender.choices() > 1)
    {
        choose(bed, contender, blob, connections)?;
        let setting = contender.setting().unwrap_or_default();
        report.note(format!(
            "{scenario}: nginx was best with {setting} at {connections} connections"
        ));
    }
    let samples = interleaved(bed.scale.pairs, contenders, |_, contender| {
        volume(bed, contender, blob, connections)
    })?;
    let what = plural(connections);
    let rate = series(&samples, |volume| {
        volume.bytes as f64 / 1e9 / volume.time.as_secs_f64()
    });
    report.add(scenario, &what, Unit::GigabytesPerSecond, &rate, speed);
    let cpu = series(&samples, |volume| volume.cpu / (volume.bytes as f64 / 1e9));
    report.add(scenario, &what, Unit::CpuPerGigabyte, &cpu, cost);
    Ok(())
}

/// Decides for the setting that is fastest in the better of two short measurements.
fn choose(bed: &Bed, contender: &mut Contender, blob: &Content, connections: usize) -> Result<()> {
    let mut best = (0, 0.0);
    for choice in (0..contender.choices()).chain(0..contender.choices()) {
        contender.choose(choice);
        let volume = volume(bed, contender, blob, connections)?;
        let rate = volume.bytes as f64 / volume.time.as_secs_f64();
        if rate > best.1 {
            best = (choice, rate);
        }
    }
    contender.choose(best.0);
    Ok(())
}

fn volume(bed: &Bed, contender: &Contender, blob: &Content, connections: usize) -> Result<Volume> {
    let cpu = || contender.cpu_seconds();
    client::stream(contender.target(), blob, connections, bed.while_warm(), cpu)
}

/// `1 connection`, `8 connections`.
pub(super) fn plural(connections: usize) -> String {
    let s = if connections == 1 { "" } else { "s" };
    format!("{connections} connection{s}")
}
