//! What was measured, and what it should have been.

use std::fs;

use crate::peers::{LAYBY, Programs};
use crate::statistics::Summary;

/// All figures of a run.
#[derive(Debug)]
pub(crate) struct Report {
    /// The machine, the date, the programs; each a word and what it stands for.
    pub(crate) about: Vec<(&'static str, String)>,
    pub(crate) rows: Vec<Row>,
    /// What else should be known of the figures.
    pub(crate) notes: Vec<String>,
}

/// A figure of Layby, and mostly that of another in the same rounds.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) own: Vec<f64>,
    pub(crate) other: Option<Series>,
    pub(crate) target: Option<Target>,
}

/// What one contender gave in each round.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f64>,
}

/// What a figure is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    GigabytesPerSecond,
    /// CPU seconds of the server for each gigabyte.
    CpuPerGigabyte,
    PerSecond,
    Milliseconds,
    Seconds,
    Mebibytes,
    /// So many times something.
    Times,
}

/// What a figure should be; either is enough where there are two.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target {
    /// Layby's figure divided by the other's.
    pub(crate) ratio: Option<Bound>,
    /// Layby's figure.
    pub(crate) value: Option<Bound>,
}

/// A limit, from above or from below.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GigabytesPerSecond => "GB/s",
            Self::CpuPerGigabyte => "CPU s/GB",
            Self::PerSecond => "/s",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Mebibytes => "MiB",
            Self::Times => "times",
        }
    }

    /// A figure with as many digits as there is meaning in.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond | Self::Mebibytes => format!("{value:.0}"),
            Self::CpuPerGigabyte => format!("{value:.3}"),
            Self::GigabytesPerSecond if value < 0.1 => format!("{value:.4}"),
            _ => format!("{value:.2}"),
        }
    }
}

impl Target {
    pub(crate) fn ratio(bound: Bound) -> Self {
        Self {
            ratio: Some(bound),
            value: None,
        }
    }

    pub(crate) fn value(bound: Bound) -> Self {
        Self {
            ratio: None,
            value: Some(bound),
        }
    }
}

impl Bound {
    /// By what part of the bound `figure` is on the wrong side of it; at most 0 when it is met.
    pub(crate) fn missed_by(self, figure: f64) -> f64 {
        match self {
            Self::AtLeast(bound) => (bound - figure) / bound,
            Self::AtMost(bound) => (figure - bound) / bound,
        }
    }
}

impl Row {
    /// Layby's figure divided by the other's, round by round.
    pub(crate) fn ratios(&self) -> Option<Vec<f64>> {
        let other = self.other.as_ref()?;
        let pairs = self.own.iter().zip(&other.values);
        Some(pairs.map(|(own, other)| own / other).collect())
    }

    /// By what part the target is missed; at most 0 when it is met, `None` when there is none.
    pub(crate) fn missed_by(&self) -> Option<f64> {
        let target = self.target?;
        let ratio = self
            .ratios()
            .zip(target.ratio)
            .map(|(ratios, bound)| bound.missed_by(Summary::of(&ratios).median));
        let value = target
            .value
            .map(|bound| bound.missed_by(Summary::of(&self.own).median));
        [ratio, value].into_iter().flatten().reduce(f64::min)
    }
}

impl Report {
    /// An empty one, about this machine and these programs.
    pub(crate) fn new(programs: &Programs) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let processor = line_of("/proc/cpuinfo", "model name");
        let memory = line_of("/proc/meminfo", "MemTotal");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            about: vec![
                (
                    "machine",
                    format!(
                        "{cores} cores of {processor}, {memory} of memory, Linux {}",
                        kernel.trim()
                    ),
                ),
                ("date", jiff::Zoned::now().date().to_string()),
                ("programs", programs.versions().join("; ")),
                ("command", command()),
            ],
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds Layby's series beside each other one, with the target that goes with that one's name; with no other, one row
    /// with the target of no name. A series that was not to be had is left out.
    pub(crate) fn add(
        &mut self,
        scenario: &'static str,
        what: &str,
        unit: Unit,
        series: &[Series],
        targets: &[(&str, Target)],
    ) {
        let Some(own) = series.iter().find(|series| series.name == LAYBY) else {
            return;
        };
        let target = |name: &str| {
            let found = targets.iter().find(|(of, _)| *of == name);
            found.map(|(_, target)| *target)
        };
        let row = |other: Option<Series>, target| Row {
            scenario,
            what: what.to_owned(),
            unit,
            own: own.values.clone(),
            other,
            target,
        };
        let is_whole = |series: &&Series| series.values.iter().all(|value| value.is_finite());
        let others = series
            .iter()
            .filter(|series| series.name != LAYBY)
            .filter(is_whole);
        let mut rows: Vec<Row> = others
            .map(|other| row(Some(other.clone()), target(other.name)))
            .collect();
        if let Some(alone) = target("") {
            rows.insert(0, row(None, Some(alone)));
        }
        if rows.is_empty() {
            rows.push(row(None, None));
        }
        self.rows.append(&mut rows);
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

/// What stands behind the colon of the first line that begins with `name`.
fn line_of(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

fn command() -> String {
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let args: Vec<String> = args.collect();
    let behind = if args.is_empty() { "" } else { " -- " };
    format!("cargo bench --bench pull{behind}{}", args.join(" "))
}
