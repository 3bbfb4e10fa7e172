//! Many connections at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Bodies, Connection, Pull, Target, pull, request};
use crate::Result;
use crate::content::Content;

/// What went over all connections in a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
    /// CPU seconds that the server took for it.
    pub(crate) cpu: f64,
}

/// The requests of all connections in a while.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    /// Of each request, from the shortest.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) time: Duration,
}

impl Requests {
    /// The latency that so many of a hundred requests did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() * percent / 100).min(last);
        self.latencies.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.time.as_secs_f64()
    }
}

/// Pulls `content` over and over on so many connections; what comes in `time`. `cpu` tells the server's CPU seconds so
/// far.
pub(crate) fn stream(
    target: &Target,
    content: &Content,
    connections: usize,
    time: Duration,
    cpu: impl Fn() -> f64,
) -> Result<Volume> {
    let (bytes, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let started = Barrier::new(connections + 1);
    let request = request(target, &content.blob_path(), None);
    thread::scope(|scope| {
        let puller = || -> Result<()> {
            let opened = Connection::open(target);
            started.wait();
            let mut connection = opened?;
            while !is_over.load(Ordering::Relaxed) {
                connection.send(&request)?;
                let head = connection.head()?.of(content)?;
                connection.body(head, content, Bodies::Discard, |got| {
                    bytes.fetch_add(got, Ordering::Relaxed);
                    !is_over.load(Ordering::Relaxed)
                })?;
            }
            Ok(())
        };
        let pullers = spawn(scope, connections, puller)?;
        started.wait();
        thread::sleep(RAMP);
        let (start, cpu_before, before) = (Instant::now(), cpu(), bytes.load(Ordering::Relaxed));
        thread::sleep(time);
        let (time, cpu_after, after) = (start.elapsed(), cpu(), bytes.load(Ordering::Relaxed));
        is_over.store(true, Ordering::Relaxed);
        join(pullers)?;
        Ok(Volume {
            bytes: after - before,
            time,
            cpu: cpu_after - cpu_before,
        })
    })
}

/// What connections need to come up to speed, before anything is counted.
const RAMP: Duration = Duration::from_millis(50);

/// Asks for `content` by `path`, over and over, on so many connections, one request at a time on each.
pub(crate) fn requests(
    target: &Target,
    path: &str,
    content: &Content,
    connections: usize,
    time: Duration,
) -> Result<Requests> {
    let is_over = AtomicBool::new(false);
    let started = Barrier::new(connections + 1);
    let request = request(target, path, None);
    thread::scope(|scope| {
        let asker = || -> Result<Vec<Duration>> {
            let opened = Connection::open(target);
            started.wait();
            let mut connection = opened?;
            let mut latencies = Vec::with_capacity(64 * 1024);
            while !is_over.load(Ordering::Relaxed) {
                let sent = Instant::now();
                connection.get(&request, content, Bodies::Discard)?;
                latencies.push(sent.elapsed());
            }
            Ok(latencies)
        };
        let askers = spawn(scope, connections, asker)?;
        started.wait();
        let start = Instant::now();
        thread::sleep(time);
        let time = start.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let mut latencies = join(askers)?.concat();
        latencies.sort_unstable();
        Ok(Requests { latencies, time })
    })
}

/// Pulls `content` by so many clients that start at once; each one's pull.
pub(crate) fn herd(
    target: &Target,
    content: &Content,
    clients: usize,
    bodies: Bodies,
) -> Result<Vec<Pull>> {
    let started = Barrier::new(clients);
    let path = content.blob_path();
    thread::scope(|scope| {
        let client = || {
            started.wait();
            pull(target, &path, content, bodies)
        };
        join(spawn(scope, clients, client)?)
    })
}

/// Pulls each of `blobs` once, over so many connections; the time that it takes.
pub(crate) fn many(
    target: &Target,
    blobs: &[Arc<Content>],
    connections: usize,
    bodies: Bodies,
) -> Result<Duration> {
    let queue: Mutex<VecDeque<&Content>> = Mutex::new(blobs.iter().map(|blob| &**blob).collect());
    let start = Instant::now();
    thread::scope(|scope| {
        let puller = || -> Result<()> {
            let mut connection = Connection::open(target)?;
            loop {
                let next = queue.lock().pop_front();
                let Some(blob) = next else {
                    return Ok(());
                };
                let request = request(target, &blob.blob_path(), None);
                connection.get(&request, blob, bodies)?;
            }
        };
        join(spawn(scope, connections, puller)?)
    })?;
    Ok(start.elapsed())
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    work: impl Fn() -> Result<T> + Copy + Send + 'scope,
) -> Result<Vec<ScopedJoinHandle<'scope, Result<T>>>> {
    let thread = || Builder::new().stack_size(STACK).spawn_scoped(scope, work);
    Ok((0..count)
        .map(|_| thread())
        .collect::<std::io::Result<_>>()?)
}

fn join<T>(threads: Vec<ScopedJoinHandle<'_, Result<T>>>) -> Result<Vec<T>> {
    let ended = threads.into_iter().map(ScopedJoinHandle::join);
    ended
        .map(|ended| ended.unwrap_or_else(|_| Err("a thread of the client has panicked".into())))
        .collect()
}

const STACK: usize = 256 * 1024;
