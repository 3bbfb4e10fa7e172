//! A scripted upstream and a disk in memory, for the tests of the decisions.

mod conformance;
mod records;
mod registry;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{Config, Limits, Overrides, TagPolicy, TagRules};
use crate::oci::{Digest, MediaType};
use crate::runtime::{Clock, Tasks};
use crate::store::RefKind;
use crate::telemetry::Metrics;
use crate::upstream::{Call, Error};

use super::Place;
use super::context::{Context, Remote};
use super::lists::Lists;
use super::manifests::Manifests;
use super::membership::Membership;
use super::ports::{Records, Registry};
use super::tags::Tags;

pub(super) use conformance::records_conform;
pub(super) use records::FakeRecords;
pub(super) use registry::FakeRegistry;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn place(upstream: &str, repository: &str) -> Place {
    Place {
        upstream: upstream.parse().unwrap(),
        repository: repository.parse().unwrap(),
    }
}

/// The repository that most tests are about.
pub(super) fn ubuntu() -> Place {
    place("docker.io", "library/ubuntu")
}

/// A request that has twenty seconds.
pub(super) fn call() -> Call {
    Call {
        deadline: Instant::now() + 20 * SECOND,
        via: None,
    }
}

/// The policy of `[tags]` by default.
pub(super) fn policy() -> TagPolicy {
    TagPolicy {
        ttl: MINUTE,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::MAX,
        stale_if_gone: Duration::MAX,
        stale_if_denied: Duration::MAX,
        negative_ttl: 10 * SECOND,
    }
}

/// An image manifest of one layer, told apart by `name`.
pub(super) fn image(name: &str) -> String {
    let config = Digest::sha256(format!("{name} config").as_bytes());
    let layer = Digest::sha256(format!("{name} layer").as_bytes());
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":9}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":9}}]}}"#,
        MediaType::OCI_MANIFEST
    )
}

/// An index of these manifests.
pub(super) fn index(children: &[&str]) -> String {
    let children: Vec<String> = children
        .iter()
        .map(|child| {
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#,
                MediaType::OCI_MANIFEST,
                Digest::sha256(child.as_bytes()),
                child.len()
            )
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        MediaType::OCI_INDEX,
        children.join(",")
    )
}

pub(super) fn digest(body: &str) -> Digest {
    Digest::sha256(body.as_bytes())
}

fn media_type(body: &str) -> MediaType {
    let text = if body.contains(r#""manifests":"#) {
        MediaType::OCI_INDEX
    } else {
        MediaType::OCI_MANIFEST
    };
    MediaType::parse(text).unwrap()
}

pub(super) fn unavailable() -> Error {
    Error::Unavailable {
        message: "connection refused".to_owned(),
    }
}

pub(super) fn denied() -> Error {
    Error::Denied {
        message: "pull access denied".to_owned(),
        ours: false,
    }
}

pub(super) fn rate_limited() -> Error {
    Error::RateLimited {
        retry_after: None,
        message: "too many requests".to_owned(),
    }
}

pub(super) fn not_found() -> Error {
    Error::NotFound {
        message: "manifest unknown".to_owned(),
    }
}

