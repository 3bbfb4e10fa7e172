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
pub(super) struct Kept(Mutex<HashMap<Origin, Slot>>);

#[derive(Debug)]
struct Slot {
    idle: Vec<Idle>,
    http2: Vec<Http2>,
    /// Held by the one that opens a further HTTP/2 connection: those who wait can use it too.
    opening: Arc<tokio::sync::Mutex<()>>,
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
    /// When it was first seen without a request, if it has had none since.
    idle_since: Option<Instant>,
}

/// Counts the requests on an HTTP/2 connection: each has a clone until its body has ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Seat(Arc<()>);

/// A connection for one request.
#[derive(Debug)]
pub(super) enum Line {
    Http1(Http1),
    Http2(Http2, Lane),
}

impl Kept {
    /// A kept connection that seems to be alive.
    pub(super) fn take(&self, origin: &Origin, lane: &Lane) -> Option<Line> {
        let mut slots = self.0.lock();
        let slot = slots.get_mut(origin)?;
        slot.used = Instant::now();
        if let Some(line) = slot.http2.iter_mut().find(|line| line.has_room(lane)) {
            line.idle_since = None;
            return Some(Line::Http2(line.clone(), lane.clone()));
        }
        slot.drop_old();
        let line = slot.idle.pop().map(|idle| Line::Http1(idle.line));
        if slot.is_empty() {
            slots.remove(origin);
        }
        line
    }

    /// What to hold while opening a further HTTP/2 connection; `None` where there is none yet.
    pub(super) fn opening(&self, origin: &Origin) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let slots = self.0.lock();
        let slot = slots.get(origin)?;
        let is_known = slot.http2.iter().any(|line| !line.sender.is_closed());
        is_known.then(|| Arc::clone(&slot.opening))
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
        self.with_slot(origin.clone(), |slot| {
            if !slot.http2.iter().any(|line| line.has_room(lane)) {
                slot.http2.push(line.clone());
            }
        });
    }

    /// Keeps none of the origin's connections any longer.
    pub(super) fn forget(&self, origin: &Origin) {
        self.0.lock().remove(origin);
    }

    /// Keeps none of the origin's HTTP/2 connections any longer.
    pub(super) fn forget_http2(&self, origin: &Origin) {
        if let Some(slot) = self.0.lock().get_mut(origin) {
            slot.http2.clear();
        }
    }

    /// Closes what has been idle for too long. An HTTP/2 connection counts as idle from the first such look that finds it so.
    pub(super) fn close_old(&self) {
        self.0.lock().retain(|_, slot| {
            slot.drop_old();
            !slot.is_empty()
        });
    }

    /// Closes everything that is idle.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Does something with an origin's connections. Of too many origins the one that was used longest ago makes room.
    fn with_slot(&self, origin: Origin, act: impl FnOnce(&mut Slot)) {
        let mut slots = self.0.lock();
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
            opening: Arc::default(),
            used,
        }
    }

    /// Closes what is dead or has been idle for too long, and all but one of the idle HTTP/2 connections of each width.
    fn drop_old(&mut self) {
        let now = Instant::now();
        let is_young = |since: Instant| now.duration_since(since) < IDLE_TIME;
        self.idle
            .retain(|idle| !idle.line.sender.is_closed() && is_young(idle.since));
        let mut spared = Vec::new();
        self.http2.retain_mut(|line| {
            if line.sender.is_closed() {
                return false;
            }
            if line.seat.taken() > 0 {
                line.idle_since = None;
                return true;
            }
            let stays =
                is_young(*line.idle_since.get_or_insert(now)) && !spared.contains(&line.width);
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
            seat: Seat::default(),
            width,
            idle_since: None,
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
}
