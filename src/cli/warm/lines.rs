//! Progress in plain lines, for logs.

use std::time::{Duration, Instant};

use crate::cli::table::size;
use crate::proxy::warm::model::{WarmEvent, WarmProgress};

use super::show::ended;

/// Between two lines about the whole.
const EVERY: Duration = Duration::from_secs(10);

/// Writes a line when an image begins and when it ends, and one about the whole now and then.
pub(super) struct Lines {
    dry_run: bool,
    last: Instant,
    last_bytes: u64,
}

impl Lines {
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            last: Instant::now(),
            last_bytes: 0,
        }
    }

    pub(super) fn event(&mut self, event: &WarmEvent) {
        if let Some(line) = self.line(event) {
            eprintln!("{line}");
        }
    }

    fn line(&mut self, event: &WarmEvent) -> Option<String> {
        match event {
            WarmEvent::Begun { .. } if self.dry_run => None,
            WarmEvent::Begun { image } => Some(format!("{image}: begun")),
            WarmEvent::Retry {
                image,
                part,
                message,
                wait_ms,
            } => Some(format!(
                "{image}: {part}: {message}; tried again in {:.1} s",
                Duration::from_millis(*wait_ms).as_secs_f64()
            )),
            WarmEvent::Ended(image) => Some(ended(image)),
            WarmEvent::Lost { image, parts } => Some(format!(
                "{image}: {parts} of its parts were evicted again before the end: there is not room for everything; raise \
                 max_size or lower min_free"
            )),
            WarmEvent::Progress(progress) => self.whole(progress),
            WarmEvent::Resolved { .. } | WarmEvent::Failed { .. } | WarmEvent::Done(_) => None,
        }
    }

    fn whole(&mut self, progress: &WarmProgress) -> Option<String> {
        let elapsed = self.last.elapsed();
        if elapsed < EVERY {
            return None;
        }
        let fetched = progress.fetched_bytes.saturating_sub(self.last_bytes);
        let millis = u64::try_from(elapsed.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = fetched.saturating_mul(1000) / millis;
        self.last = Instant::now();
        self.last_bytes = progress.fetched_bytes;
        Some(format!(
            "{} of {} images, {} of {} here, {}/s",
            progress.images,
            progress.of_images,
            size(progress.bytes),
            size(progress.of_bytes),
            size(rate)
        ))
    }
}
