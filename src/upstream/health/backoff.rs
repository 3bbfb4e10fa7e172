//! Waits that grow.

use std::time::Duration;

/// Waits that double with each time in a row, from the first to the longest.
#[derive(Debug, Clone, Copy)]
pub(in crate::upstream) struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits between these two.
    pub(in crate::upstream) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The wait after it has happened `before` times already.
    pub(in crate::upstream) fn wait(&self, before: u32) -> Duration {
        let factor = 2_u32.saturating_pow(before);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// The same, shortened at random by up to a quarter, so that many who wait do not all come back at once.
    pub(in crate::upstream) fn jittered(&self, before: u32) -> Duration {
        self.wait(before).mul_f64(0.75 + fastrand::f64() / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let seconds = Duration::from_secs;
        let backoff = Backoff::new(seconds(1), seconds(30));
        let waits = [0, 1, 4, 5, 6, u32::MAX].map(|before| backoff.wait(before));
        assert_eq!(waits, [1, 2, 16, 30, 30, 30].map(seconds));
    }

    #[test]
    fn jitter_shortens_by_a_quarter_at_most() {
        let backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(30));
        let waits: Vec<_> = (0..100).map(|_| backoff.jittered(0)).collect();
        let range = Duration::from_secs(3)..=Duration::from_secs(4);
        assert!(waits.iter().all(|wait| range.contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
