//! Progress in plain lines, for logs.

use std::time::{Duration, Instant};

use crate::cli::table::size;
use crate::proxy::warm::model::{WarmEvent, WarmProgress};

use super::show::ended;

/// Between two lines about the whole.
const EVERY: Duration = Duration::from_secs(10);

/// Writes a line when an image begins and when it ends, and one about the whole now and then.
pub(super) struct Lines {
    /// Whether only ends and troubles are worth a line.
    is_quiet: bool,
    last: Instant,
    last_bytes: u64,
}

impl Lines {
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            is_quiet: dry_run,
            last: Instant::now(),
            last_bytes: 0,
        }
    }

    /// Lines beside something else that shows what is under way.
    pub(super) fn quiet() -> Self {
        Self {
            is_quiet: true,
            ..Self::new(true)
        }
    }

    pub(super) fn event(&mut self, event: &WarmEvent) {
        if let Some(line) = self.line(event) {
            eprintln!("{line}");
        }
    }

    /// The line that an event is worth.
    pub(super) fn line(&mut self, event: &WarmEvent) -> Option<String> {
        match event {
            WarmEvent::Begun { .. } | WarmEvent::Progress(_) if self.is_quiet => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_is_told_of_now_and_then_only() {
        let mut lines = Lines::new(false);
        let progress = WarmEvent::Progress(WarmProgress {
            images: 1,
            of_images: 3,
            bytes: 3 << 20,
            fetched_bytes: 2 << 20,
            of_bytes: 8 << 20,
            under_way: Vec::new(),
        });
        assert_eq!(lines.line(&progress), None);
        let Some(before) = lines.last.checked_sub(Duration::from_secs(16)) else {
            return;
        };
        lines.last = before;
        let told = lines.line(&progress);
        let told = told.as_deref().and_then(|line| line.split_once(", "));
        let Some(("1 of 3 images", rest)) = told else {
            panic!("{told:?}")
        };
        assert!(rest.starts_with("3.0 MiB of 8.0 MiB here, 1"), "{rest}");
        assert_eq!(lines.line(&progress), None);
        assert_eq!(Lines::quiet().line(&progress), None);
    }
}
