//! One run: some images at once, their events, and the sum at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::flight::ports::BoxFuture;
use crate::oci::Platforms;
use crate::proxy::blobs::{Brought, Unkept};
use crate::store::RefKind;
use crate::telemetry::Counted;
use crate::upstream::Call;

use super::Warmer;
use super::model::{
    ImageProgress, WarmEvent, WarmOutcome, WarmProblem, WarmProgress, WarmReport, WarmedImage,
};
use super::part::{Part, Parts};
use super::tries::{Tries, problem};

/// What a run is to bring.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// By the names that were given, each once.
    pub(super) images: Vec<String>,
    pub(super) platforms: Platforms,
    pub(super) referrers: bool,
    pub(super) dry_run: bool,
    /// Blobs at once, and images.
    pub(super) jobs: usize,
}

/// A run under way.
pub(super) struct Run {
    pub(super) warmer: Arc<Warmer>,
    pub(super) order: Order,
    pub(super) parts: Parts,
    events: Sender<WarmEvent>,
    blobs: Semaphore,
    under_way: Mutex<Vec<UnderWay>>,
}

/// An image that is under way.
struct UnderWay {
    image: String,
    parts: Vec<Arc<Part>>,
}

/// An image that is through, with what it is made of.
pub(super) struct Warmed {
    pub(super) told: WarmedImage,
    pub(super) parts: Vec<Arc<Part>>,
}

/// Between two reports of progress.
const TELL_EVERY: Duration = Duration::from_millis(500);

impl Run {
    pub(super) fn new(warmer: Arc<Warmer>, order: Order, events: Sender<WarmEvent>) -> Self {
        Self {
            blobs: Semaphore::new(order.jobs),
            warmer,
            order,
            parts: Parts::default(),
            events,
            under_way: Mutex::default(),
        }
    }

    /// Brings all images; ends early when nobody listens any more.
    pub(super) async fn go(self) {
        let _running = Counted::by(&self.warmer.ctx.metrics.warm.running);
        tokio::select! {
            biased;
            () = self.events.closed() => {}
            () = self.all() => {}
        }
    }