/// One instance with a scripted upstream, `docker.io` and `ghcr.io` alike, over a disk in memory.
pub(super) struct World {
    pub(super) records: Arc<FakeRecords>,
    pub(super) registry: Arc<FakeRegistry>,
    pub(super) clock: Clock,
    pub(super) ctx: Arc<Context>,
    pub(super) manifests: Arc<Manifests>,
    pub(super) tags: Arc<Tags>,
    pub(super) lists: Arc<Lists>,
    pub(super) membership: Arc<Membership>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(&policy())
    }

    pub(super) fn with(policy: &TagPolicy) -> Self {
        Self::over(
            Arc::default(),
            Arc::default(),
            Clock::system(),
            policy,
            false,
        )
    }

    /// What a restart leaves: disk, upstream and time.
    pub(super) fn restarted(&self, policy: &TagPolicy) -> Self {
        let (records, registry) = (Arc::clone(&self.records), Arc::clone(&self.registry));
        Self::over(records, registry, self.clock.clone(), policy, false)
    }

    pub(super) fn restarted_offline(&self) -> Self {
        let (records, registry) = (Arc::clone(&self.records), Arc::clone(&self.registry));
        Self::over(records, registry, self.clock.clone(), &policy(), true)
    }

    /// A restart with the clock set back to the real time.
    pub(super) fn restarted_in_the_past(&self) -> Self {
        let (records, registry) = (Arc::clone(&self.records), Arc::clone(&self.registry));
        Self::over(records, registry, Clock::system(), &policy(), false)
    }

    /// An instance whose configuration has these rules for tags.
    pub(super) fn with_rules(rules: &str) -> Self {
        Self::new().restarted_with_rules(rules)
    }

    pub(super) fn restarted_with_rules(&self, rules: &str) -> Self {
        let config = Config::from_toml(rules, &Overrides::default()).unwrap();
        let (records, registry) = (Arc::clone(&self.records), Arc::clone(&self.registry));
        let rules = config.tag_rules;
        Self::ruled(
            records,
            registry,
            self.clock.clone(),
            &policy(),
            &rules,
            false,
        )
    }

    fn over(
        records: Arc<FakeRecords>,
        registry: Arc<FakeRegistry>,
        clock: Clock,
        policy: &TagPolicy,
        offline: bool,
    ) -> Self {
        Self::ruled(records, registry, clock, policy, &Arc::default(), offline)
    }

    fn ruled(
        records: Arc<FakeRecords>,
        registry: Arc<FakeRegistry>,
        clock: Clock,
        policy: &TagPolicy,
        rules: &Arc<TagRules>,
        offline: bool,
    ) -> Self {
        let limits = Limits {
            connect_timeout: 5 * SECOND,
            header_timeout: 20 * SECOND,
            revalidate_timeout: 3 * SECOND,
            stall_timeout: 30 * SECOND,
            shutdown_grace: 30 * SECOND,
            max_connections: None,
            max_connections_per_client: None,
        };
        let remotes = ["docker.io", "ghcr.io"].map(|name| {
            let remote = Remote {
                registry: Arc::clone(&registry) as Arc<dyn Registry>,
                policy: policy.clone(),
                rules: Arc::clone(rules),
            };
            (name.parse().unwrap(), remote)
        });
        let ctx = Arc::new(Context::new(
            Arc::clone(&records) as Arc<dyn Records>,
            remotes.into(),
            &limits,
            offline,
            clock.clone(),
            Arc::new(Metrics::default()),
            Tasks::new(),
        ));
        let manifests = Arc::new(Manifests::new(Arc::clone(&ctx)));
        Self {
            records,
            registry,
            clock,
            tags: Arc::new(Tags::new(Arc::clone(&ctx), Arc::clone(&manifests))),
            lists: Arc::new(Lists::new(Arc::clone(&ctx), Arc::clone(&manifests))),
            membership: Arc::new(Membership::new(Arc::clone(&ctx))),
            manifests,
            ctx,
        }
    }

    /// Waits until no task is left.
    pub(super) async fn settled(&self) {
        while !self.ctx.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    /// Stores what the image manifest `body` needs, with its proofs.
    pub(super) fn store_blobs_of(&self, place: &Place, name: &str) {
        for part in ["config", "layer"] {
            let bytes = format!("{name} {part}");
            let digest = Digest::sha256(bytes.as_bytes());
            self.records
                .blobs
                .lock()
                .insert(digest.clone(), Bytes::from(bytes));
            self.records.seed(&place.key(RefKind::Blob(digest)), b"");
        }
    }
}

/// Runs `future` as a request of its own.
#[expect(clippy::disallowed_methods, reason = "a client is nobody's task")]
pub(super) fn client<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

/// Lets every task that can run do so. On the current-thread runtime of tests each turn runs them all once.
pub(super) async fn turns() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

/// Lets nothing through while it is shut.
#[derive(Debug, Default)]
struct Gate(Mutex<Option<Arc<Semaphore>>>);

impl Gate {
    fn shut(&self) {
        *self.0.lock() = Some(Arc::new(Semaphore::new(0)));
    }

    fn open(&self) {
        if let Some(shut) = self.0.lock().take() {
            shut.close();
        }
    }

    async fn pass(&self) {
        let shut = self.0.lock().clone();
        if let Some(shut) = shut {
            // Fails when the gate is opened, and lets everyone through.
            let _ = shut.acquire().await;
        }
    }
}
