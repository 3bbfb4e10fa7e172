//! Progress as bars, for who looks on: one for each image under way, and one for the whole below them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::table::size;
use crate::proxy::warm::model::{WarmEvent, WarmProgress};

use super::lines::Lines;

/// Bars on the terminal of stderr.
pub(super) struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
    images: HashMap<String, ProgressBar>,
    rate: Rate,
    lines: Lines,
}

/// How fast bytes come, evened out.
struct Rate {
    last: Instant,
    bytes: u64,
    per_second: f64,
}

const IMAGE: &str = "  {prefix:40!} [{bar:20}] {binary_bytes}/{binary_total_bytes}";
const WHOLE: &str = "  {prefix:40!} [{bar:20}] {binary_bytes}/{binary_total_bytes}  {msg}";
/// How much the newest counts.
const NEWEST: f64 = 0.3;

impl Bars {
    pub(super) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let whole = all.add(ProgressBar::new(0).with_style(style(WHOLE)));
        Self {
            all,
            whole,
            images: HashMap::new(),
            rate: Rate {
                last: Instant::now(),
                bytes: 0,
                per_second: 0.0,
            },
            lines: Lines::quiet(),
        }
    }

    pub(super) fn event(&mut self, event: &WarmEvent) {
        match event {
            WarmEvent::Begun { image } => {
                let bar = ProgressBar::new(0).with_style(style(IMAGE));
                let bar = bar.with_prefix(end_of(image));
                let bar = self.all.insert_before(&self.whole, bar);
                bar.tick();
                self.images.insert(image.clone(), bar);
            }
            WarmEvent::Resolved { image, bytes, .. } => {
                if let Some(bar) = self.images.get(image) {
                    bar.set_length(*bytes);
                }
            }
            WarmEvent::Progress(progress) => self.progress(progress),
            WarmEvent::Ended(image) => {
                if let Some(bar) = self.images.remove(&image.image) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
            WarmEvent::Retry { .. }
            | WarmEvent::Lost { .. }
            | WarmEvent::Failed { .. }
            | WarmEvent::Done(_) => {}
        }
        if let Some(line) = self.lines.line(event) {
            // Above the bars; a terminal that is gone needs none.
            let _ = self.all.println(line);
        }
        if matches!(event, WarmEvent::Failed { .. } | WarmEvent::Done(_)) {
            self.whole.finish_and_clear();
            let _ = self.all.clear();
        }
    }

    fn progress(&mut self, progress: &WarmProgress) {
        for image in &progress.under_way {
            if let Some(bar) = self.images.get(&image.image) {
                bar.set_length(image.of_bytes);
                bar.set_position(image.bytes);
            }
        }
        let per_second = self.rate.of(progress.fetched_bytes);
        let left = progress.of_bytes.saturating_sub(progress.bytes);
        let WarmProgress {
            images, of_images, ..
        } = progress;
        self.whole
            .set_prefix(format!("{images} of {of_images} images"));
        self.whole.set_length(progress.of_bytes);
        self.whole.set_position(progress.bytes);
        self.whole.set_message(format!(
            "{}/s{}",
            size(per_second),
            time_left(left, per_second)
        ));
    }
}

impl Rate {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is shown with two digits"
    )]
    fn of(&mut self, bytes: u64) -> u64 {
        let elapsed = self.last.elapsed().as_secs_f64().max(0.001);
        let newest = bytes.saturating_sub(self.bytes) as f64 / elapsed;
        self.per_second += NEWEST * (newest - self.per_second);
        (self.last, self.bytes) = (Instant::now(), bytes);
        self.per_second as u64
    }
}

/// How long the rest takes at this rate, where that can be told.
fn time_left(bytes: u64, per_second: u64) -> String {
    match bytes.checked_div(per_second) {
        Some(seconds) if bytes > 0 && seconds < 100 * 3600 => {
            let left = humantime::format_duration(Duration::from_secs(seconds.max(1)));
            format!(", {left} left")
        }
        _ => String::new(),
    }
}

/// As much of a name's end as there is room for: that tells images from each other.
fn end_of(image: &str) -> String {
    let count = image.chars().count();
    if count <= NAME {
        return image.to_owned();
    }
    let end: String = image.chars().skip(count + 1 - NAME).collect();
    format!("…{end}")
}

const NAME: usize = 40;

fn style(template: &str) -> ProgressStyle {
    // A template that cannot be read would be a fault of this file; the plain bar does too.
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_can_be_read() {
        assert!(ProgressStyle::with_template(IMAGE).is_ok());
        assert!(ProgressStyle::with_template(WHOLE).is_ok());
    }

    #[test]
    fn what_is_told_fits_and_says_what_is_known() {
        assert_eq!(end_of("alpine"), "alpine");
        let long = format!("registry.example.com/{}:v1", "a".repeat(40));
        assert_eq!(end_of(&long).chars().count(), NAME);
        assert!(end_of(&long).ends_with("a:v1"));
        assert_eq!(time_left(100, 0), "");
        assert_eq!(time_left(0, 100), "");
        assert_eq!(time_left(6100, 100), ", 1m 1s left");
    }
}
