//! The figures as a table, for a terminal and for README.md.

use std::fmt::Write as _;

use crate::report::{Bound, Report, Row, Unit};
use crate::statistics::Summary;

const COLUMNS: [&str; 8] = [
    "scenario",
    "what",
    "unit",
    "Layby",
    "against",
    "its figure",
    "ratio",
    "target",
];

/// For a terminal.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    for (word, about) in &report.about {
        let _ = writeln!(out, "{word}: {about}");
    }
    out.push('\n');
    out.push_str(&table(report));
    for note in &report.notes {
        let _ = writeln!(out, "{note}");
    }
    out
}

/// For README.md.
pub(crate) fn markdown(report: &Report) -> String {
    let mut out = String::new();
    for (word, about) in &report.about {
        let quote = if *word == "command" { "`" } else { "" };
        let _ = writeln!(out, "- {word}: {quote}{about}{quote}");
    }
    out.push_str(
        "\nMedians, and in brackets what the middle half of the rounds lies between; a ratio is Layby's figure divided by \
         the other's in the same round.\n\n",
    );
    out.push_str(&table(report));
    if !report.notes.is_empty() {
        out.push('\n');
    }
    for note in &report.notes {
        let _ = writeln!(out, "- {note}");
    }
    out
}

fn table(report: &Report) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(report.rows.iter().map(cells));
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(out, "| {cell:<width$} ");
        }
        out.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(out, "| {} ", "-".repeat(*width));
            }
            out.push_str("|\n");
        }
    }
    out
}

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let other = row.other.as_ref();
    [
        row.scenario.to_owned(),
        row.what.clone(),
        row.unit.name().to_owned(),
        figure(&row.own, row.unit),
        other.map_or_else(String::new, |other| other.name.to_owned()),
        other.map_or_else(String::new, |other| figure(&other.values, row.unit)),
        row.ratios()
            .map_or_else(String::new, |ratios| figure(&ratios, Unit::Times)),
        target(row),
    ]
}

fn figure(samples: &[f64], unit: Unit) -> String {
    let Summary { median, low, high } = Summary::of(samples);
    let show = |value| unit.show(value);
    if samples.len() == 1 {
        return show(median);
    }
    format!("{} ({}–{})", show(median), show(low), show(high))
}

fn target(row: &Row) -> String {
    let (Some(target), Some(missed)) = (row.target, row.missed_by()) else {
        return String::new();
    };
    let bounds = [(target.ratio, Unit::Times), (target.value, row.unit)];
    let wanted: Vec<String> = bounds
        .into_iter()
        .filter_map(|(bound, unit)| match bound? {
            Bound::AtLeast(bound) => Some(format!("≥ {}", unit.show(bound))),
            Bound::AtMost(bound) => Some(format!("≤ {}", unit.show(bound))),
        })
        .collect();
    let wanted = wanted.join(" or ");
    if missed <= 0.0 {
        format!("{wanted}: met")
    } else {
        format!("{wanted}: missed by {:.0} %", (missed * 100.0).ceil())
    }
}
