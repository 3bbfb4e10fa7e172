//! Asking for room, from where a fetch waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

/// Somebody needs room.
pub(in crate::store) struct Ask {
    /// Bytes that do not fit.
    pub(super) needed: u64,
    /// The disk takes no more, whatever the sums say.
    pub(super) is_disk_full: bool,
    /// Is told whether it is worth another try; dropped, it is not.
    pub(super) done: Box<dyn FnOnce(bool) + Send>,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("needed", &self.needed)
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

    /// Asks for room, and waits for it; whether it is worth another try.
    pub(in crate::store) async fn ask(&self, needed: u64, is_disk_full: bool) -> bool {
        let (done, made) = oneshot::channel();
        let tell = move |is_made| _ = done.send(is_made);
        self.send(needed, is_disk_full, tell) && made.await.unwrap_or(false)
    }

    /// The same on a thread that may block, for a while at most.
    pub(in crate::store) fn ask_blocking(&self, needed: u64, is_disk_full: bool) -> bool {
        let (done, made) = mpsc::channel();
        let tell = move |is_made| _ = done.send(is_made);
        self.send(needed, is_disk_full, tell) && made.recv_timeout(LONGEST_WAIT).unwrap_or(false)
    }

    fn send(
        &self,
        needed: u64,
        is_disk_full: bool,
        done: impl FnOnce(bool) + Send + 'static,
    ) -> bool {
        let ask = Ask {
            needed,
            is_disk_full,
            done: Box::new(done),
        };
        self.sender.send(ask).is_ok()
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
