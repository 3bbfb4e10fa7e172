//! A little SVG, for the pictures that benches draw.

use std::fmt::Write as _;

/// The start of a picture of this size on white ground.
pub(crate) fn start(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#333\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

/// Words at a place; `style` is further attributes.
pub(crate) fn text(out: &mut String, x: f64, y: f64, style: &str, what: &str) {
    let _ = writeln!(out, "<text x=\"{x:.0}\" y=\"{y:.0}\" {style}>{what}</text>");
}

/// A number of things as a length.
pub(crate) fn at(number: usize) -> f64 {
    u32::try_from(number).map_or(0.0, f64::from)
}
