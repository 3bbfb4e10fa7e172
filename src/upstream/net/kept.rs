//! The connections that are kept for the next request: many for HTTP/1.1, one of each width for HTTP/2, per origin.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Origin;
use super::lane::{Lane, Width};
use super::proxies::HttpProxy;
use super::spoken::{Opening, Spoken};

/// Idle HTTP/1.1 connections kept per origin.
const MAX_IDLE: usize = 32;
/// How long a connection is kept idle: below what servers and the networks between commonly keep.
const IDLE_TIME: Duration = Duration::from_secs(45);
/// How often [`Kept::close_old`] wants to be called.
pub(super) const LOOK_TIME: Duration = Duration::from_secs(15);
/// Origins whose connections are kept: a registry, its tokens and what it redirects to are a handful, unless it redirects
/// to ever new ones.
const MAX_ORIGINS: usize = 64;

/// Requests at once on one HTTP/2 connection: below the 100 that servers should allow (RFC 9113, section 6.5.2), so that
/// none ever waits within it for another's body to end.
const MAX_STREAMS: usize = 64;

/// The connections of one URL of an upstream, by origin.
#[derive(Debug, Default)]
pub(super) struct Kept {
    slots: Mutex<HashMap<Origin, Slot>>,
    spoken: Spoken,
}

#[derive(Debug)]
struct Slot {
    idle: Vec<Idle>,
    http2: Vec<Http2>,
    used: Instant,
}

#[derive(Debug)]
struct Idle {
    line: Http1,
    since: Instant,
}

/// An HTTP/1.1 connection; `forwarder` is the HTTP proxy that takes its requests instead of the origin.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    pub(super) forwarder: Option<HttpProxy>,
}

/// An HTTP/2 connection, or one request's hold on it.
#[derive(Debug, Clone)]
pub(super) struct Http2 {
    pub(super) sender: http2::SendRequest<Full<Bytes>>,
    pub(super) seat: Seat,
    width: Width,
}

/// Counts the requests on an HTTP/2 connection: each has a clone until its body has ended. Knows when the last one was
/// given back.
#[derive(Debug, Clone)]
pub(super) struct Seat(Arc<Mutex<Instant>>);

/// A connection for one request.
#[derive(Debug)]
pub(super) enum Line {
    Http1(Http1),
    Http2(Http2, Lane),
}

impl Kept {
    /// A kept connection that seems to be alive.
    pub(super) fn take(&self, origin: &Origin, lane: &Lane) -> Option<Line> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(origin)?;
        slot.used = Instant::now();
        slot.drop_old();
        if let Some(line) = slot.http2.iter().find(|line| line.has_room(lane)) {
            self.spoken.meet(origin);
            return Some(Line::Http2(line.clone(), lane.clone()));
        }
        let line = slot.idle.pop().map(|idle| Line::Http1(idle.line));
        if slot.is_empty() {
            slots.remove(origin);
        }
        line
    }

    /// What to hold while opening a connection to `origin`; `None` where it is not known to speak HTTP/2.
    pub(super) fn opening(&self, origin: &Origin) -> Option<Opening> {
        self.spoken.opening(origin)
    }

    /// The origin does not speak HTTP/2, or takes no connection: nobody need wait for another's.
    pub(super) fn unlearn_http2(&self, origin: &Origin) {
        self.spoken.unlearn(origin);
    }

    /// Keeps an HTTP/1.1 connection that is ready for another request.
    pub(super) fn keep_http1(&self, origin: Origin, line: Http1) {
        self.with_slot(origin, |slot| {
            slot.drop_old();
            if slot.idle.len() < MAX_IDLE {
                let since = slot.used;
                slot.idle.push(Idle { line, since });
            }
        });
    }

    /// Keeps a fresh HTTP/2 connection for others too. Of several that were made at once, one is enough.
    pub(super) fn keep_http2(&self, origin: &Origin, line: &Http2, lane: &Lane) {
        self.spoken.meet(origin);
        self.with_slot(origin.clone(), |slot| {
            if !slot.http2.iter().any(|line| line.has_room(lane)) {
                slot.http2.push(line.clone());
            }
        });
    }

    /// Keeps none of the origin's connections any longer.
    pub(super) fn forget(&self, origin: &Origin) {
        self.slots.lock().remove(origin);
    }

    /// Keeps none of the origin's HTTP/2 connections any longer.
    pub(super) fn forget_http2(&self, origin: &Origin) {
        if let Some(slot) = self.slots.lock().get_mut(origin) {
            slot.http2.clear();
        }
    }

    /// Closes what has been idle for too long, and what is more than enough.
    pub(super) fn close_old(&self) {
        self.slots.lock().retain(|_, slot| {
            slot.drop_old();
            slot.drop_spare();
            !slot.is_empty()
        });
    }

    /// Closes everything that is idle.
    pub(super) fn clear(&self) {
        self.slots.lock().clear();
    }

    /// Does something with an origin's connections. Of too many origins the one that was used longest ago makes room.
    fn with_slot(&self, origin: Origin, act: impl FnOnce(&mut Slot)) {
        let mut slots = self.slots.lock();
        if slots.len() >= MAX_ORIGINS && !slots.contains_key(&origin) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(origin, _)| origin.clone()) {
                slots.remove(&oldest);
            }
        }
        let now = Instant::now();
        let slot = slots.entry(origin).or_insert_with(|| Slot::new(now));
        slot.used = now;
        act(slot);
    }
}

impl Slot {
    fn new(used: Instant) -> Self {
        Self {
            idle: Vec::new(),
            http2: Vec::new(),
            used,
        }
    }

    /// Closes what is dead or has been idle for too long.
    fn drop_old(&mut self) {
        let is_young = |since: Instant| since.elapsed() < IDLE_TIME;
        self.idle
            .retain(|idle| !idle.line.sender.is_closed() && is_young(idle.since));
        self.http2
            .retain(|line| !line.sender.is_closed() && line.seat.free_since().is_none_or(is_young));
    }

    /// Closes all but one of the idle HTTP/2 connections of each width.
    fn drop_spare(&mut self) {
        let mut spared = Vec::new();
        self.http2.retain(|line| {
            if line.seat.taken() > 0 {
                return true;
            }
            let stays = !spared.contains(&line.width);
            if stays {
                spared.push(line.width);
            }
            stays
        });
    }

    fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.http2.is_empty()
    }
}

impl Http2 {
    /// A fresh connection with windows of this width.
    pub(super) fn new(sender: http2::SendRequest<Full<Bytes>>, width: Width) -> Self {
        Self {
            sender,
            seat: Seat(Arc::new(Mutex::new(Instant::now()))),
            width,
        }
    }

    fn has_room(&self, lane: &Lane) -> bool {
        lane.takes(self.width) && !self.sender.is_closed() && self.seat.taken() < MAX_STREAMS
    }
}

impl Seat {
    /// Requests under way, besides the pool's own clone.
    fn taken(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(1)
    }

    /// When the last request ended, if none is under way.
    fn free_since(&self) -> Option<Instant> {
        (self.taken() == 0).then(|| *self.0.lock())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.lock() = Instant::now();
    }
}
