//! Tables, sizes and times for people.

use std::fmt::Write as _;

use bytesize::ByteSize;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A table in plain text: the columns side by side, two spaces apart, those of `right` flush right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|title| width(title)).collect();
    for row in rows {
        for (most, cell) in widths.iter_mut().zip(row) {
            *most = (*most).max(width(cell));
        }
    }
    let mut text = String::new();
    line(&mut text, head.iter().copied(), &widths, right);
    for row in rows {
        line(&mut text, row.iter().map(String::as_str), &widths, right);
    }
    text
}

fn line<'a>(
    text: &mut String,
    cells: impl Iterator<Item = &'a str>,
    widths: &[usize],
    right: &[usize],
) {
    let start = text.len();
    for (column, (cell, &most)) in cells.zip(widths).enumerate() {
        let gap = if column == 0 { "" } else { "  " };
        // Writing to a String cannot fail.
        let _ = if right.contains(&column) {
            write!(text, "{gap}{cell:>most$}")
        } else {
            write!(text, "{gap}{cell:<most$}")
        };
    }
    let used = text.get(start..).unwrap_or_default().trim_end().len();
    text.truncate(start + used);
    text.push('\n');
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// `12.3 MiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `2026-11-21T08:14Z`, or a dash.
pub(super) fn minute(time: Option<Timestamp>) -> String {
    time.map_or_else(dash, |time| {
        let time = time.to_zoned(TimeZone::UTC);
        time.strftime("%Y-%m-%dT%H:%MZ").to_string()
    })
}

/// `83.1 %`, or a dash.
pub(super) fn percent(ratio: Option<f64>) -> String {
    ratio.map_or_else(dash, |ratio| format!("{:.1} %", ratio * 100.0))
}

/// `1 image`, `2 images`.
pub(super) fn count(number: impl Into<u64>, one: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

/// As much of a digest as tells it from others: `sha256:0123456789ab`.
pub(super) fn short(digest: &str) -> &str {
    let end = digest.find(':').map_or(12, |colon| colon + 13);
    digest.get(..end).unwrap_or(digest)
}

/// `yes` or a dash.
pub(super) fn yes(is: bool) -> String {
    if is { "yes".to_owned() } else { dash() }
}

/// In place of what there is not.
pub(super) fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_spaces() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned(), "x".to_owned()],
            vec!["longer".to_owned(), "10000".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["NAME", "SIZE", "NOTE"], &rows, &[1]),
            "NAME     SIZE  NOTE\na           1  x\nlonger  10000\n"
        );
    }

    #[test]
    fn values_are_written_for_people() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_572_864), "1.5 MiB");
        assert_eq!(minute(Some(Timestamp::UNIX_EPOCH)), "1970-01-01T00:00Z");
        assert_eq!(percent(Some(0.8312)), "83.1 %");
        assert_eq!((minute(None), percent(None)), (dash(), dash()));
        assert_eq!(short("sha256:0123456789abcdef"), "sha256:0123456789ab");
        assert_eq!(short("x"), "x");
        assert_eq!(
            (count(1_u64, "blob"), count(0_u64, "blob")),
            ("1 blob".into(), "0 blobs".into())
        );
    }
}
