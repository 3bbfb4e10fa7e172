//! Warming: bringing images into the cache before a client asks for them.
//!
//! A run resolves each image as a client's request would, asks the upstream where tags point, and has everything that the
//! wanted platforms need stored and proven, through the same flights as clients. It reads no byte itself. Owns no record and
//! no decision about content; imports what `proxy` imports.

mod image;
pub mod model;
mod part;
mod referrers;
mod run;
mod schedule;
mod tries;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::config::Config;
use crate::oci::{PlatformName, Platforms};

use super::admin::{AdminError, Events, Names};
use super::blobs::BlobService;
use super::context::Context;
use super::lists::Lists;
use super::manifests::Manifests;
use super::retention::Retention;
use super::tags::Tags;

use model::{WarmEvent, WarmRequest};
use run::{Order, Run};
pub(super) use schedule::start as start_schedule;

/// Brings images into the cache.
pub(super) struct Warmer {
    pub(super) ctx: Arc<Context>,
    pub(super) names: Names,
    pub(super) tags: Arc<Tags>,
    pub(super) manifests: Arc<Manifests>,
    pub(super) lists: Arc<Lists>,
    pub(super) blobs: Arc<BlobService>,
    pub(super) retention: Arc<Retention>,
    /// Runs that may be under way.
    pub(super) runs: Arc<Semaphore>,
}

/// What a [`Warmer`] works with besides the configuration.
pub(super) struct Means {
    pub(super) ctx: Arc<Context>,
    pub(super) tags: Arc<Tags>,
    pub(super) manifests: Arc<Manifests>,
    pub(super) lists: Arc<Lists>,
    pub(super) blobs: Arc<BlobService>,
    pub(super) retention: Arc<Retention>,
}

impl fmt::Debug for Warmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warmer").finish_non_exhaustive()
    }
}

/// Most images of one request.
const MOST_IMAGES: usize = 10_000;
/// Longest name of an image, its registry and digest included.
const LONGEST_NAME: usize = 1024;
/// Most blobs that one run fetches at once.
const MOST_JOBS: u32 = 64;
/// Blobs that a run fetches at once where nobody says how many.
const JOBS: u32 = 4;
/// Runs at once.
const RUNS: usize = 8;
/// Events that a slow listener may be behind.
const EVENTS: usize = 64;

impl Warmer {
    pub(super) fn new(config: &Config, means: Means) -> Self {
        let Means {
            ctx,
            tags,
            manifests,
            lists,
            blobs,
            retention,
        } = means;
        Self {
            ctx,
            names: Names::new(config),
            tags,
            manifests,
            lists,
            blobs,
            retention,
            runs: Arc::new(Semaphore::new(RUNS)),
        }
    }

    /// Begins a run. It ends early when the events are dropped; what is being fetched then is fetched to its end.
    pub(super) fn warm(
        self: &Arc<Self>,
        request: WarmRequest,
    ) -> Result<Events<WarmEvent>, AdminError> {
        if self.ctx.offline {
            return Err(AdminError::Invalid(
                "offline is set: no upstream is asked, so nothing can be warmed; turn offline off, or bring images with \
                 layby import"
                    .to_owned(),
            ));
        }
        let order = self.order(request)?;
        let turn = Arc::clone(&self.runs).try_acquire_owned();
        let events = self.start(order, turn.map_err(|_| AdminError::Busy)?);
        Ok(Box::pin(stream::unfold(events, |mut events| async {
            let event = events.recv().await?;
            Some((Ok(event), events))
        })))
    }

    /// Has a run go on as a task of its own.
    fn start(
        self: &Arc<Self>,
        order: Order,
        turn: OwnedSemaphorePermit,
    ) -> mpsc::Receiver<WarmEvent> {
        let (sender, events) = mpsc::channel(EVENTS);
        let run = Run::new(Arc::clone(self), order, sender);
        self.ctx.tasks.spawn_until_stop(async move {
            run.go().await;
            drop(turn);
        });
        events
    }

    /// What is asked for, if it can be understood. What is wrong with a single image is told when its turn comes.
    fn order(&self, request: WarmRequest) -> Result<Order, AdminError> {
        let WarmRequest {
            images,
            platforms,
            referrers,
            dry_run,
            jobs,
        } = request;
        let wrong = |why: String| Err(AdminError::Invalid(why));
        if images.is_empty() {
            return wrong("no image is named; name at least one".to_owned());
        }
        if images.len() > MOST_IMAGES {
            let count = images.len();
            return wrong(format!(
                "{count} images are too many at once; name {MOST_IMAGES} at most"
            ));
        }
        if let Some(long) = images.iter().find(|image| image.len() > LONGEST_NAME) {
            let start: String = long.chars().take(64).collect();
            return wrong(format!("{start:?}… is too long for the name of an image"));
        }
        let jobs = jobs.unwrap_or(JOBS);
        if jobs == 0 || jobs > MOST_JOBS {
            return wrong(format!(
                "{jobs} is no number of jobs; write 1 to {MOST_JOBS}"
            ));
        }
        let platforms = read_platforms(&platforms)?;
        Ok(Order {
            images: self.unlike(images),
            platforms,
            referrers,
            dry_run,
            jobs: usize::try_from(jobs).unwrap_or(1),
        })
    }
}

impl Warmer {
    /// These images, each once, by whatever names.
    fn unlike(&self, images: Vec<String>) -> Vec<String> {
        let mut seen = HashSet::new();
        let is_new = |text: &String| match self.names.to_pull(text) {
            Ok(name) => seen.insert(name.to_string()),
            Err(_) => seen.insert(text.clone()),
        };
        images.into_iter().filter(is_new).collect()
    }
}

fn read_platforms(texts: &[String]) -> Result<Platforms, AdminError> {
    if texts.is_empty() {
        return Ok(Platforms::Only(vec![PlatformName::of_this_machine()]));
    }
    if texts.iter().any(|text| text == "all") {
        return Ok(Platforms::All);
    }
    let read = |text: &String| {
        let platform = text.parse::<PlatformName>();
        platform.map_err(|error| AdminError::Invalid(format!("{text:?}: {error}, or all")))
    };
    texts
        .iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map(Platforms::Only)
}
