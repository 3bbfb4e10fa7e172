//! Work that others leave to be done soon: writing pages back, ending stages, freeing files.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::runtime::Clock;

use super::files::Files;
use super::partial::{Fate, Hold, Stage, WriteBack, Writing};
use super::room::Reservation;

/// Something to be done soon. Each stage has at most one of each kind waiting.
#[derive(Debug)]
pub(super) enum Chore {
    /// Write back what a stage has written so far, and what its log says of it.
    WriteBack {
        path: PathBuf,
        log: Option<PathBuf>,
        state: Arc<WriteBack>,
        /// Nobody else writes under this name meanwhile.
        hold: Option<Arc<Hold>>,
    },
    /// End a stage: keep it or remove it.
    End {
        stage: Arc<Stage>,
        writing: Box<Writing>,
        fate: Fate,
    },
    /// Close the last handle of a file without a name, which may free it, and then count it as freed.
    Free {
        file: Arc<File>,
        space: Arc<Reservation>,
    },
}

/// Who does the chores.
#[derive(Debug)]
pub(super) struct Chores {
    pub(super) files: Arc<dyn Files>,
    pub(super) clock: Clock,
    /// Held as long as the directory may be written to.
    #[expect(dead_code, reason = "held, not used")]
    pub(super) lock: Arc<File>,
}

impl Chores {
    /// Does chores as they come. Ends when there is nobody left to give it chores, or with `stopping`; finishes what it
    /// was given.
    pub(super) async fn run(
        self,
        mut chores: UnboundedReceiver<Chore>,
        stopping: CancellationToken,
    ) {
        let mut workers = JoinSet::new();
        // Each syncs for as long as the disk is slow; others wait for the end of a stage.
        let (mut write_backs, mut waiting) = (JoinSet::new(), VecDeque::new());
        let mut is_open = true;
        loop {
            self.start_waiting(&mut waiting, &mut write_backs);
            tokio::select! {
                biased;
                Some(_) = write_backs.join_next() => {}
                chore = chores.recv() => match chore {
                    Some(chore @ Chore::WriteBack { .. }) => waiting.push_back(chore),
                    Some(chore) => self.start(chore, &mut workers).await,
                    None => break,
                },
                () = stopping.cancelled(), if is_open => {
                    chores.close();
                    is_open = false;
                }
            }
        }
        while write_backs.join_next().await.is_some() {
            self.start_waiting(&mut waiting, &mut write_backs);
        }
        while workers.join_next().await.is_some() {}
    }

    fn start_waiting(&self, waiting: &mut VecDeque<Chore>, write_backs: &mut JoinSet<()>) {
        while write_backs.len() < MOST_WRITE_BACKS
            && let Some(chore) = waiting.pop_front()
        {
            self.spawn(chore, write_backs);
        }
    }

    async fn start(&self, chore: Chore, workers: &mut JoinSet<()>) {
        while workers.len() >= MOST_WORKERS {
            workers.join_next().await;
        }
        while workers.try_join_next().is_some() {}
        self.spawn(chore, workers);
    }

    fn spawn(&self, chore: Chore, workers: &mut JoinSet<()>) {
        let (files, clock) = (Arc::clone(&self.files), self.clock.clone());
        workers.spawn_blocking(move || chore.run(&*files, &clock));
    }
}

impl Chore {
    fn run(self, files: &dyn Files, clock: &Clock) {
        match self {
            Self::WriteBack {
                path,
                log,
                state,
                hold: _hold,
            } => state.run(files, &path, log.as_deref()),
            Self::End {
                stage,
                mut writing,
                fate,
            } => {
                stage.close(&mut writing, fate, clock.now());
                // Without readers, its bytes are free before its name is.
                if let Some(stage) = Arc::into_inner(stage) {
                    stage.free();
                }
                drop(writing);
            }
            Self::Free { file, space } => {
                drop(file);
                drop(space);
            }
        }
    }
}

/// Chores done at once, beside write-backs.
const MOST_WORKERS: usize = 4;

/// Write-backs done at once.
const MOST_WRITE_BACKS: usize = 4;
