//! `[cache]`: limits of the disk.

use std::time::Duration;

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
}

/// Space that must stay free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinFree {
    /// So many bytes.
    Bytes(u64),
    /// This part of the file system, 0.0 to 1.0.
    Share(f64),
}
