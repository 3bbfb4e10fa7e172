//! Whether a tag's image was all here when it was last looked for, which takes a look-up for each of its blobs.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::freshness;

/// What the last look found, if there was one.
#[derive(Debug, Default)]
pub(super) struct Whole(Mutex<Option<(Timestamp, bool)>>);

/// How long an image is believed to lack something.
const LACKING: Duration = Duration::from_secs(10);

/// How long it is believed to be whole: what nobody uses is evicted.
const WHOLE: Duration = Duration::from_mins(1);

impl Whole {
    /// What is known at `now`, else what `check` finds.
    pub(super) async fn look(&self, now: Timestamp, check: impl Future<Output = bool>) -> bool {
        let last = *self.0.lock();
        if let Some((since, is_whole)) = last
            && freshness::within(since, now, if is_whole { WHOLE } else { LACKING })
        {
            return is_whole;
        }
        let is_whole = check.await;
        *self.0.lock() = Some((now, is_whole));
        is_whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_found_is_believed_for_a_while_and_no_longer() {
        for (found, believed) in [(false, LACKING), (true, WHOLE)] {
            let (whole, begin) = (Whole::default(), Timestamp::UNIX_EPOCH);
            assert_eq!(whole.look(begin, async { found }).await, found);
            assert_eq!(whole.look(begin, async { !found }).await, found);
            let later = begin + believed + Duration::from_secs(1);
            assert_eq!(whole.look(later, async { !found }).await, !found);
        }
    }
}
