//! A store in memory and sources that do as they are told.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::flight::ports::{
    Blob, Blobs, Body, BoxFuture, Chunk, FetchError, Fetched, Leave, Remedy, Source, SourceFailure,
    Stage, StageError, StageId,
};
use crate::oci::Digest;

/// A store in memory.
#[derive(Debug)]
pub(super) struct MemoryBlobs {
    pub(super) blobs: Mutex<HashMap<Digest, Bytes>>,
    /// Blobs that appear after the first look that misses them.
    pub(super) after_first_look: Mutex<HashMap<Digest, Bytes>>,
    /// Commits wait for a permit.
    pub(super) commits: Semaphore,
    pub(super) full: AtomicBool,
    pub(super) broken: Arc<AtomicBool>,
}

impl Default for MemoryBlobs {
    fn default() -> Self {
        Self {
            blobs: Mutex::default(),
            after_first_look: Mutex::default(),
            commits: Semaphore::new(1000),
            full: AtomicBool::new(false),
            broken: Arc::default(),
        }
    }
}

impl Blobs for MemoryBlobs {
    fn open<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, io::Result<Option<Arc<dyn Blob>>>> {
        Box::pin(async move {
            let found = self.blobs.lock().get(digest).cloned();
            if let Some(late) = self.after_first_look.lock().remove(digest) {
                self.blobs.lock().insert(digest.clone(), late);
            }
            Ok(found.map(|bytes| Arc::new(MemoryBlob(bytes)) as Arc<dyn Blob>))
        })
    }

    fn resume<'a>(
        &'a self,
        _: &'a StageId,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Stage>>, StageError>> {
        Box::pin(async { Ok(None) })
    }

    fn stage<'a>(
        &'a self,
        _: &'a StageId,
        len: Option<u64>,
    ) -> BoxFuture<'a, Result<Arc<dyn Stage>, StageError>> {
        Box::pin(async move {
            if self.full.load(Ordering::SeqCst) {
                return Err(StageError::NoRoom {
                    needed: len.unwrap_or(0),
                });
            }
            let stage = MemoryStage {
                len,
                bytes: Mutex::default(),
                broken: Arc::clone(&self.broken),
            };
            Ok(Arc::new(stage) as Arc<dyn Stage>)
        })
    }

    fn commit<'a>(
        &'a self,
        stage: Arc<dyn Stage>,
        len: u64,
        digest: &'a Digest,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            self.commits.acquire().await.unwrap().forget();
            let Chunk::Bytes(bytes) = stage.chunk(0..len) else {
                panic!("a stage in memory")
            };
            self.blobs.lock().insert(digest.clone(), bytes);
            Ok(())
        })
    }
}

#[derive(Debug)]
struct MemoryBlob(Bytes);

impl Blob for MemoryBlob {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Chunk>> {
        Box::pin(async move { Ok(Chunk::Bytes(self.0.slice(positions(&range)))) })
    }
}

fn positions(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

#[derive(Debug)]
struct MemoryStage {
    len: Option<u64>,
    bytes: Mutex<Vec<u8>>,
    broken: Arc<AtomicBool>,
}

impl Stage for MemoryStage {
    fn len(&self) -> Option<u64> {
        self.len
    }

    fn present(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = positions(&(offset..offset + buffer.len() as u64));
        buffer.copy_from_slice(&self.bytes.lock()[at]);
        Ok(())
    }

    fn close(&self, _: Leave) {}

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut all = self.bytes.lock();
        let at = positions(&(offset..offset + bytes.len() as u64));
        if all.len() < at.end {
            all.resize(at.end, 0);
        }
        all[at].copy_from_slice(bytes);
        Ok(())
    }

    fn chunk(&self, range: Range<u64>) -> Chunk {
        Chunk::Bytes(Bytes::copy_from_slice(
            &self.bytes.lock()[positions(&range)],
        ))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Why a scripted source failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failed(pub(super) &'static str);

impl SourceFailure for Failed {
    fn reason(&self) -> &'static str {
        self.0
    }

    fn remedy(&self) -> Remedy {
        match self.0 {
            "unavailable" => Remedy::Again(Duration::ZERO),
            "rate_limited" => Remedy::Again(Duration::from_secs(30)),
            "denied" => Remedy::Renew,
            _ => Remedy::None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Sends what the test sends into it.
pub(super) type Sending = mpsc::Sender<Result<Bytes, FetchError>>;

enum Answer {
    Refuse(&'static str),
    Panic,
    Send {
        start: u64,
        total: Option<u64>,
        body: mpsc::Receiver<Result<Bytes, FetchError>>,
    },
}

/// A source that gives the answers that were put into it, in order.
pub(super) struct Scripted {
    key: &'static str,
    answers: Mutex<VecDeque<Answer>>,
    pub(super) asked: Mutex<Vec<Option<Range<u64>>>>,
    pub(super) delivered: AtomicUsize,
    pub(super) parallel: AtomicUsize,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key)
    }
}

impl Scripted {
    pub(super) fn new(key: &'static str) -> Arc<Self> {
        Arc::new(Self {
            key,
            answers: Mutex::default(),
            asked: Mutex::default(),
            delivered: AtomicUsize::new(0),
            parallel: AtomicUsize::new(1),
        })
    }

    pub(super) fn refuses(&self, why: &'static str) {
        self.answers.lock().push_back(Answer::Refuse(why));
    }

    pub(super) fn panics(&self) {
        self.answers.lock().push_back(Answer::Panic);
    }

    /// An answer whose body the test sends.
    pub(super) fn sends(&self, start: u64, total: Option<u64>) -> Sending {
        let (sender, body) = mpsc::channel(1000);
        self.answers
            .lock()
            .push_back(Answer::Send { start, total, body });
        sender
    }

    /// An answer with all of `bytes`.
    pub(super) fn sends_all(&self, bytes: &Bytes) {
        let sending = self.sends(0, Some(bytes.len() as u64));
        for start in (0..bytes.len()).step_by(100_000) {
            let part = bytes.slice(start..bytes.len().min(start + 100_000));
            sending.try_send(Ok(part)).unwrap();
        }
    }

    pub(super) fn times_asked(&self) -> usize {
        self.asked.lock().len()
    }
}

impl Source for Scripted {
    fn key(&self) -> &str {
        self.key
    }

    fn parallel(&self) -> usize {
        self.parallel.load(Ordering::SeqCst)
    }

    fn fetch(
        &self,
        range: Option<Range<u64>>,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        self.asked.lock().push(range);
        let answer = self.answers.lock().pop_front();
        Box::pin(async move {
            match answer {
                None => Err(Arc::new(Failed("no answer left")) as FetchError),
                Some(Answer::Refuse(why)) => Err(Arc::new(Failed(why)) as FetchError),
                Some(Answer::Panic) => panic!("on purpose"),
                Some(Answer::Send { start, total, body }) => Ok(Fetched {
                    start,
                    total,
                    body: Box::new(ChannelBody(body)),
                }),
            }
        })
    }

    fn delivered(&self) -> BoxFuture<'_, ()> {
        self.delivered.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {})
    }
}

struct ChannelBody(mpsc::Receiver<Result<Bytes, FetchError>>);

impl Body for ChannelBody {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, FetchError>>> {
        Box::pin(self.0.recv())
    }
}
