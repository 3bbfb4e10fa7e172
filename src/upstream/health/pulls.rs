//! The pull limit: how many manifests a credential may `GET` (PROTOCOL 4.1). `HEAD`s and blobs do not count.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::gate::Probe;
use super::hold::Hold;
use super::{Reason, seconds};
use crate::config::UpstreamName;
use crate::runtime::Clock;
use crate::telemetry::{Counted, Metrics};
use crate::upstream::Error;
use crate::upstream::auth::Fingerprint;
use crate::upstream::failure::{Failure, Kind};

/// Who pulls: a login, or nobody in particular.
type Puller = Option<Fingerprint>;

/// The pull limits of one URL of an upstream, by credential. Empty as long as none has been met.
#[derive(Debug)]
pub(in crate::upstream) struct Pulls {
    upstream: UpstreamName,
    clock: Clock,
    metrics: Arc<Metrics>,
    held: Mutex<HashMap<Puller, Held>>,
}

#[derive(Debug)]
struct Held {
    hold: Hold,
    /// Whether `HEAD`s were refused, and are held too.
    looks: bool,
    /// What the upstream said.
    said: String,
    _shown: Counted,
}

/// Leave to `GET` one manifest. Dropped without a word it counts as nothing.
#[derive(Debug)]
pub(in crate::upstream) struct PullPass<'p> {
    pulls: &'p Pulls,
    puller: Puller,
    probe: Option<Probe>,
}

/// Most credentials that are remembered: a helper may give a new one every few hours.
const MOST: usize = 16;

impl Pulls {
    /// Of a URL of `upstream`.
    pub(in crate::upstream) fn new(
        upstream: &UpstreamName,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            upstream: upstream.clone(),
            clock,
            metrics,
            held: Mutex::default(),
        }
    }

    /// Whether anybody's pulls are held.
    pub(in crate::upstream) fn are_held(&self) -> bool {
        !self.held.lock().is_empty()
    }

    /// Leave to pull now, or to `HEAD` a manifest unless it `is_pull`; while this credential's are held there is none, and
    /// then for one at a time.
    pub(in crate::upstream) fn admit(
        &self,
        puller: Puller,
        is_pull: bool,
    ) -> Result<PullPass<'_>, Failure> {
        let mut held = self.held.lock();
        let probe = match held.get_mut(&puller) {
            None => None,
            Some(held) if !is_pull && !held.looks => None,
            Some(held) => held
                .hold
                .enter(self.clock.monotonic())
                .map_err(|left| self.refusal(&held.said, left))?,
        };
        Ok(PullPass {
            pulls: self,
            puller,
            probe,
        })
    }

    /// Notes that a pull was refused for the limit in these words, with the wait that was asked for; gives how long
    /// there is none now.
    pub(in crate::upstream) fn limited(
        &self,
        puller: Puller,
        retry_after: Option<Duration>,
        said: String,
    ) -> Duration {
        self.hold(puller, retry_after, said, false)
    }

    /// The same of a `HEAD` of a manifest: those are held as well.
    pub(in crate::upstream) fn looks_limited(
        &self,
        puller: Puller,
        retry_after: Option<Duration>,
        said: String,
    ) -> Duration {
        self.hold(puller, retry_after, said, true)
    }

    fn hold(
        &self,
        puller: Puller,
        retry_after: Option<Duration>,
        said: String,
        looks: bool,
    ) -> Duration {
        let now = self.clock.monotonic();
        let mut all = self.held.lock();
        let is_news = !all.contains_key(&puller);
        if is_news && all.len() >= MOST {
            let soonest = all.iter().min_by_key(|(_, held)| held.hold.left(now));
            if let Some(puller) = soonest.map(|(puller, _)| *puller) {
                all.remove(&puller);
            }
        }
        let reason = Reason::PullLimit.as_str();
        let held = all.entry(puller).or_insert_with(|| Held {
            hold: Hold::of_pulls(),
            looks,
            said: String::new(),
            _shown: self.metrics.upstream.held(self.upstream.as_str(), reason),
        });
        let time = held.hold.limited(now, retry_after);
        held.said = said;
        held.looks |= looks;
        drop(all);
        if is_news {
            tracing::warn!(
                upstream = %self.upstream, reason, for_s = seconds(time), with_login = puller.is_some(),
                "pull limit reached, no manifests are fetched"
            );
        }
        time
    }

    fn refusal(&self, said: &str, left: Duration) -> Failure {
        let (upstream, seconds) = (&self.upstream, seconds(left));
        let error = Error::RateLimited {
            retry_after: Some(left),
            message: format!(
                "the pull limit of upstream {upstream} is reached, so no manifest is fetched for {seconds} s: {said}"
            ),
        };
        Failure::new(Kind::Shut, error)
    }
}

impl PullPass<'_> {
    /// The pull was not refused for the limit.
    pub(in crate::upstream) fn answered(mut self) {
        let Some(probe) = self.probe.take() else {
            return;
        };
        let mut held = self.pulls.held.lock();
        let Some(own) = held.get_mut(&self.puller) else {
            return;
        };
        own.hold.answered(Some(probe));
        if !own.hold.is_shut() {
            held.remove(&self.puller);
            drop(held);
            tracing::info!(
                upstream = %self.pulls.upstream, reason = Reason::PullLimit.as_str(),
                "manifests are fetched again"
            );
        }
    }
}

impl Drop for PullPass<'_> {
    fn drop(&mut self) {
        if let Some(probe) = self.probe
            && let Some(held) = self.pulls.held.lock().get_mut(&self.puller)
        {
            held.hold.abandon(probe);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::upstream::auth::testing::fingerprint;

    fn pulls() -> (Pulls, Arc<Metrics>) {
        let metrics = Arc::<Metrics>::default();
        let name = "docker.io".parse().unwrap();
        (
            Pulls::new(&name, Clock::system(), Arc::clone(&metrics)),
            metrics,
        )
    }

    fn shown(metrics: &Metrics) -> u32 {
        let line = r#"layby_upstream_held{upstream="docker.io",reason="pull_limit"} "#;
        let text = metrics.render();
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        value.map_or(0, |value| value.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_of_one_credential_holds_no_other() {
        let (pulls, metrics) = pulls();
        let jane = Some(fingerprint("jane"));
        pulls.limited(jane, Some(Duration::from_secs(30)), "enough".to_owned());
        assert_eq!(shown(&metrics), 1);
        let Err(Failure {
            error:
                Error::RateLimited {
                    retry_after,
                    message,
                },
            ..
        }) = pulls.admit(jane, true)
        else {
            panic!("jane's pulls are not held");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(30)));
        assert!(message.ends_with("for 30 s: enough"), "{message}");
        assert!(pulls.admit(None, true).is_ok());
        assert!(pulls.admit(Some(fingerprint("joe")), true).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_time_one_pull_sees_and_lifts_it() {
        let (pulls, metrics) = pulls();
        pulls.limited(None, Some(Duration::from_secs(30)), String::new());
        advance(Duration::from_secs(30)).await;
        drop(pulls.admit(None, true).unwrap());
        let probe = pulls.admit(None, true).unwrap();
        assert!(pulls.admit(None, true).is_err(), "one at a time");
        probe.answered();
        assert!(!pulls.are_held());
        assert_eq!(shown(&metrics), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_limit_of_credentials_is_remembered() {
        let (pulls, metrics) = pulls();
        for n in 0..3 * MOST {
            pulls.limited(Some(fingerprint(&n.to_string())), None, String::new());
        }
        assert_eq!(pulls.held.lock().len(), MOST);
        assert_eq!(shown(&metrics), 16);
    }
}
