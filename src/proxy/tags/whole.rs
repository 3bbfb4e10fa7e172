//! Whether a tag's image was all here when it was last looked for, which takes a look-up for each of its blobs.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::freshness;

/// What the last look found, if there was one.
#[derive(Debug, Default)]
pub(super) struct Whole(Mutex<Option<(Timestamp, bool)>>);

/// How long an image is believed to lack something. One that is whole stays so.
const BELIEVED: Duration = Duration::from_secs(10);

impl Whole {
    /// What is known at `now`, else what `check` finds.
    pub(super) async fn look(&self, now: Timestamp, check: impl Future<Output = bool>) -> bool {
        let last = *self.0.lock();
        if let Some((since, is_whole)) = last
            && (is_whole || freshness::within(since, now, BELIEVED))
        {
            return is_whole;
        }
        let is_whole = check.await;
        *self.0.lock() = Some((now, is_whole));
        is_whole
    }
}