    async fn all(&self) {
        let began = Instant::now();
        let mut report = WarmReport {
            dry_run: self.order.dry_run,
            images: self.order.images.len() as u64,
            ..WarmReport::default()
        };
        let images = self.order.images.clone().into_iter();
        let images = images.map(|image| self.one(image));
        let mut images = stream::iter(images).buffer_unordered(self.order.jobs);
        let mut tick = interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut through, mut whole) = (0, Vec::new());
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    // Who is behind with reading hears of it later.
                    let _ = self.events.try_send(WarmEvent::Progress(self.progress(through)));
                }
                warmed = images.next() => {
                    let Some(warmed) = warmed else { break };
                    through += 1;
                    report.count(warmed.told.outcome);
                    if matches!(warmed.told.outcome, WarmOutcome::Fetched | WarmOutcome::Here) {
                        whole.push((warmed.told.image.clone(), warmed.told.outcome, warmed.parts));
                    }
                    self.tell(WarmEvent::Ended(warmed.told)).await;
                }
            }
        }
        if !self.order.dry_run {
            self.look_again(&whole, &mut report).await;
        }
        let sums = self.parts.sums();
        report.bytes = sums.bytes;
        report.fetched_bytes = sums.fetched;
        report.here_bytes = sums.landed.saturating_sub(sums.fetched);
        self.count(&report);
        report.elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(WarmEvent::Progress(self.progress(through))).await;
        self.tell(WarmEvent::Done(report)).await;
    }

    fn count(&self, report: &WarmReport) {
        if report.dry_run {
            return;
        }
        let metrics = &self.warmer.ctx.metrics.warm;
        for (outcome, count) in [
            (WarmOutcome::Fetched, report.fetched),
            (WarmOutcome::Here, report.here),
            (WarmOutcome::Failed, report.failed),
        ] {
            metrics.images(outcome.as_str(), count);
        }
        metrics.run(report.failed == 0);
        metrics.bytes.inc_by(report.fetched_bytes);
    }

    async fn one(&self, image: String) -> Warmed {
        self.tell(WarmEvent::Begun {
            image: image.clone(),
        })
        .await;
        self.under_way.lock().push(UnderWay {
            image: image.clone(),
            parts: Vec::new(),
        });
        let warmed = self.image(&image).await;
        self.under_way.lock().retain(|one| one.image != image);
        warmed
    }

    /// Has progress tell of these parts of an image.
    pub(super) fn consists_of(&self, image: &str, parts: &[Arc<Part>]) {
        let mut under_way = self.under_way.lock();
        if let Some(one) = under_way.iter_mut().find(|one| one.image == image) {
            one.parts = parts.to_vec();
        }
    }

    pub(super) async fn tell(&self, event: WarmEvent) {
        // When nobody listens any more, the run ends at its next look.
        let _ = self.events.send(event).await;
    }

    fn progress(&self, through: u64) -> WarmProgress {
        let sums = self.parts.sums();
        let under_way = self.under_way.lock();
        let of = |one: &UnderWay| ImageProgress {
            image: one.image.clone(),
            bytes: one.parts.iter().map(|part| part.landed()).sum(),
            of_bytes: one.parts.iter().map(|part| part.size).sum(),
        };
        WarmProgress {
            images: through,
            of_images: self.order.images.len() as u64,
            bytes: sums.landed,
            fetched_bytes: sums.fetched,
            of_bytes: sums.bytes,
            under_way: under_way.iter().map(of).collect(),
        }
    }

    /// Tries `ask` until it succeeds or is worth no further try.
    pub(super) async fn insist<T, F>(
        &self,
        image: &str,
        part: &str,
        mut ask: impl FnMut(Call) -> F,
    ) -> Result<T, WarmProblem>
    where
        F: Future<Output = Result<T, Unkept>>,
    {
        let mut tries = Tries::new();
        loop {
            let call = Call {
                deadline: self.warmer.ctx.own_deadline(),
                via: None,
            };
            let error = match ask(call).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let told = problem(part, &error);
            let Some(wait) = tries.failed(&error) else {
                return Err(told);
            };
            self.tell(WarmEvent::Retry {
                image: image.to_owned(),
                part: part.to_owned(),
                message: told.message,
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            })
            .await;
            sleep(wait).await;
        }
    }

    /// Brings the blobs of an image.
    pub(super) async fn bring_all(&self, image: &str, parts: &[Arc<Part>]) {
        let mut bringing: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        for part in parts {
            bringing.push(Box::pin(self.bring(image, part)));
        }
        while bringing.next().await.is_some() {}
    }

    /// Brings a blob, unless another image has or does.
    async fn bring(&self, image: &str, part: &Part) {
        let work = || async {
            let _lane = part.lane.lock().await;
            let Ok(_place) = self.blobs.acquire().await else {
                return Ok(Brought::Here);
            };
            let brought = self
                .insist(image, part.digest.as_str(), |call| async move {
                    let landed = |bytes| self.parts.landed(part, bytes);
                    let blobs = &self.warmer.blobs;
                    blobs.bring(&part.place, &part.digest, &call, landed).await
                })
                .await?;
            self.parts.brought(part, brought);
            Ok(brought)
        };
        part.fate.get_or_init(work).await;
    }

    /// Looks whether all is still here: where there is not room for everything, the last comes at the cost of the first.
    async fn look_again(
        &self,
        whole: &[(String, WarmOutcome, Vec<Arc<Part>>)],
        report: &mut WarmReport,
    ) {
        // By where they are in memory: all are held meanwhile.
        let mut looked: HashMap<usize, bool> = HashMap::new();
        for (image, outcome, parts) in whole {
            let mut lost = 0_u64;
            for part in parts.iter().filter(|part| !part.is_optional) {
                let key = Arc::as_ptr(part).addr();
                let is_here = match looked.get(&key) {
                    Some(is_here) => *is_here,
                    None => self.is_here(part).await,
                };
                looked.insert(key, is_here);
                lost += u64::from(!is_here);
            }
            if lost > 0 {
                report.lost(*outcome);
                self.tell(WarmEvent::Lost {
                    image: image.clone(),
                    parts: lost,
                })
                .await;
            }
        }
    }

    /// Whether a part is on disk, and its proof with it.
    pub(super) async fn is_here(&self, part: &Part) -> bool {
        let records = &self.warmer.ctx.records;
        let kinds = [
            RefKind::Blob(part.digest.clone()),
            RefKind::Manifest(part.digest.clone()),
        ];
        for kind in kinds {
            if matches!(records.get(&part.place.key(kind)).await, Ok(Some(_))) {
                return matches!(records.blob_len(&part.digest).await, Ok(Some(_)));
            }
        }
        false
    }
}
