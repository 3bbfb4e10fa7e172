//! The upstreams with what they hold, the program between them and the clients, and what must be true of them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use layby::oci::Digest;
use layby::runtime::Clock;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::fake::{Content, Fake, TokenOffice};
use crate::phase::{Kind, Phase};
use crate::support::{
    Image, KIB, MIB, Program, Request, Setup, Wire, download, eventually, verify_committed,
};

/// What the buffers of a connection on loopback hold at most, on either side.
const IN_SOCKETS: u64 = 12 * MIB;
/// Lost on its way when an answer of an upstream breaks off, or is broken off because nobody wants it.
const PER_BREAK: u64 = 8 * MIB;
/// Lost when the program ends in the middle of a fetch.
const PER_END: u64 = 16 * MIB;
/// What a program may hold open when nothing is asked of it: its own files and idle connections to upstreams.
const DESCRIPTORS: usize = 64;

/// A repository, and what was ever published there.
#[derive(Debug)]
pub(crate) struct Place {
    /// `registry.test/org/app`, as it is after `/v2/`.
    pub(crate) path: &'static str,
    repository: &'static str,
    upstream: usize,
    images: Mutex<Vec<Image>>,
    /// What was published to see whether the upstream is well.
    probes: Mutex<Vec<Content>>,
}

/// A registry, and where its blobs come from.
pub(crate) struct Upstream {
    pub(crate) registry: Fake,
    pub(crate) storage: Fake,
}

