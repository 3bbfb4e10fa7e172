//! Every policy over every trace at every size, and what that says in few numbers.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ratios and shares are not exact, and never negative"
)]

use crate::policy::{ALL, BOUND};
use crate::simulate::{self, Ratios};
use crate::trace::Trace;

/// Sizes of the cache, as parts of everything that the trace asks for.
pub(crate) const SHARES: [f64; 6] = [0.02, 0.05, 0.1, 0.2, 0.3, 0.4];

/// What one trace gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) trace: &'static str,
    pub(crate) what: &'static str,
    pub(crate) requests: usize,
    pub(crate) footprint: u64,
    /// By policy, by size.
    pub(crate) ratios: Vec<[Ratios; SHARES.len()]>,
}

/// Runs every policy over `trace`.
pub(crate) fn compare(trace: &Trace) -> Outcome {
    let footprint = simulate::footprint(trace);
    let run = |make: &dyn Fn(&Trace, u64) -> Box<dyn crate::policy::Policy>| {
        SHARES.map(|share| {
            let capacity = (footprint as f64 * share) as u64;
            simulate::run(trace, capacity, &mut *make(trace, capacity))
        })
    };
    Outcome {
        trace: trace.name,
        what: trace.what,
        requests: trace.requests.len(),
        footprint,
        ratios: ALL.iter().map(|(_, make)| run(make)).collect(),
    }
}

/// Prints a trace's ratios in per cent, bytes and requests.
pub(crate) fn print(outcome: &Outcome) {
    println!(
        "\n{}: {} ({} requests, {} GB in all)",
        outcome.trace,
        outcome.what,
        outcome.requests,
        outcome.footprint / 1_000_000_000
    );
    for (what, of) in [
        ("bytes", (|r: &Ratios| r.bytes) as fn(&Ratios) -> f64),
        ("requests", |r| r.requests),
    ] {
        print!("| {what:<8} ");
        for share in SHARES {
            print!("| {:>4.0} % ", share * 100.0);
        }
        println!("|");
        println!("| -------- {}|", "| -----: ".repeat(SHARES.len()));
        for ((name, _), ratios) in ALL.iter().zip(&outcome.ratios) {
            print!("| {name:<8} ");
            for ratio in ratios {
                print!("| {:>6.1} ", of(ratio) * 100.0);
            }
            println!("|");
        }
    }
}

/// Prints, for each policy, its byte hit ratio on average, and by how much the best that can be had beats it, on
/// average and where it does so most.
pub(crate) fn summary(outcomes: &[Outcome]) {
    println!("\nover all traces and sizes, per cent of bytes:");
    println!("| policy   | hit ratio | behind the best | at worst |");
    println!("| -------- | --------: | --------------: | -------: |");
    let column = |policy: usize| {
        let ratios = outcomes
            .iter()
            .flat_map(move |outcome| outcome.ratios[policy]);
        ratios.map(|ratio| ratio.bytes * 100.0).collect::<Vec<_>>()
    };
    let columns: Vec<Vec<f64>> = (0..ALL.len()).map(column).collect();
    let real = || {
        columns
            .iter()
            .zip(ALL)
            .filter(|(_, (name, _))| *name != BOUND)
    };
    let best: Vec<f64> = (0..columns[0].len())
        .map(|at| real().map(|(column, _)| column[at]).fold(0.0, f64::max))
        .collect();
    for (column, (name, _)) in columns.iter().zip(ALL) {
        let behind: Vec<f64> = best
            .iter()
            .zip(column)
            .map(|(best, own)| best - own)
            .collect();
        let worst = behind.iter().copied().fold(f64::MIN, f64::max);
        println!(
            "| {name:<8} | {:>9.1} | {:>15.1} | {worst:>8.1} |",
            mean(column),
            mean(&behind)
        );
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
