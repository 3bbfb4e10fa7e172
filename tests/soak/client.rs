//! A client: what it asks for, and what it takes for an answer.

use std::sync::Arc;

use fastrand::Rng;

use crate::fake::Content;
use crate::phase::Phase;
use crate::support::{End, MIB, Request, Wire};
use crate::world::{Place, World};

/// Asks one thing after the other until the phase is over.
pub(crate) struct Client {
    world: Arc<World>,
    phase: Arc<Phase>,
    rng: Rng,
}

/// What came of a request.
#[derive(Debug)]
enum Outcome {
    /// What was asked for, all of it.
    Served,
    /// So much as the client wanted.
    Left,
    /// An error.
    Refused(u16, String),
    /// The connection ended, before the answer or within it.
    Broken,
}

use Outcome::{Broken, Left, Refused, Served};

impl Client {
    pub(crate) fn new(world: &Arc<World>, phase: &Arc<Phase>, rng: Rng) -> Self {
        Self {
            world: Arc::clone(world),
            phase: Arc::clone(phase),
            rng,
        }
    }

    pub(crate) async fn run(mut self) {
        while !self.phase.is_over() {
            let world = Arc::clone(&self.world);
            let place = self.rng.choice(&world.places).expect("a place");
            let outcome = match self.rng.u8(0..10) {
                0 => self.ask_for_tag(place).await,
                1 => self.ask_for_digest(place).await,
                2 => self.ask_for_lists(place).await,
                _ => self.ask_for_blob(place).await,
            };
            self.judge(place, &outcome);
        }
    }

    /// Errors are for times of trouble, and then they are the right ones.
    fn judge(&self, place: &Place, outcome: &Outcome) {
        let is_served = matches!(outcome, Served | Left);
        self.phase.has_asked(is_served);
        let (kind, path) = (self.phase.kind, place.path);
        match outcome {
            Served | Left => {}
            Refused(429 | 502 | 503, _) | Broken if kind.may_fail() => {}
            Refused(status, why) => panic!("{kind:?}: {status} of {path}: {why}"),
            Broken => panic!("{kind:?}: broken off, {path}"),
        }
    }

    /// A connection on which the request was sent, once there is someone to send it to.
    async fn send(&self, request: &Request) -> Option<Wire> {
        let mut wire = self.world.connect().await?;
        wire.try_send(request).await.then_some(wire)
    }

    async fn ask_for_tag(&mut self, place: &Place) -> Outcome {
        let request = Request::get(place.manifest("latest"));
        let Some(mut wire) = self.send(&request).await else {
            return Broken;
        };
        let Some(head) = wire.try_head().await else {
            return Broken;
        };
        let reply = wire.rest(head).await;
        match (reply.status(), reply.end) {
            (_, End::Broken) => Broken,
            (200, End::Complete) => {
                assert!(place.has_had(&reply.body), "{}", reply.head.raw);
                let is_newest = reply.body == place.newest().manifest.all();
                let is_good = is_newest || self.phase.kind.may_fail();
                assert!(is_good, "not the newest: {}", reply.head.raw);
                Served
            }
            (status, _) => Refused(status, reply.text()),
        }
    }

    async fn ask_for_digest(&mut self, place: &Place) -> Outcome {
        let manifest = place.any(&mut self.rng).manifest;
        let request = Request::get(place.manifest(manifest.digest().as_str()));
        self.whole(&request, &manifest).await
    }

    async fn ask_for_lists(&mut self, place: &Place) -> Outcome {
        let request = Request::get(place.tags());
        let Some(mut wire) = self.send(&request).await else {
            return Broken;
        };
        let Some(head) = wire.try_head().await else {
            return Broken;
        };
        let reply = wire.rest(head).await;
        match (reply.status(), reply.end) {
            (_, End::Broken) => Broken,
            (200, End::Complete) => {
                assert_eq!(reply.json()["tags"], serde_json::json!(["latest"]));
                Served
            }
            (status, _) => Refused(status, reply.text()),
        }
    }

    async fn ask_for_blob(&mut self, place: &Place) -> Outcome {
        let image = place.any(&mut self.rng);
        let blobs: Vec<_> = image.blobs().collect();
        let blob = *self.rng.choice(&blobs).expect("a blob");
        let request = Request::get(place.blob(blob));
        let choices = if self.phase.kind.clients_leave() {
            8
        } else {
            6
        };
        match self.rng.u8(0..choices) {
            0..=2 => self.whole(&request, blob).await,
            3 => self.head(place, blob).await,
            4 => self.part(&request, blob).await,
            5 => self.several_parts(&request, blob).await,
            6 => self.leave(&request, blob, 0).await,
            // What containerd does: an open end, and a chunk.
            _ => {
                let start = self.rng.u64(0..blob.len().max(1));
                let request = request.range(&format!("{start}-"));
                self.leave(&request, blob, start).await
            }
        }
    }

