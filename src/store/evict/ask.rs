//! Asking for room, from where a fetch waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

/// What somebody needs.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Want {
    /// Bytes that do not fit.
    pub(in crate::store) needed: u64,
    /// The disk takes no more, whatever the sums say.
    pub(in crate::store) is_disk_full: bool,
    /// What [`Shortage::unfilled`](crate::store::room::Shortage) comes to when all counts that went for this before; 0 at
    /// first. A file system that has not counted it yet is no reason for more to go.
    pub(in crate::store) promised: u64,
}

/// Somebody needs room.
pub(in crate::store) struct Ask {
    pub(in crate::store) want: Want,
    /// Is told the next [`Want::promised`] if it is worth another try; dropped, it is not.
    pub(in crate::store) done: Box<dyn FnOnce(Option<u64>) + Send>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("want", &self.want)
            .finish_non_exhaustive()
    }
}

/// Where room is asked for. As many ask at once as there are fetches that begin.
#[derive(Debug, Clone)]
pub(in crate::store) struct Asks {
    sender: UnboundedSender<Ask>,
    pressed: Arc<Notify>,
}

impl Asks {
    pub(in crate::store) fn new() -> (Self, UnboundedReceiver<Ask>) {
        let (sender, receiver) = unbounded_channel();
        let asks = Self {
            sender,
            pressed: Arc::default(),
        };
        (asks, receiver)
    }

    /// Asks for room, and waits for it; the next [`Want::promised`] if it is worth another try.
    pub(in crate::store) async fn ask(&self, want: Want) -> Option<u64> {
        let (done, made) = oneshot::channel();
        self.send(want, move |promised| _ = done.send(promised));
        made.await.unwrap_or(None)
    }

    /// The same on a thread that may block, for a while at most.
    pub(in crate::store) fn ask_blocking(&self, want: Want) -> Option<u64> {
        let (done, made) = mpsc::channel();
        self.send(want, move |promised| _ = done.send(promised));
        made.recv_timeout(LONGEST_WAIT).unwrap_or(None)
    }

    fn send(&self, want: Want, done: impl FnOnce(Option<u64>) + Send + 'static) {
        let done = Box::new(done);
        // Where nobody evicts, `done` is dropped, and whoever asks hears of it.
        let _ = self.sender.send(Ask { want, done });
    }

    /// Says that a limit is near.
    pub(in crate::store) fn press(&self) {
        self.pressed.notify_one();
    }

    /// Tells when somebody has said so.
    pub(super) fn pressed(&self) -> Arc<Notify> {
        Arc::clone(&self.pressed)
    }
}

/// A thread that writes waits no longer for room.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
