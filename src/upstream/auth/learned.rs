//! What the registry has taught us, so that the next request need not be refused first.

use std::hash::Hash;
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::challenge::Bearer;
use super::guest::Place;
use super::token::Plan;
use crate::oci::RepoName;

/// The challenges of one URL of an upstream. Bounded; forgotten at restart.
#[derive(Debug)]
pub(super) struct Learned {
    /// Repositories whose token we know how to get, because we got one.
    plans: Cache<RepoName, Arc<Plan>>,
    /// The same of the registries that redirects led to.
    guests: Cache<Place, Arc<Plan>>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    /// Whether the registry wanted `Basic` last.
    basic: bool,
    /// The token challenge of any repository, without what was particular to that.
    bearer: Option<Bearer>,
}

impl Learned {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self {
            plans: plans(),
            guests: plans(),
            last: Mutex::default(),
        }
    }

    /// How to get a token for `repository`.
    pub(super) fn plan(&self, repository: &RepoName) -> Option<Arc<Plan>> {
        self.plans.get(repository)
    }

    /// Whether the registry wants `Basic`.
    pub(super) fn is_basic(&self) -> bool {
        self.last.lock().basic
    }

    /// The token challenge that the registry sends, whatever the repository.
    pub(super) fn bearer(&self) -> Option<Bearer> {
        self.last.lock().bearer.clone()
    }

    /// Notes that `plan` gave a token for `repository`, as `bearer` said.
    pub(super) fn wants_token(&self, repository: &RepoName, plan: Plan, bearer: Bearer) {
        self.plans.insert(repository.clone(), Arc::new(plan));
        let mut last = self.last.lock();
        last.basic = false;
        last.bearer = Some(Bearer {
            // A scope within the grammar names a repository; one outside of it (`aws`) is meant for all.
            scope: bearer.scope.filter(|scope| !scope.contains(':')),
            wants_more: false,
            ..bearer
        });
    }

    /// Notes that the registry wanted `Basic` for `repository`.
    pub(super) fn wants_basic(&self, repository: &RepoName) {
        self.plans.invalidate(repository);
        self.last.lock().basic = true;
    }

    /// Forgets how to get a token for `repository`.
    pub(super) fn forget(&self, repository: &RepoName) {
        self.plans.invalidate(repository);
    }

    /// How to get a token for a registry that redirects led to.
    pub(super) fn guest(&self, place: &Place) -> Option<Arc<Plan>> {
        self.guests.get(place)
    }

    /// Notes that `plan` gave a token for a registry that redirects led to.
    pub(super) fn guest_wants_token(&self, place: Place, plan: Plan) {
        self.guests.insert(place, Arc::new(plan));
    }

    /// Forgets how to get a token for a registry that redirects led to.
    pub(super) fn forget_guest(&self, place: &Place) {
        self.guests.invalidate(place);
    }
}

fn plans<K: Hash + Eq + Send + Sync + 'static>() -> Cache<K, Arc<Plan>> {
    Cache::builder()
        .max_capacity(MAX_PLANS)
        .eviction_policy(EvictionPolicy::lru())
        .build()
}

const MAX_PLANS: u64 = 4096;
