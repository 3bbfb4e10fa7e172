//! One flight and its readers, without disk and network: what each further reader costs.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use layby::flight::ports::{
    Blob, Blobs, Body, BoxFuture, Chunk, FetchError, Fetched, Leave, Pace, Source, Stage,
    StageError, StageId,
};
use layby::flight::{Flights, Key, Opened, Wanted, Wish};
use layby::oci::Digest;
use layby::runtime::Tasks;
use layby::telemetry::Metrics;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::Instant;

const SIZE: usize = 8 << 20;
const PIECE: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything reads all of an 8 MiB blob that a source gives as fast as it is taken.
pub(crate) fn bench(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let content = Bytes::from(vec![7; SIZE]);
    let digest = Digest::sha256(&content);
    let mut group = c.benchmark_group("fetch 8 MiB for readers");
    group.sample_size(10);
    for readers in [1, 10, 100, 1_000] {
        group.throughput(Throughput::Bytes((SIZE * readers) as u64));
        group.bench_function(BenchmarkId::from_parameter(readers), |b| {
            let blobs = Arc::new(Memory(content.clone()));
            let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::default()));
            let flights = Flights::new(blobs, tasks, metrics, PATIENCE, None).expect("threads");
            let wish = Wish {
                key: Key {
                    upstream: "origin.test".parse().expect("a name"),
                    digest: digest.clone(),
                },
                source: Arc::new(Given(content.clone())),
                proven: true,
                wanted: Wanted::Whole,
            };
            b.iter(|| runtime.block_on(herd(&flights, &wish, readers)));
        });
    }
    group.finish();
}

/// So many readers of one flight. The first to ask is sure to start it, and none comes too late: all have a place in it
/// before anyone reads.
async fn herd(flights: &Arc<Flights>, wish: &Wish, readers: usize) {
    let mut places = Vec::with_capacity(readers);
    for _ in 0..readers {
        let opened = flights
            .open(wish, None)
            .await
            .expect("memory does not fail");
        // A flight that has ended in the meantime makes the next reader the first of another.
        let Opened::Flight { handle, .. } = opened else {
            unreachable!("nothing is ever stored")
        };
        places.push(handle);
    }
    let mut reading = JoinSet::new();
    for handle in places {
        reading.spawn(async move {
            let head = handle.head(Instant::now() + PATIENCE).await;
            assert!(head.is_ok(), "no head");
            let (mut reader, mut got) = (handle.reader(None), 0);
            while let Some(chunk) = reader.next().await {
                got += chunk.expect("memory does not fail").len();
            }
            assert_eq!(got, SIZE as u64);
        });
    }
    while let Some(read) = reading.join_next().await {
        read.expect("a reader got everything");
    }
}

/// A store that has this content wherever something was written, and keeps nothing.
#[derive(Debug)]
struct Memory(Bytes);

impl Blobs for Memory {
    fn open<'a>(&'a self, _: &'a Digest) -> BoxFuture<'a, io::Result<Option<Arc<dyn Blob>>>> {
        Box::pin(async { Ok(None) })
    }

    fn commits(&self) -> u64 {
        0
    }

    fn lacks(&self, _: &Digest) -> bool {
        true
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
        _: Option<u64>,
    ) -> BoxFuture<'a, Result<Arc<dyn Stage>, StageError>> {
        let stage: Arc<dyn Stage> = Arc::new(Place(self.0.clone()));
        Box::pin(async { Ok(stage) })
    }

    fn commit<'a>(
        &'a self,
        _: Arc<dyn Stage>,
        _: u64,
        _: &'a Digest,
    ) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Debug)]
struct Place(Bytes);

impl Place {
    fn slice(&self, range: Range<u64>) -> Bytes {
        let at = |offset: u64| usize::try_from(offset).map_or(SIZE, |offset| offset.min(SIZE));
        self.0.slice(at(range.start)..at(range.end))
    }
}

impl Stage for Place {
    fn len(&self) -> Option<u64> {
        Some(SIZE as u64)
    }

    fn present(&self) -> Vec<Range<u64>> {
        Vec::new()
    }

    fn write_at(&self, _: u64, _: &[io::IoSlice<'_>]) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.copy_from_slice(&self.slice(offset..offset + buffer.len() as u64));
        Ok(())
    }

    fn chunk(&self, range: Range<u64>) -> Chunk {
        Chunk::Bytes(self.slice(range))
    }

    fn close(&self, _: Leave) {}

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[derive(Debug)]
struct Given(Bytes);

impl Source for Given {
    fn key(&self) -> &'static str {
        "bench/app"
    }

    fn parallel(&self) -> usize {
        1
    }

    fn negative_ttl(&self) -> Duration {
        Duration::ZERO
    }

    fn fetch(
        &self,
        range: Option<Range<u64>>,
        _: Pace,
        _: Instant,
    ) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        let at = |offset: u64| usize::try_from(offset).map_or(SIZE, |offset| offset.min(SIZE));
        let part = range.clone().unwrap_or(0..SIZE as u64);
        let fetched = Fetched {
            start: part.start,
            is_part: range.is_some(),
            total: Some(SIZE as u64),
            body: Box::new(Pieces(self.0.slice(at(part.start)..at(part.end)))),
        };
        Box::pin(async { Ok(fetched) })
    }

    fn delivered(&self, _: u64) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

struct Pieces(Bytes);

impl Body for Pieces {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, FetchError>>> {
        Box::pin(async {
            let piece = self.0.split_to(self.0.len().min(PIECE));
            // As a socket would, now and then: others have their turn.
            tokio::task::yield_now().await;
            (!piece.is_empty()).then_some(Ok(piece))
        })
    }

    fn slow_down(&mut self) -> bool {
        true
    }
}
