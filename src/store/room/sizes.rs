//! The limits and what stands against them, as plain sums.

use crate::store::evict::Reason;

/// Everything that is compared with the limits, at a moment. All in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) max_size: Option<u64>,
    /// What must stay free on the file system.
    pub(super) keep: u64,
    /// The file system as a whole.
    pub(super) disk: u64,
    /// What is left of it.
    pub(super) left: u64,
    /// What committed blobs take, those included that are open without a name; `None` where that is not known yet.
    pub(super) stored: Option<u64>,
    /// Committed blobs that have a name.
    pub(super) blobs: u64,
    /// Reservations.
    pub(super) held: u64,
    /// Of these, what the file system counts as taken.
    pub(super) landed: u64,
    /// Of these, what was written.
    pub(super) written: u64,
    /// Of these, what idle partials take, all of it written.
    pub(super) idle: u64,
}

/// How many bytes of blobs should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Pressure {
    pub(in crate::store) reason: Reason,
    pub(in crate::store) bytes: u64,
}

/// A watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Above, blobs go.
    High,
    /// Until they are below.
    Low,
}

impl Sizes {
    /// What `more` bytes are short of room for, once `going` bytes are gone.
    pub(super) fn missing(&self, more: u64, going: u64) -> u64 {
        self.missing_by_size(more, going)
            .max(self.missing_by_space(more, going))
    }

    /// The same for the size alone. Until it is known what is stored, all that the file system holds counts: blobs can be
    /// no more.
    pub(super) fn missing_by_size(&self, more: u64, going: u64) -> u64 {
        let Some(most) = self.max_size else { return 0 };
        let at_most = self.disk.saturating_sub(self.left);
        let stored = self.stored.unwrap_or(at_most);
        let size = stored.saturating_add(self.held).saturating_add(more);
        size.saturating_sub(going).saturating_sub(most)
    }

    /// The same for the free space alone.
    pub(super) fn missing_by_space(&self, more: u64, going: u64) -> u64 {
        let wanted = self
            .to_come()
            .saturating_add(more)
            .saturating_add(self.keep);
        wanted.saturating_sub(self.left.saturating_add(going))
    }

    /// The most that may be evicted for fetches: what is there, blobs and what others have written, stays three quarters of
    /// what could be there. So however many ask for much and leave at once, a quarter at most is gone, and the rest of
    /// the last blob that went.
    pub(super) fn most_for_fetches(&self) -> u64 {
        let content = self
            .blobs
            .saturating_add(self.written.saturating_sub(self.idle));
        let by_space = content
            .saturating_add(self.idle)
            .saturating_add(self.left)
            .saturating_sub(self.keep);
        let capacity = self.max_size.unwrap_or(u64::MAX).min(by_space);
        let floor = capacity - capacity / 4;
        content.saturating_sub(floor).min(self.blobs)
    }

    /// What should go before anybody has to wait for it, if a limit is near.
    pub(super) fn pressure(&self) -> Option<Pressure> {
        let [size, space] = [self.above_size(Mark::High), self.above_space(Mark::High)];
        let (reason, bytes) = if size > 0 {
            (Reason::Size, self.above_size(Mark::Low))
        } else if space > 0 {
            (Reason::Space, self.above_space(Mark::Low))
        } else {
            return None;
        };
        let bytes = bytes.min(self.most_for_fetches());
        (bytes > 0).then_some(Pressure { reason, bytes })
    }

    /// What is above the low watermarks.
    pub(super) fn excess(&self) -> u64 {
        self.above_size(Mark::Low).max(self.above_space(Mark::Low))
    }

    fn above_size(&self, mark: Mark) -> u64 {
        let (Some(most), Some(stored)) = (self.max_size, self.stored) else {
            return 0;
        };
        let below = match mark {
            Mark::High => most / 20,
            Mark::Low => most / 10,
        };
        let size = stored.saturating_add(self.held);
        size.saturating_sub(most - below)
    }

