//! A point where the fake waits for the test: tests are made of events in an order, never of time.

use std::sync::Arc;

use tokio::sync::watch;

use crate::support::soon;

/// A gate that is closed until the test opens it. Clones are the same gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    open: bool,
    reached: bool,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn closed() -> Self {
        let state = State {
            open: false,
            reached: false,
        };
        Self {
            state: Arc::new(watch::Sender::new(state)),
        }
    }

    /// Lets everyone through, now and later.
    pub(crate) fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Waits until someone stands before the gate.
    pub(crate) async fn reached(&self) {
        let mut state = self.state.subscribe();
        soon("the gate is reached", state.wait_for(|s| s.reached))
            .await
            .expect("the gate is held");
    }

    /// Arrives, and waits until the gate is open.
    pub(crate) async fn pass(&self) {
        self.state.send_modify(|state| state.reached = true);
        let mut state = self.state.subscribe();
        // An error would mean that nobody can open it any more; the caller is then dropped with its connection.
        let _ = state.wait_for(|s| s.open).await;
    }
}
