//! Layby beside the programs that people use today, on one machine, in one run: `cargo bench --bench pull`.
//!
//! `docs/benchmark.md` says how to repeat it and what each scenario does. Everything is on loopback: an [`origin`] in
//! this process that counts, throttles and delays; the [`peers`] in front of it, each a process of its own with an
//! empty data directory; and a [`client`] that costs little. A scenario takes its measurements in rounds, one of each
//! contender in each round, and a ratio is the median of the rounds' ratios, so that a machine that is faster or
//! slower for a while does not decide.
//!
//! Without `--bench`, as under `cargo test --benches`, it does what `--tiny` does: it looks at the bytes and not at the
//! time.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "measurements are not exact, and never negative"
)]

mod args;
mod bed;
mod client;
mod content;
mod identity;
mod json;
mod measure;
mod origin;
mod peers;
mod plot;
mod process;
mod report;
mod rounds;
mod scenarios;
mod statistics;
#[path = "../support/svg.rs"]
mod svg;
mod table;

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use args::Args;
use bed::Bed;
use report::Report;

/// What anything here may fail with.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pull: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let chosen = scenarios::chosen(&args.only)?;
    allow_many_files()?;
    let bed = Bed::new(args)?;
    let mut report = Report::new(&bed.peers);
    for scenario in chosen {
        eprintln!("{}: {}", scenario.name, scenario.what);
        (scenario.run)(&bed, &mut report).map_err(|error| format!("{}: {error}", scenario.name))?;
        if !bed.scale.is_tiny {
            // After each, so that what was measured is not lost with a run that is stopped.
            write(&report, args)?;
        }
    }
    if bed.scale.is_tiny {
        println!("every byte was right");
    } else {
        print!("{}", table::text(&report));
    }
    Ok(())
}

/// Writes the files that are wanted.
fn write(report: &Report, args: &Args) -> Result<()> {
    if let Some(file) = &args.json {
        fs::write(file, json::text(report))?;
    }
    if let Some(file) = &args.markdown {
        fs::write(file, table::markdown(report))?;
    }
    if let Some(folder) = &args.svg {
        fs::create_dir_all(folder)?;
        for (name, picture) in plot::all(report) {
            fs::write(folder.join(format!("{name}.svg")), picture)?;
        }
    }
    Ok(())
}

/// Lets this process, and those that it starts, open as many files as the system allows: hundreds of connections are held
/// at once.
fn allow_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, most)?)
}
