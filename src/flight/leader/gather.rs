//! What a step has brought and not handed over yet.
//!
//! The network brings a few KiB at a time. Written like that they make small, scattered pieces of page cache, which cost
//! more at every later sending; and each hand-over wakes a thread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::flight::writer::{Permits, Piece, Writer};

/// What is handed over at once ends where the next step of so many bytes begins, so that the page cache has it in one
/// piece …
const STEP: u64 = 256 * 1024;
/// … or as many pieces of the network's …
const MOST_PARTS: usize = 64;
/// … or what has come so long after the last time; less than readers wait for news in any case.
const AFTER: Duration = Duration::from_millis(4);

/// A run of bytes on its way to the writer, who gets what there is when this is dropped.
pub(super) struct Gathered {
    writer: Arc<Writer>,
    /// Never without a part.
    run: Option<Piece>,
    len: usize,
    handed_over: Option<Instant>,
}

impl Gathered {
    pub(super) fn new(writer: Arc<Writer>) -> Self {
        Self {
            writer,
            run: None,
            len: 0,
            handed_over: None,
        }
    }

    /// When what there is has waited long enough; `None` where there is nothing.
    pub(super) fn due(&self) -> Option<Instant> {
        let last = self.handed_over.filter(|_| self.run.is_some());
        last.map(|last| last + AFTER)
    }

    /// Takes bytes in, and hands over what it is time for. The first ones are not kept waiting.
    pub(super) fn add(&mut self, mut offset: u64, mut bytes: Bytes, mut permits: Permits) {
        while let Some(until_step) = until_step(offset).filter(|&len| len < bytes.len()) {
            let Some(for_these) = permits.split(until_step) else {
                break;
            };
            self.append(offset, bytes.split_to(until_step), for_these);
            offset += until_step as u64;
        }
        self.append(offset, bytes, permits);
    }

    fn append(&mut self, offset: u64, bytes: Bytes, permits: Permits) {
        let fits = self
            .run
            .as_ref()
            .is_some_and(|run| run.offset + self.len as u64 == offset);
        if !fits {
            self.hand_over();
        }
        self.len += bytes.len();
        let is_full = until_step(offset).is_some_and(|len| len <= bytes.len());
        match &mut self.run {
            Some(run) => {
                run.parts.push(bytes);
                run.permits.merge(permits);
            }
            None => {
                self.run = Some(Piece {
                    offset,
                    parts: vec![bytes],
                    permits,
                });
            }
        }
        let parts = self.run.as_ref().map_or(0, |run| run.parts.len());
        let is_late = self.handed_over.is_none_or(|last| last.elapsed() >= AFTER);
        if is_full || parts >= MOST_PARTS || is_late {
            self.hand_over();
        }
    }

    /// Hands over what there is.
    pub(super) fn hand_over(&mut self) {
        if let Some(run) = self.run.take() {
            self.len = 0;
            self.handed_over = Some(Instant::now());
            self.writer.push(run);
        }
    }
}

/// Bytes from `offset` to the next step.
fn until_step(offset: u64) -> Option<usize> {
    usize::try_from(STEP - offset % STEP).ok()
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.hand_over();
    }
}
