//! The figures as pictures: one for each scenario, a group of bars for each thing that was measured.

use std::fmt::Write as _;

use crate::peers::LAYBY;
use crate::report::{Report, Row, Series, Unit};
use crate::statistics::Summary;
use crate::svg::{self, at, text};

const WIDTH: f64 = 640.0;
const LEFT: f64 = 110.0;
const BAR: f64 = 15.0;
const LENGTH: f64 = 400.0;

/// What was measured of everyone.
#[derive(Debug)]
struct Group {
    title: String,
    unit: Unit,
    series: Vec<Series>,
}

/// The name of each scenario that compares, and its picture.
pub(crate) fn all(report: &Report) -> Vec<(&'static str, String)> {
    let mut names: Vec<&'static str> = report.rows.iter().map(|row| row.scenario).collect();
    names.dedup();
    let picture = |name: &'static str| {
        let groups = groups(report.rows.iter().filter(|row| row.scenario == name));
        (!groups.is_empty()).then(|| (name, draw(name, &groups)))
    };
    names.into_iter().filter_map(picture).collect()
}

fn groups<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let Some(other) = &row.other else {
            continue;
        };
        let title = format!("{}, {}", row.what, row.unit.name());
        match groups.last_mut() {
            Some(group) if group.title == title => group.series.push(other.clone()),
            _ => groups.push(Group {
                title,
                unit: row.unit,
                series: vec![
                    Series {
                        name: LAYBY,
                        values: row.own.clone(),
                    },
                    other.clone(),
                ],
            }),
        }
    }
    groups
}

fn draw(scenario: &str, groups: &[Group]) -> String {
    let bars: usize = groups.iter().map(|group| group.series.len()).sum();
    let height = 50.0 + at(groups.len()) * 34.0 + at(bars) * BAR;
    let mut out = svg::start(WIDTH, height);
    text(
        &mut out,
        10.0,
        22.0,
        "font-size=\"14\"",
        &scenario.replace('_', " "),
    );
    let mut y = 40.0;
    for group in groups {
        y += 14.0;
        text(&mut out, 10.0, y, "font-weight=\"bold\"", &group.title);
        y += 6.0;
        let longest = group
            .series
            .iter()
            .map(|series| Summary::of(&series.values).high);
        let scale = LENGTH / longest.fold(f64::MIN_POSITIVE, f64::max);
        for series in &group.series {
            bar(&mut out, y, series, group.unit, scale);
            y += BAR;
        }
        y += 14.0;
    }
    out.push_str("</svg>\n");
    out
}

/// A bar as long as the median, and a line over the middle half.
fn bar(out: &mut String, y: f64, series: &Series, unit: Unit, scale: f64) {
    let Summary { median, low, high } = Summary::of(&series.values);
    let colour = if series.name == LAYBY {
        "#0072b2"
    } else {
        "#bbbbbb"
    };
    text(
        out,
        LEFT - 6.0,
        y + 11.0,
        "text-anchor=\"end\"",
        series.name,
    );
    let (length, middle) = (median * scale, y + BAR / 2.0);
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT:.0}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
         <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#000\"/>",
        y + 1.0,
        BAR - 2.0,
        LEFT + low * scale,
        LEFT + high * scale
    );
    let end = LEFT + length.max(high * scale) + 5.0;
    text(out, end, y + 11.0, "", &unit.show(median));
}
