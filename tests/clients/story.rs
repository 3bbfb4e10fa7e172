//! What every client goes through, and what Layby's log, the registries and the trap must say of it.

use std::collections::BTreeSet;

use super::host;
use super::images::{Image, Platform};
use super::layby::Request;
use super::registry::Registry;
use super::scene::Scene;

/// A client, set up to find one image by way of Layby.
pub(crate) trait Way {
    /// Pulls the image, and checks that what arrived is right.
    fn pull(&self);
    /// Makes the client forget all of it.
    fn forget(&self);
    /// Whether it pulls for every platform, not only for this machine's.
    fn takes_all_platforms(&self) -> bool {
        false
    }
    /// Whether it may have manifests still when it has forgotten an image.
    fn may_keep_manifests(&self) -> bool {
        false
    }
    /// Checks what is particular to how this client names the upstream.
    fn check(&self, _request: &Request) {}
}

/// An image, and the upstream that has it.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) upstream: &'a str,
    pub(crate) image: &'a Image,
}

/// What the cache may have done for a pull.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cache {
    /// Everything came from upstream.
    Cold,
    /// Blobs were here.
    Warm,
    /// And the upstream was not there.
    Alone,
    /// And the tag was too old.
    Stale,
}

/// Cold, warm, then from Layby alone: with a tag that is fresh or not, with one that is too old, and after a restart.
pub(crate) fn tell(scene: &mut Scene, way: &dyn Way, at: At<'_>) {
    cold_and_warm(scene, way, at);

    scene.open.kill();
    scene.locked.kill();
    pull(scene, way, at, Cache::Alone);
    wait_until_stale(scene, at);
    pull(scene, way, at, Cache::Stale);
    scene.layby.restart();
    pull(scene, way, at, Cache::Alone);
}

/// The first two pulls alone.
pub(crate) fn cold_and_warm(scene: &Scene, way: &dyn Way, at: At<'_>) {
    way.pull_through(scene, at, Cache::Cold);
    check_upstream(scene, way, at);
    pull(scene, way, at, Cache::Warm);
    check_upstream(scene, way, at);
}

impl dyn Way + '_ {
    fn pull_through(&self, scene: &Scene, at: At<'_>, cache: Cache) {
        let mark = scene.layby.mark();
        self.pull();
        let wanted = self.wanted(at.image, cache);
        let requests = host::eventually("every request of a pull in the log", || {
            let requests = scene.layby.requests(mark);
            let seen: BTreeSet<&str> = requests.iter().map(Request::reference).collect();
            wanted
                .iter()
                .all(|one| seen.contains(one))
                .then_some(requests)
        });
        for request in &requests {
            self.check_request(request, at, cache);
        }
        assert_eq!(scene.trap.caught(), [""; 0], "{cache:?}: went past Layby");
    }

    fn platforms<'a>(&self, image: &'a Image) -> Vec<&'a Platform> {
        if self.takes_all_platforms() {
            image.platforms.iter().collect()
        } else {
            vec![image.own()]
        }
    }

    /// The tag, manifests and blobs that a pull must ask for.
    fn wanted<'a>(&self, image: &'a Image, cache: Cache) -> BTreeSet<&'a str> {
        let has_manifests = cache != Cache::Cold && self.may_keep_manifests();
        let platforms = self.platforms(image);
        let manifests = platforms
            .iter()
            .map(|platform| &platform.manifest)
            .filter(|_| !has_manifests);
        platforms
            .iter()
            .flat_map(|platform| platform.blobs())
            .chain(manifests)
            .map(String::as_str)
            .chain([image.tag])
            .collect()
    }

    fn check_request(&self, request: &Request, at: At<'_>, cache: Cache) {
        assert!(request.is_whole(), "{cache:?}: {request:?}");
        if request.route() == "base" {
            return;
        }
        assert_eq!(request.upstream(), at.upstream, "{request:?}");
        assert_eq!(request.repository(), at.image.repository, "{request:?}");
        self.check(request);
        let expected: &[&str] = match (cache, request.route()) {
            (Cache::Cold, "blob") => &["miss"],
            (_, "blob") => &["hit"],
            (Cache::Alone, _) => &["hit", "stale"],
            (Cache::Stale, _) if request.reference() == at.image.tag => &["stale"],
            (Cache::Stale, _) => &["hit"],
            (Cache::Cold | Cache::Warm, _) => return,
        };
        assert!(
            expected.contains(&request.cache()),
            "{cache:?}: {request:?}"
        );
    }
}

/// One more pull, of a client that has nothing.
fn pull(scene: &Scene, way: &dyn Way, at: At<'_>, cache: Cache) {
    way.forget();
    way.pull_through(scene, at, cache);
}

/// Nobody but Layby asked a registry, and for each blob once.
fn check_upstream(scene: &Scene, way: &dyn Way, at: At<'_>) {
    let served: Vec<_> = [&scene.open, &scene.locked]
        .into_iter()
        .flat_map(Registry::served)
        .collect();
    for request in &served {
        assert!(request.agent.starts_with("layby/"), "{request:?}");
    }
    for platform in way.platforms(at.image) {
        for blob in platform.blobs() {
            let path = format!("/v2/{}/blobs/{blob}", at.image.repository);
            let gets = served
                .iter()
                .filter(|request| request.method == "GET" && request.uri == path)
                .filter(|request| request.status != 401)
                .count();
            assert_eq!(gets, 1, "{path} in {served:#?}");
        }
    }
}

/// Returns once Layby serves the tag although it is too old.
pub(crate) fn wait_until_stale(scene: &Scene, at: At<'_>) {
    let Image {
        repository, tag, ..
    } = at.image;
    let path = format!("/v2/{repository}/manifests/{tag}?ns={}", at.upstream);
    host::eventually("a stale tag", || {
        let head = host::get(scene.layby.port(), &path)?;
        head.contains("fwd=stale").then_some(())
    });
}
