//! Administration of a data directory in this process: of the one that is being served, or of one at rest.

mod carry;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::config::Config;
use crate::proxy::warm::Warmer;
use crate::proxy::warm::model::{WarmEvent, WarmRequest};
use crate::runtime::{Clock, Tasks};
use crate::store::{Evicted, RefKind, Store};
use crate::telemetry::Metrics;

use super::describe::{Describer, Policies};
use super::digests::{DigestSet, Sharing};
use super::heal::Healer;
use super::memory::Memory;
use super::model::{
    Collected, ExportPlan, ExportRequest, ImageDetail, ImagePage, ImportEvent, ImportRequest,
    PinChange, PinList, Refreshed, Removal, Statistics, VerifyEvent, VerifyReport,
};
use super::names::{ImageName, Names, Wanted};
use super::pins::Pins;
use super::protection::Protection;
use super::remove::{self, Remover};
use super::scrub::Scrub;
use super::sweep::Sweep;
use super::verify::Verifier;
use super::walk::{self, Image};
use super::{AdminError, Administration, Archive, Events, ImageQuery, Reply, blocking, statistics};

/// Administrates a store.
pub struct Keeper {
    store: Arc<Store>,
    names: Arc<Names>,
    policies: Arc<Policies>,
    pins: Arc<Pins>,
    protection: Arc<Protection>,
    memory: Memory,
    clock: Clock,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    max_size: Option<u64>,
    offline: bool,
    /// Whether nobody serves it meanwhile, so that what is not counted yet is waited for.
    is_at_rest: bool,
    /// Since when requests are counted; `None` where no server has begun to.
    since: Option<Timestamp>,
    /// What the last list began with; the lock also keeps reading everything to one at a time.
    sharing: Arc<Mutex<Arc<Sharing>>>,
    /// One long action at a time.
    turn: Arc<Semaphore>,
    /// What brings images; none where no upstream can be asked.
    warmer: Option<Arc<Warmer>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Administration of a data directory that nobody serves.
    pub fn at_rest(
        config: &Config,
        store: Arc<Store>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> io::Result<Self> {
        Self::new(config, store, clock, metrics, tasks, Memory::default())
    }

    /// Administration of the data directory that a proxy serves, which counts on from where earlier lives ended, and is
    /// scrubbed and swept.
    pub(in crate::proxy) fn serving(
        config: &Config,
        store: Arc<Store>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: Tasks,
        memory: Memory,
    ) -> io::Result<Self> {
        let mut keeper = Self::new(config, store, clock, metrics, tasks, memory)?;
        keeper.is_at_rest = false;
        let since = keeper.since.unwrap_or_else(|| keeper.now());
        keeper.since = Some(since);
        let tally = Arc::clone(&keeper.metrics.tally);
        keeper.protection.keep(&keeper.tasks);
        statistics::keep(Arc::clone(&keeper.store), tally, since, &keeper.tasks);
        if let Some(interval) = config.cache.scrub_interval {
            Scrub::start(
                keeper.healer(),
                interval,
                keeper.clock.clone(),
                &keeper.tasks,
            );
        }
        if !keeper.offline {
            keeper.sweep().start(&keeper.tasks);
        }
        Ok(keeper)
    }

    fn new(
        config: &Config,
        store: Arc<Store>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: Tasks,
        memory: Memory,
    ) -> io::Result<Self> {
        let kept = statistics::load(&store, &metrics.tally)?;
        let pins = Arc::new(Pins::load(config.cache.pins.clone(), &store)?);
        let (shared, of) = (Arc::clone(&store), Arc::clone(&pins));
        Ok(Self {
            pins,
            protection: Arc::new(Protection::new(shared, of, clock.clone())),
            offline: config.offline,
            names: Arc::new(Names::new(config)),
            policies: Arc::new(Policies::of(config)),
            memory,
            clock,
            metrics,
            tasks,
            max_size: config.cache.max_size,
            is_at_rest: true,
            since: kept.since,
            sharing: Arc::default(),
            turn: Arc::new(Semaphore::new(1)),
            warmer: None,
            store,
        })
    }

    /// Has images brought by `warmer`.
    pub(in crate::proxy) fn warms_with(&mut self, warmer: Arc<Warmer>) {
        self.warmer = Some(warmer);
    }

    /// What is never evicted.
    pub fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// What moves aside blobs that are not sound.
    pub(super) fn healer(&self) -> Healer {
        Healer {
            store: Arc::clone(&self.store),
            memory: self.memory.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// What removes proofs of what was evicted long ago.
    pub(super) fn sweep(&self) -> Sweep {
        Sweep {
            store: Arc::clone(&self.store),
            memory: self.memory.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// What has the store keep what they lead to.
    pub(in crate::proxy) fn protection(&self) -> &Arc<Protection> {
        &self.protection
    }

    fn now(&self) -> Timestamp {
        Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Runs `work` with what it needs to describe images, on a thread where it may block.
    async fn describing<T: Send + 'static>(
        &self,
        sharing: Arc<Sharing>,
        work: impl FnOnce(&Describer<'_>) -> io::Result<T> + Send + 'static,
    ) -> Result<T, AdminError> {
        let (store, pins) = (Arc::clone(&self.store), Arc::clone(&self.pins));
        let (policies, now) = (Arc::clone(&self.policies), self.now());
        blocking(move || {
            work(&Describer {
                store: &store,
                pins: &pins,
                policies: &policies,
                sharing: &sharing,
                now,
            })
        })
        .await
    }

    /// Which blobs several images lead to: found out anew, or as the list that is being continued began with.
    async fn sharing(&self, is_continued: bool) -> Result<Arc<Sharing>, AdminError> {
        let mut last = Arc::clone(&self.sharing).lock_owned().await;
        if !is_continued {
            let store = Arc::clone(&self.store);
            // With the lock: who leaves does not start another walk beside this one.
            return blocking(move || {
                *last = Arc::new(Sharing::of(&store)?);
                Ok::<_, io::Error>(Arc::clone(&last))
            })
            .await;
        }
        Ok(Arc::clone(&last))
    }

    async fn list(&self, query: ImageQuery) -> Result<ImagePage, AdminError> {
        let wanted = query
            .matching
            .as_deref()
            .map(|text| self.names.wanted(text));
        let wanted = wanted.transpose()?;
        let after = query
            .last
            .as_deref()
            .map(str::parse::<ImageName>)
            .transpose()?;
        let most = query.n.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
        let sharing = self.sharing(after.is_some()).await?;
        self.describing(sharing, move |describer| {
            let mut images = Vec::new();
            let mut next = None;
            walk::each_image(describer.store, after.as_ref(), &mut |image| {
                if !is_wanted(wanted.as_ref(), &image) {
                    return Ok(ControlFlow::Continue(()));
                }
                if images.len() >= most {
                    next = images
                        .last()
                        .map(|last: &super::model::ImageSummary| last.image.clone());
                    return Ok(ControlFlow::Break(()));
                }
                images.push(describer.summary(&image)?);
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(ImagePage { images, next })
        })
        .await
    }

    async fn show(&self, text: &str) -> Result<ImageDetail, AdminError> {
        let name = self.names.image(text)?;
        let (store, of) = (Arc::clone(&self.store), name.clone());
        let found = blocking(move || remove::find(&store, &of)).await?;
        // By its digest, an image may have several tags; any tells the same of the content.
        let image = found.into_iter().next();
        let image = image.ok_or_else(|| AdminError::unknown_image(&name))?;
        let sharing = self.sharing(false).await?;
        self.describing(sharing, move |describer| describer.detail(&image))
            .await
    }

    async fn count(&self) -> Result<Statistics, AdminError> {
        if self.is_at_rest {
            self.store.scanned().await;
        }
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        let (max_size, since) = (self.max_size, self.since);
        blocking(move || {
            let counted = statistics::count(&store, &metrics.tally)?;
            Ok::<_, io::Error>(Statistics::of(&store, counted, max_size, since))
        })
        .await
    }

    async fn rm(&self, text: &str, dry_run: bool) -> Result<Removal, AdminError> {
        let wanted = self.names.wanted(text)?;
        let _turn = self.turn()?;
        let remover = Remover {
            store: Arc::clone(&self.store),
            pins: Arc::clone(&self.pins),
            memory: self.memory.clone(),
            dry_run,
            started: self.clock.now(),
        };
        remover.run(wanted).await
    }

    async fn gc(&self, to: Option<u64>, dry_run: bool) -> Result<Collected, AdminError> {
        if self.offline {
            return Err(AdminError::Invalid(
                "offline is set: nothing is evicted that could not be fetched again; remove images with layby rm"
                    .to_owned(),
            ));
        }
        let _turn = self.turn()?;
        self.protection.find_out().await?;
        let evicted = self.store.collect(to, dry_run).await?;
        let left = self.store.totals();
        let still_there = if dry_run { evicted } else { Evicted::default() };
        let left_bytes = left.bytes.saturating_sub(still_there.bytes);
        Ok(Collected {
            dry_run,
            blobs: evicted.blobs,
            freed_bytes: evicted.bytes,
            left_blobs: left.blobs.saturating_sub(still_there.blobs),
            left_bytes,
            reached: to.is_none_or(|to| left_bytes <= to),
        })
    }

    async fn ask_again(&self, text: &str) -> Result<Refreshed, AdminError> {
        let wanted = self.names.wanted(text)?;
        let (store, meant) = (Arc::clone(&self.store), wanted.clone());
        let images = blocking(move || {
            let mut images = Vec::new();
            remove::each_wanted(&store, &meant, &mut |image| {
                images.push(image);
                Ok(ControlFlow::Continue(()))
            })?;
            Ok::<_, io::Error>(images)
        })
        .await?;
        let mut refreshed = Refreshed::default();
        for image in &images {
            let Some((tag, record)) = &image.tag else {
                continue;
            };
            let mut record = record.clone();
            record.ask = true;
            let bytes = serde_json::to_vec(&record).map_err(io::Error::from)?;
            let key = image.place.key(RefKind::Tag(tag.clone()));
            self.store.put_ref(&key, bytes).await?;
            self.memory.forget_tag(&image.place, tag);
            refreshed.images.push(image.name().to_string());
        }
        match wanted {
            Wanted::One(name) if refreshed.images.is_empty() && images.is_empty() => {
                Err(AdminError::unknown_image(&name))
            }
            Wanted::One(name) if refreshed.images.is_empty() => Err(AdminError::Invalid(format!(
                "{name} has no tag; a digest never changes, so there is nothing to ask"
            ))),
            _ => Ok(refreshed),
        }
    }

    fn check(&self, image: Option<&str>) -> Result<Events<VerifyEvent>, AdminError> {
        let image = image.map(|text| self.names.image(text)).transpose()?;
        let turn = self.turn()?;
        let (sender, events) = mpsc::channel(EVENTS);
        let verifier = Verifier {
            store: Arc::clone(&self.store),
            memory: self.memory.clone(),
            healer: self.healer(),
            events: sender,
            stopping: self.tasks.stopping(),
            runtime: tokio::runtime::Handle::current(),
            turn,
            report: VerifyReport::default(),
            last_progress: Instant::now(),
            reported: DigestSet::default(),
            lengths: None,
        };
        self.tasks.spawn(async move {
            let run = move || verifier.run(image.as_ref());
            if let Err(error) = tokio::task::spawn_blocking(run).await {
                tracing::error!(%error, "a verification broke off; please report this");
            }
        });
        Ok(Box::pin(stream::unfold(events, |mut events| async {
            let event = events.recv().await?;
            Some((Ok(event), events))
        })))
    }

    /// The right to a long action.
    fn turn(&self) -> Result<OwnedSemaphorePermit, AdminError> {
        Arc::clone(&self.turn)
            .try_acquire_owned()
            .map_err(|_| AdminError::Busy)
    }
}

fn is_wanted(wanted: Option<&Wanted>, image: &Image) -> bool {
    let Image { place, tag, .. } = image;
    match (wanted, tag) {
        (None, _) => true,
        (Some(Wanted::One(name)), _) => image.name() == *name,
        (Some(Wanted::Matching(pattern)), Some((tag, _))) => {
            pattern.matches(&place.upstream, &place.repository, tag)
        }
        (Some(Wanted::Matching(_)), None) => false,
    }
}

impl Administration for Keeper {
    fn plan_export(&self, request: ExportRequest) -> Reply<'_, ExportPlan> {
        Box::pin(self.exporter().plan(request))
    }

    fn export(&self, request: ExportRequest) -> Reply<'_, Archive> {
        Box::pin(self.exporter().archive(request))
    }

    fn import(&self, request: ImportRequest, archive: Archive) -> Reply<'_, Events<ImportEvent>> {
        Box::pin(async { self.take_in(request, archive) })
    }

    fn images(&self, query: ImageQuery) -> Reply<'_, ImagePage> {
        Box::pin(self.list(query))
    }

    fn image<'a>(&'a self, name: &'a str) -> Reply<'a, ImageDetail> {
        Box::pin(self.show(name))
    }

    fn statistics(&self) -> Reply<'_, Statistics> {
        Box::pin(self.count())
    }

    fn remove<'a>(&'a self, images: &'a str, dry_run: bool) -> Reply<'a, Removal> {
        Box::pin(self.rm(images, dry_run))
    }

    fn collect(&self, to: Option<u64>, dry_run: bool) -> Reply<'_, Collected> {
        Box::pin(self.gc(to, dry_run))
    }

    fn pins(&self) -> Reply<'_, PinList> {
        Box::pin(async { Ok(self.pins.list()) })
    }

    fn pin<'a>(&'a self, images: &'a str) -> Reply<'a, PinChange> {
        Box::pin(async {
            let change = self.pins.add(self.names.pin(images)?, &self.store).await?;
            // Whether or not this is waited for to the end, and whatever comes of it.
            self.protection.refresh();
            if !self.is_at_rest {
                self.protection.find_out().await?;
            }
            Ok(change)
        })
    }

    fn unpin<'a>(&'a self, images: &'a str) -> Reply<'a, PinChange> {
        Box::pin(async {
            let pin = self.names.pin(images)?;
            let change = self.pins.remove(&pin, &self.store).await?;
            self.protection.refresh();
            Ok(change)
        })
    }

    fn refresh<'a>(&'a self, images: &'a str) -> Reply<'a, Refreshed> {
        Box::pin(self.ask_again(images))
    }

    fn warm(&self, request: WarmRequest) -> Reply<'_, Events<WarmEvent>> {
        Box::pin(async move {
            let warmer = self.warmer.as_ref().ok_or_else(|| {
                AdminError::Failed("nothing here asks upstreams; please report this".to_owned())
            })?;
            warmer.warm(request)
        })
    }

    fn verify<'a>(&'a self, image: Option<&'a str>) -> Reply<'a, Events<VerifyEvent>> {
        Box::pin(async move { self.check(image) })
    }
}

/// Images of a page whose size nobody asked for.
const PAGE: usize = 1000;
/// Most images of a page.
const LARGEST_PAGE: usize = 10_000;
/// Events that a slow listener may be behind.
const EVENTS: usize = 64;