/// All of it.
pub(crate) struct World {
    pub(crate) places: Vec<Place>,
    pub(crate) upstreams: Vec<Upstream>,
    setup: Setup,
    scratch: TempDir,
    program: tokio::sync::Mutex<Option<Program>>,
    address: watch::Sender<Option<SocketAddr>>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let (open, guarded, storage) = (
            Fake::start().await,
            Fake::start().await,
            Fake::start().await,
        );
        guarded.redirect_blobs_to(&storage);
        storage.refuse_authorization();
        let office = TokenOffice::new(&Clock::system(), Duration::from_secs(3600));
        guarded.protect_with_tokens(&office, &guarded);
        let mut setup = Setup::new();
        for (name, fake) in [("open.test", &open), ("guarded.test", &guarded)] {
            setup = setup
                .upstream(name, fake)
                .of(name, r#"negative_ttl = "100ms""#);
        }
        for line in [
            r#"stall_timeout = "1s""#,
            r#"header_timeout = "10s""#,
            // The upstreams share the machine with all others here; on a busy one they have been seen to need half a second.
            r#"revalidate_timeout = "3s""#,
            r#"shutdown_grace = "1s""#,
        ] {
            setup = setup.set("limits", line);
        }
        let place = |path: &'static str, upstream| Place {
            path,
            repository: path.split_once('/').expect("an upstream").1,
            upstream,
            images: Mutex::default(),
            probes: Mutex::default(),
        };
        let world = Self {
            places: vec![
                place("open.test/org/app", 0),
                place("open.test/org/fork", 0),
                place("guarded.test/team/app", 1),
            ],
            upstreams: vec![
                Upstream {
                    storage: open.clone(),
                    registry: open,
                },
                Upstream {
                    registry: guarded,
                    storage,
                },
            ],
            setup,
            scratch: tempfile::tempdir().expect("a scratch directory"),
            program: tokio::sync::Mutex::new(None),
            address: watch::Sender::new(None),
        };
        world.start_program().await;
        world
    }

    /// Puts a new image behind the tag of every place; places of one upstream share it, as forks do.
    pub(crate) fn publish(&self, phase: u64, rng: &mut Rng) {
        for number in 0..self.upstreams.len() {
            let mut sizes = vec![0, 1, 64 * KIB, 64 * KIB + 1, MIB, MIB + 1];
            sizes.extend((0..4).map(|_| rng.u64(1..3 * MIB)));
            sizes.extend([rng.u64(4 * MIB..9 * MIB), rng.u64(12 * MIB..28 * MIB)]);
            // Two blobs of no bytes are one.
            let seed = 10_000 + phase * 10 + number as u64;
            let image = Image::new(seed, &sizes[1..]);
            for place in self.places.iter().filter(|place| place.upstream == number) {
                image.push(&self.upstreams[number].registry, place.repository, "latest");
                place.images.lock().push(image.clone());
            }
        }
    }

    pub(crate) async fn start_program(&self) {
        let program = Program::start(&self.setup, self.scratch.path()).await;
        self.address.send_replace(Some(program.address()));
        *self.program.lock().await = Some(program);
    }

    /// Ends the program, by force or in good order.
    pub(crate) async fn end_program(&self, by_force: bool) {
        let program = self.program.lock().await.take();
        self.address.send_replace(None);
        let program = program.expect("it runs");
        assert_no_panic(&program);
        if by_force {
            program.kill().await;
        } else {
            program.stop().await;
        }
    }

    /// A connection to the program; `None` where it is not there.
    pub(crate) async fn connect(&self) -> Option<Wire> {
        let mut address = self.address.subscribe();
        let address = *address.wait_for(Option::is_some).await.ok()?;
        TcpStream::connect(address?).await.ok().map(Wire::of)
    }

    fn address(&self) -> SocketAddr {
        self.address.borrow().expect("the program runs")
    }

    /// With nothing in the way any more, everything can be had, and newest by its tag; and nothing is held against the
    /// upstreams.
    pub(crate) async fn settle(&self, phase: &Phase) {
        for upstream in &self.upstreams {
            upstream.registry.mend();
            upstream.storage.mend();
        }
        for place in &self.places {
            self.probe(place).await;
        }
        for place in &self.places {
            let newest = place.newest();
            eventually(&format!("the newest image of {}", place.path), || async {
                let latest = Request::get(place.manifest("latest"));
                let reply = latest.send_to(self.address()).await;
                (reply.body == newest.manifest.all()).then_some(())
            })
            .await;
            for blob in newest.blobs() {
                eventually(&format!("{} of {}", blob.digest(), place.path), || async {
                    let got = download(self.address(), place.blob(blob)).await;
                    assert!(!got.is_a_lie(blob.digest()), "{got}");
                    let is_whole = got.is_whole(blob.digest());
                    assert!(is_whole || phase.kind.may_fail(), "{got}");
                    is_whole.then_some(())
                })
                .await;
            }
        }
    }

    /// Waits until the upstream of a place answers for what nobody has asked for: holds and breakers have their time.
    async fn probe(&self, place: &Place) {
        let number = place.probes.lock().len();
        let content = Content::bytes(format!("probe {number} of {}", place.path));
        let registry = &self.upstreams[place.upstream].registry;
        registry.put_blob(place.repository, &content);
        place.probes.lock().push(content.clone());
        eventually(&format!("the upstream of {}", place.path), || async {
            let absent = Request::get(place.manifest(&format!("absent-{number}")));
            let absent = absent.send_to(self.address()).await;
            let got = download(self.address(), place.blob(&content)).await;
            let is_well = absent.status() == 404 && got.is_whole(content.digest());
            is_well.then_some(())
        })
        .await;
    }

    /// What each upstream sent of each blob is the blob, and little more where something broke.
    pub(crate) async fn account(&self, phase: &Phase) -> String {
        let program = self.program.lock().await;
        let log = program.as_ref().map(Program::log).unwrap_or_default();
        let (mut sent, mut wanted) = (0, 0);
        for (number, upstream) in self.upstreams.iter().enumerate() {
            // All places of an upstream have the same image.
            let place = self.places.iter().find(|place| place.upstream == number);
            let place = place.expect("each upstream has a place");
            let record = upstream.storage.record();
            for blob in place.newest().blobs() {
                let digest = blob.digest();
                let allowed = blob.len() + Self::allowance(phase, upstream, blob);
                let was_sent = record.sent(digest);
                assert!(
                    was_sent <= allowed,
                    "{was_sent} bytes of {digest} were sent, {allowed} at most should have been: {:#?}\n{:#?}",
                    record.of("GET", digest.as_str()),
                    log.iter()
                        .filter(|line| line.contains(digest.as_str()))
                        .collect::<Vec<_>>()
                );
                sent += was_sent;
                wanted += blob.len();
            }
        }
        for upstream in &self.upstreams {
            upstream.registry.record().clear();
            upstream.storage.record().clear();
        }
        format!("{} MiB sent of {} MiB", sent / MIB, wanted / MIB)
    }

    /// What may have been sent in vain.
    fn allowance(phase: &Phase, upstream: &Upstream, blob: &Content) -> u64 {
        let (record, digest) = (upstream.storage.record(), blob.digest());
        let gets = record.of("GET", digest.as_str());
        // The first request of all may be for everything; it ends where others have begun.
        let first = gets.iter().find(|seen| seen.status() / 100 == 2);
        let is_shortened = first.is_some_and(|first| first.header("range").is_none());
        let shortened = u64::from(is_shortened && gets.len() > 1) * IN_SOCKETS;
        // A byte is what it costs to ask whether a repository has the blob.
        let questions = gets.len() as u64;
        if phase.kind == Kind::Calm {
            return shortened + questions;
        }
        // Whoever is sent everything instead of a part skips what is there.
        let ignored = gets
            .iter()
            .filter(|seen| seen.header("range").is_some() && seen.status() == 200)
            .map(|seen| seen.sent().end)
            .sum::<u64>();
        shortened
            + questions
            + ignored
            + (record.broken(digest) + phase.left(digest)) * PER_BREAK
            + phase.ends_of_the_program() * PER_END
    }

    /// With no client left, nothing is under way, and nothing is held for it.
    pub(crate) async fn assert_at_rest(&self, phase: &Phase) {
        let program = self.program.lock().await;
        let program = program.as_ref().expect("it runs");
        for gauge in ["flights", "flight_readers", "connections"] {
            eventually(&format!("no {gauge}"), || async {
                (program.gauge(gauge).await == 0).then_some(())
            })
            .await;
        }
        eventually("descriptors to be closed", || async {
            (program.descriptors() <= DESCRIPTORS).then_some(())
        })
        .await;
        // Everything was pulled to its end.
        eventually("partial files to be gone", || async {
            self.partials().is_empty().then_some(())
        })
        .await;
        assert_no_panic(program);
        if phase.kind == Kind::Calm {
            let bypassed = program.log();
            let bypassed = bypassed.iter().find(|line| line.contains("uncached"));
            assert_eq!(bypassed, None);
        }
    }

    fn partials(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.scratch.path().join("data/partial"));
        let entries = entries.expect("the directory");
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect()
    }

    /// At the end, what is kept is all that was published, and right.
    pub(crate) async fn end(&self) {
        self.end_program(false).await;
        let kept = verify_committed(&self.scratch.path().join("data"));
        let probes = self
            .places
            .iter()
            .flat_map(|place| place.probes.lock().clone());
        let mut published: HashSet<Digest> = probes.map(|probe| probe.digest().clone()).collect();
        let images = self
            .places
            .iter()
            .flat_map(|place| place.images.lock().clone())
            .flat_map(|image| {
                let blobs = image.blobs().map(|blob| blob.digest().clone());
                blobs
                    .chain([image.manifest.digest().clone()])
                    .collect::<Vec<_>>()
            });
        published.extend(images);
        assert_eq!(kept, published.len());
    }
}

impl Place {
    /// What the tag points at.
    pub(crate) fn newest(&self) -> Image {
        self.images.lock().last().expect("published").clone()
    }

    /// Any image that was ever published, more likely a new one.
    pub(crate) fn any(&self, rng: &mut Rng) -> Image {
        let images = self.images.lock();
        let back = if rng.u8(0..4) == 0 {
            rng.usize(0..images.len())
        } else {
            0
        };
        images[images.len() - 1 - back].clone()
    }

    /// Whether this is a manifest that the tag has pointed at.
    pub(crate) fn has_had(&self, manifest: &[u8]) -> bool {
        let images = self.images.lock();
        images.iter().any(|image| image.manifest.all() == manifest)
    }

    pub(crate) fn manifest(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.path)
    }

    pub(crate) fn blob(&self, content: &Content) -> String {
        format!("/v2/{}/blobs/{}", self.path, content.digest())
    }

    pub(crate) fn tags(&self) -> String {
        format!("/v2/{}/tags/list", self.path)
    }
}

fn assert_no_panic(program: &Program) {
    let log = program.log();
    let panic = log.iter().find(|line| line.contains("panicked at"));
    assert_eq!(panic, None);
}
