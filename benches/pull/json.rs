//! The figures for machines: every sample.

use serde_json::{Value, json};

use crate::report::{Bound, Report, Row};
use crate::statistics::Summary;

/// One object with all rows.
pub(crate) fn text(report: &Report) -> String {
    let about: serde_json::Map<String, Value> = report
        .about
        .iter()
        .map(|(word, about)| ((*word).to_owned(), json!(about)))
        .collect();
    let all = json!({
        "about": about,
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
        "notes": report.notes,
    });
    format!("{all:#}\n")
}

fn row(row: &Row) -> Value {
    let bound = |bound: Bound| match bound {
        Bound::AtLeast(least) => json!({ "at_least": least }),
        Bound::AtMost(most) => json!({ "at_most": most }),
    };
    json!({
        "scenario": row.scenario,
        "what": row.what,
        "unit": row.unit.name(),
        "layby": samples(&row.own),
        "against": row.other.as_ref().map(|other| other.name),
        "other": row.other.as_ref().map(|other| samples(&other.values)),
        "ratio": row.ratios().map(|ratios| samples(&ratios)),
        "target": row.target.map(|target| json!({
            "ratio": target.ratio.map(bound),
            "value": target.value.map(bound),
        })),
        "is_met": row.missed_by().map(|missed| missed <= 0.0),
    })
}

fn samples(samples: &[f64]) -> Value {
    let Summary { median, low, high } = Summary::of(samples);
    json!({ "median": median, "low": low, "high": high, "samples": samples })
}
