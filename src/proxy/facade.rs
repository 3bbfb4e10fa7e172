//! The proxy as the server sees it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::config::Config;
use crate::flight::Flights;
use crate::flight::ports::Blobs;
use crate::oci::{Digest, Reference, TagsQuery, Target};
use crate::runtime::{Clock, Tasks};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::upstream::{Call, Upstreams};

use super::adapt::{StoreBlobs, StoreRecords, UpstreamSources};
use super::admin::{Administration, Keeper, Memory};
use super::blobs::{BlobService, Sizes};
use super::catalog::Catalog;
use super::context::{Context, Remote};
use super::lists::Lists;
use super::manifests::Manifests;
use super::membership::Membership;
use super::retention::Retention;
use super::tags::Tags;
use super::warm::{Means, Warmer, start_schedule};
use super::{
    BlobAnswer, BlobUse, CatalogPage, Error, ListAnswer, ManifestAnswer, Place, SelectError,
    Selected, Selector,
};

/// Answers for the content of all upstreams.
pub struct Proxy {
    selector: Arc<Selector>,
    manifests: Arc<Manifests>,
    tags: Arc<Tags>,
    lists: Arc<Lists>,
    catalog: Arc<Catalog>,
    blobs: Arc<BlobService>,
    keeper: Arc<Keeper>,
    retention: Arc<Retention>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

impl Proxy {
    /// The decisions of `config` over a store and upstreams. Fetches and writes run as tasks of `tasks`.
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        upstreams: Arc<Upstreams>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let blobs: Arc<dyn Blobs> = Arc::new(StoreBlobs(Arc::clone(&store)));
        let flights = Flights::new(
            Arc::clone(&blobs),
            tasks.clone(),
            Arc::clone(&metrics),
            config.limits.header_timeout,
            config.cache.max_blob_size,
        )?;
        let remotes = remotes(config, &upstreams);
        let context = Arc::new(Context::new(
            Arc::new(StoreRecords(Arc::clone(&store))),
            remotes,
            &config.limits,
            config.offline,
            clock.clone(),
            Arc::clone(&metrics),
            tasks.clone(),
        ));
        let selector = Arc::new(Selector::new(config));
        let membership = Arc::new(Membership::new(Arc::clone(&context)));
        let manifests = Arc::new(Manifests::new(Arc::clone(&context)));
        let sources = Arc::new(UpstreamSources {
            upstreams,
            membership: Arc::clone(&membership),
        });
        let tags = Arc::new(Tags::new(Arc::clone(&context), Arc::clone(&manifests)));
        let memory = Memory::of(&tags, &manifests, &membership);
        let counted = Arc::clone(&metrics);
        let (kept, time) = (Arc::clone(&store), clock.clone());
        let mut keeper = Keeper::serving(config, store, clock, counted, tasks, memory)?;
        let protection = Arc::clone(keeper.protection());
        let retention = Arc::new(Retention::new(kept, time, protection));
        let lists = Arc::new(Lists::new(Arc::clone(&context), Arc::clone(&manifests)));
        let blobs = Arc::new(BlobService {
            flights,
            blobs,
            membership,
            sources,
            sizes: Sizes::default(),
            header_timeout: config.limits.header_timeout,
            metrics,
        });
        let means = Means {
            ctx: Arc::clone(&context),
            tags: Arc::clone(&tags),
            manifests: Arc::clone(&manifests),
            lists: Arc::clone(&lists),
            blobs: Arc::clone(&blobs),
            retention: Arc::clone(&retention),
        };
        let warmer = Arc::new(Warmer::new(config, means));
        start_schedule(&warmer, &config.warm);
        keeper.warms_with(warmer);
        Ok(Self {
            retention,
            tags,
            keeper: Arc::new(keeper),
            lists,
            catalog: Arc::new(Catalog::new(context, Arc::clone(&selector))),
            selector,
            manifests,
            blobs,
        })
    }

    /// Administration of what it serves.
    pub fn administration(&self) -> Arc<dyn Administration> {
        Arc::clone(&self.keeper) as _
    }

    /// The repository that a request is for. `host` is its `Host` header.
    pub fn select(&self, target: &Target, host: Option<&str>) -> Result<Selected, SelectError> {
        self.selector.select(target, host)
    }

    /// A manifest; [`Proxy::sends`] is told if it goes to the client.
    pub async fn manifest(
        &self,
        place: &Place,
        reference: &Reference,
        call: &Call,
    ) -> Result<ManifestAnswer, Error> {
        let answer = match reference {
            Reference::Tag(tag) => self.tags.manifest(place, tag, call).await,
            Reference::Digest(digest) => self.manifests.by_digest(place, digest, call).await,
        }?;
        self.retention.answered(place, reference, &answer);
        Ok(answer)
    }

    /// Notes that a manifest goes to a client, who will ask for what it leads to.
    pub fn sends(&self, manifest: &ManifestAnswer) {
        self.retention.sent(manifest);
    }

    /// A blob.
    pub async fn blob(
        &self,
        place: &Place,
        digest: &Digest,
        usage: BlobUse,
        call: &Call,
    ) -> Result<BlobAnswer, Error> {
        self.blobs.blob(place, digest, usage, call).await
    }

    /// A page of a repository's tags.
    pub async fn tags(
        &self,
        place: &Place,
        query: &TagsQuery,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        self.lists.tags(place, query, call).await
    }

    /// What refers to `digest`; `query` is the request's, canonical and without `ns`.
    pub async fn referrers(
        &self,
        place: &Place,
        digest: &Digest,
        artifact_types: &[String],
        query: &str,
        call: &Call,
    ) -> Result<ListAnswer, Error> {
        self.lists
            .referrers(place, digest, artifact_types, query, call)
            .await
    }

    /// A page of the repositories in the cache.
    pub async fn catalog(&self, n: Option<u32>, last: Option<&str>) -> Result<CatalogPage, Error> {
        self.catalog.page(n, last).await
    }
}

fn remotes(config: &Config, upstreams: &Upstreams) -> HashMap<crate::config::UpstreamName, Remote> {
    let remote = |upstream: &Arc<crate::config::Upstream>| {
        let registry = Arc::clone(upstreams.get(&upstream.name)?);
        let remote = Remote {
            registry,
            policy: upstream.tags.clone(),
            rules: Arc::clone(&config.tag_rules),
        };
        Some((upstream.name.clone(), remote))
    };
    config.upstreams.iter().filter_map(remote).collect()
}
