//! `[cache]`: limits of the disk.

use std::sync::Arc;
use std::time::Duration;

use super::document::Section;
use super::faults::Wrong;
use super::pin::Pin;
use super::upstream::Upstream;
use super::values::{finite, size, unless_none};

/// How much may be kept, and for how long.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Most bytes in the data directory; `None`: no limit.
    pub max_size: Option<u64>,
    /// What must stay free on its file system.
    pub min_free: MinFree,
    /// Content unused for longer is removed; `None`: kept.
    pub max_age: Option<Duration>,
    /// Blobs larger than this many bytes pass through uncached; `None`: no limit.
    pub max_blob_size: Option<u64>,
    /// Everything stored is compared with its digest once in this time; `None`: not unless it is asked for.
    pub scrub_interval: Option<Duration>,
    /// Images that are never evicted.
    pub pins: Vec<Pin>,
}

/// Space that must stay free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinFree {
    /// So many bytes.
    Bytes(u64),
    /// This part of the file system, 0.0 to 1.0.
    Share(f64),
}

impl Cache {
    pub(super) fn read(section: &Section<'_>, upstreams: &[Arc<Upstream>]) -> Self {
        let cache = Self {
            max_size: section.text("max_size", unless_none(size)).flatten(),
            min_free: section
                .text("min_free", min_free)
                .unwrap_or(MinFree::Share(0.10)),
            max_age: section.text("max_age", unless_none(max_age)).flatten(),
            max_blob_size: section.text("max_blob_size", unless_none(size)).flatten(),
            scrub_interval: section
                .text("scrub_interval", unless_none(scrub_interval))
                .unwrap_or(Some(SCRUB_INTERVAL)),
            pins: section
                .list("pin", |text| Pin::read(text, upstreams))
                .unwrap_or_default(),
        };
        section.close();
        cache
    }
}

/// A size, or a part of the file system in percent.
fn min_free(text: &str) -> Result<MinFree, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("{text:?} is neither a size nor a percentage below 100%"),
            r#"write "10%" or a size such as "20GiB""#,
        )
    };
    match text.strip_suffix('%') {
        Some(percent) => match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..100.0).contains(&percent) => Ok(MinFree::Share(percent / 100.0)),
            _ => Err(wrong()),
        },
        None if matches!(text.trim(), "0" | "0B") => Ok(MinFree::Bytes(0)),
        None => size(text).map(MinFree::Bytes).map_err(|_| wrong()),
    }
}

/// A time after which the unused goes; none at all would remove what is in use.
fn max_age(text: &str) -> Result<Duration, Wrong> {
    let age = finite(text)?;
    if age.is_zero() {
        return Err(Wrong::new(
            "would remove everything",
            r#"write a time such as "30d""#,
        ));
    }
    Ok(age)
}

/// A time in which everything is read once.
fn scrub_interval(text: &str) -> Result<Duration, Wrong> {
    let interval = finite(text)?;
    if interval.is_zero() {
        return Err(Wrong::new(
            "is no time to read everything in",
            r#"write a time such as "30d""#,
        ));
    }
    Ok(interval)
}

/// Often enough to meet most damage before a client does, seldom enough to be in nobody's way.
const SCRUB_INTERVAL: Duration = Duration::from_hours(30 * 24);