    async fn head(&mut self, place: &Place, blob: &Content) -> Outcome {
        let Some(mut wire) = self.send(&Request::head(place.blob(blob))).await else {
            return Broken;
        };
        let Some(head) = wire.try_head().await else {
            return Broken;
        };
        if head.status != 200 {
            return Refused(head.status, head.raw);
        }
        assert_eq!(head.length(), Some(blob.len()), "{}", head.raw);
        Served
    }

    async fn whole(&mut self, request: &Request, content: &Content) -> Outcome {
        self.read(request, content, 0, content.len(), u64::MAX)
            .await
    }

    /// A part somewhere, or at the end.
    async fn part(&mut self, request: &Request, blob: &Content) -> Outcome {
        let len = blob.len();
        let size = self.rng.u64(1..=len);
        let (start, spec) = if self.rng.bool() {
            let start = self.rng.u64(0..=len - size);
            (start, format!("{start}-{}", start + size - 1))
        } else {
            (len - size, format!("-{size}"))
        };
        let request = request.clone().range(&spec);
        self.read(&request, blob, start, start + size, u64::MAX)
            .await
    }

    async fn several_parts(&mut self, request: &Request, blob: &Content) -> Outcome {
        let third = blob.len() / 3;
        if third == 0 {
            return self.part(request, blob).await;
        }
        // Apart from each other, in any order.
        let mut ranges: Vec<_> = (0..3)
            .map(|number| {
                let start = number * third + self.rng.u64(0..third);
                let most = ((number + 1) * third - start).min(200_000);
                (start, start + self.rng.u64(1..=most))
            })
            .collect();
        self.rng.shuffle(&mut ranges);
        let spec: Vec<_> = ranges
            .iter()
            .map(|(start, end)| format!("{start}-{}", end - 1))
            .collect();
        let request = request.clone().range(&spec.join(","));
        let Some(mut wire) = self.send(&request).await else {
            return Broken;
        };
        let Some(head) = wire.try_head().await else {
            return Broken;
        };
        let reply = wire.rest(head).await;
        match (reply.status(), reply.end) {
            (_, End::Broken) => Broken,
            (206, End::Complete) => {
                for ((range, bytes), (start, end)) in reply.parts().into_iter().zip(ranges) {
                    assert_eq!(range, format!("bytes {start}-{}/{}", end - 1, blob.len()));
                    assert!(bytes == blob.read(start..end), "{range}");
                }
                Served
            }
            (status, _) => Refused(status, reply.text()),
        }
    }

    /// Has enough of it after a while.
    async fn leave(&mut self, request: &Request, blob: &Content, start: u64) -> Outcome {
        let enough = self.rng.u64(0..3 * MIB);
        self.read(request, blob, start, blob.len(), enough).await
    }

    /// Reads an answer that should hold these bytes, or the first of them; no byte may be another.
    async fn read(
        &mut self,
        request: &Request,
        content: &Content,
        start: u64,
        end: u64,
        enough: u64,
    ) -> Outcome {
        let Some(mut wire) = self.send(request).await else {
            return Broken;
        };
        let Some(head) = wire.try_head().await else {
            return Broken;
        };
        if !matches!(head.status, 200 | 206) {
            let reply = wire.rest(head).await;
            return Refused(reply.status(), reply.text());
        }
        if let Some(len) = head.length() {
            assert_eq!(len, end - start, "{}", head.raw);
        }
        let mut at = start;
        while at - start < enough {
            let Some(bytes) = wire.some(MIB).await else {
                return match wire.ended() {
                    End::Complete => {
                        assert_eq!(at, end, "{}", head.raw);
                        Served
                    }
                    End::Broken => Broken,
                };
            };
            let next = at + bytes.len() as u64;
            assert!(
                next <= end,
                "too much of {}: {}",
                content.digest(),
                head.raw
            );
            assert!(
                bytes == content.read(at..next),
                "wrong bytes between {at} and {next} of {}: {}",
                content.digest(),
                head.raw
            );
            at = next;
        }
        self.phase.has_left(content.digest());
        Left
    }
}