    /// The distance from `min_free` is small against the disk, and against what is cached: others may have most of it.
    fn above_space(&self, mark: Mark) -> u64 {
        let step = (self.disk / 100).min(self.blobs / 20);
        let above = match mark {
            Mark::High => step,
            Mark::Low => step.saturating_mul(2),
        };
        let wanted = self.to_come().saturating_add(self.keep);
        wanted.saturating_add(above).saturating_sub(self.left)
    }

    fn to_come(self) -> u64 {
        self.held.saturating_sub(self.landed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache of at most 1000 bytes on a large disk.
    fn sizes(blobs: u64) -> Sizes {
        Sizes {
            max_size: Some(1000),
            keep: 0,
            disk: 1_000_000,
            left: 500_000,
            stored: Some(blobs),
            blobs,
            held: 0,
            landed: 0,
            written: 0,
            idle: 0,
        }
    }

    /// A cache whose only limit is what must stay free of 100,000 bytes.
    fn on_disk(blobs: u64, left: u64) -> Sizes {
        Sizes {
            max_size: None,
            keep: 10_000,
            disk: 100_000,
            left,
            ..sizes(blobs)
        }
    }

    fn pressure(reason: Reason, bytes: u64) -> Pressure {
        Pressure { reason, bytes }
    }

    #[test]
    fn blobs_go_above_the_high_watermark_until_they_are_below_the_low_one() {
        assert_eq!(sizes(950).pressure(), None);
        assert_eq!(sizes(951).pressure(), Some(pressure(Reason::Size, 51)));
        assert_eq!(sizes(950).excess(), 50);
        assert_eq!(sizes(3000).pressure(), Some(pressure(Reason::Size, 2100)));
        // A thousandth of the disk is taken by blobs: so much less is kept free beyond what must be.
        assert_eq!(on_disk(1000, 10_050).pressure(), None);
        assert_eq!(
            on_disk(1000, 10_049).pressure(),
            Some(pressure(Reason::Space, 51))
        );
        assert_eq!(
            on_disk(80_000, 10_999).pressure(),
            Some(pressure(Reason::Space, 1001))
        );
    }

    #[test]
    fn fetches_leave_three_quarters_of_what_could_be_there() {
        assert_eq!(sizes(1000).most_for_fetches(), 250);
        assert_eq!(sizes(800).most_for_fetches(), 50);
        assert_eq!(sizes(700).most_for_fetches(), 0);
        // What was reserved and has not come is no content.
        let reserved = Sizes {
            held: 250,
            ..sizes(750)
        };
        assert_eq!(
            (reserved.missing(1, 0), reserved.most_for_fetches()),
            (1, 0)
        );
        assert_eq!(reserved.pressure(), None);
        let set_aside = Sizes {
            landed: 200,
            ..reserved
        };
        assert_eq!(set_aside.most_for_fetches(), 0);
        let written = Sizes {
            written: 200,
            ..reserved
        };
        assert_eq!(
            (written.missing(1, 0), written.most_for_fetches()),
            (1, 200)
        );
        // What others lie idle goes before.
        let idle = Sizes {
            idle: 200,
            ..written
        };
        assert_eq!((idle.missing(1, 200), idle.most_for_fetches()), (0, 0));
        assert_eq!(on_disk(4000, 10_000).most_for_fetches(), 1000);
        assert_eq!(on_disk(4000, 8_000).most_for_fetches(), 2500);
        assert_eq!(on_disk(4000, 0).most_for_fetches(), 4000);
    }

    #[test]
    fn until_it_is_known_what_is_stored_all_that_the_disk_holds_counts_and_nothing_goes_for_it() {
        let unknown = Sizes {
            stored: None,
            disk: 1000,
            left: 10,
            ..sizes(0)
        };
        assert_eq!((unknown.missing(10, 0), unknown.missing(11, 0)), (0, 1));
        assert_eq!((unknown.pressure(), unknown.excess()), (None, 0));
        let unlimited = Sizes {
            max_size: None,
            ..unknown
        };
        assert_eq!(unlimited.missing(1, 0), 0);
    }
}
