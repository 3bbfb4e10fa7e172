//! The comparison as a picture: one panel for each trace, bytes found in the cache by its size.

use std::fmt::Write as _;

use crate::compare::{Outcome, SHARES};
use crate::policy::{ALL, BOUND, CHOSEN};
use crate::svg::{self, at, text};

const PANEL: (f64, f64) = (240.0, 150.0);
const GAP: (f64, f64) = (46.0, 52.0);
const COLUMNS: usize = 3;
const TOP: f64 = 64.0;

/// The picture.
pub(crate) fn draw(outcomes: &[Outcome]) -> String {
    let rows = outcomes.len().div_ceil(COLUMNS);
    let (width, height) = (
        GAP.0 + at(COLUMNS) * (PANEL.0 + GAP.0),
        TOP + at(rows) * (PANEL.1 + GAP.1),
    );
    let mut out = svg::start(width, height);
    text(
        &mut out,
        GAP.0,
        22.0,
        "font-size=\"14\"",
        "Bytes found in the cache (%), by its size (% of all that is asked for)",
    );
    legend(&mut out);
    for (number, outcome) in outcomes.iter().enumerate() {
        let x = GAP.0 + at(number % COLUMNS) * (PANEL.0 + GAP.0);
        let y = TOP + 20.0 + at(number / COLUMNS) * (PANEL.1 + GAP.1);
        panel(&mut out, x, y, outcome);
    }
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String) {
    for (number, (name, _)) in ALL.iter().enumerate() {
        let x = GAP.0 + at(number) * 95.0;
        line(out, &[(x, 44.0), (x + 22.0, 44.0)], number);
        text(out, x + 27.0, 48.0, "", name);
    }
}

fn panel(out: &mut String, x: f64, y: f64, outcome: &Outcome) {
    let bytes = outcome.ratios.iter().flatten().map(|ratio| ratio.bytes);
    let floor = (bytes.fold(1.0, f64::min) * 10.0).floor() / 10.0;
    let place = |share: f64, ratio: f64| {
        (
            x + PANEL.0 * (share / SHARES[SHARES.len() - 1]),
            y + PANEL.1 * (1.0 - (ratio - floor) / (1.0 - floor)),
        )
    };
    text(out, x, y - 7.0, "font-weight=\"bold\"", outcome.trace);
    let mut tick = floor;
    while tick < 1.0 + 1e-9 {
        let (left, height) = place(0.0, tick);
        let _ = writeln!(
            out,
            "<path d=\"M{left:.0} {height:.1}h{:.0}\" stroke=\"#ddd\"/>",
            PANEL.0
        );
        text(
            out,
            left - 4.0,
            height + 4.0,
            "text-anchor=\"end\"",
            &format!("{:.0}", tick * 100.0),
        );
        tick += 0.1;
    }
    for share in SHARES {
        let (left, _) = place(share, 1.0);
        text(
            out,
            left,
            y + PANEL.1 + 14.0,
            "text-anchor=\"middle\"",
            &format!("{:.0}", share * 100.0),
        );
    }
    for (number, ratios) in outcome.ratios.iter().enumerate() {
        let points = SHARES
            .iter()
            .zip(ratios)
            .map(|(share, ratio)| place(*share, ratio.bytes));
        line(out, &points.collect::<Vec<_>>(), number);
    }
}

fn line(out: &mut String, points: &[(f64, f64)], policy: usize) {
    const COLOURS: [&str; 8] = [
        "#999999", "#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#d55e00", "#000000",
    ];
    let name = ALL[policy].0;
    let style = match name {
        CHOSEN => " stroke-width=\"3\"",
        BOUND => " stroke-dasharray=\"3 3\"",
        _ => "",
    };
    let points: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.0},{y:.1}"))
        .collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\"{style}/>",
        points.join(" "),
        COLOURS[policy % COLOURS.len()]
    );
}
