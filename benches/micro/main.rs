//! Small parts on the way of every request. Compare runs of the same machine: `cargo bench --bench micro`.

mod fan_out;
mod stored;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{Method, Uri};
use layby::oci::{Digest, Hasher, Route, range};

const BLOB: &str = "/v2/ghcr.io/org/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855?ns=ghcr.io";

fn route(c: &mut Criterion) {
    let uri = Uri::from_static(BLOB);
    c.bench_function("route a blob", |b| {
        b.iter(|| Route::parse(&Method::GET, black_box(&uri)));
    });
}

fn ranges(c: &mut Criterion) {
    let many: Vec<String> = (0..256)
        .map(|i| format!("{}-{}", i * 4096, i * 4096 + 1000))
        .collect();
    let header = format!("bytes={}", many.join(","));
    c.bench_function("parse and resolve 256 ranges", |b| {
        b.iter(|| range::parse(Some(black_box(header.as_bytes()))).resolve(1 << 30));
    });
}

fn digest(c: &mut Criterion) {
    let text = Digest::sha256(b"").to_string();
    c.bench_function("parse a digest", |b| {
        b.iter(|| black_box(&text).parse::<Digest>());
    });

    let bytes = vec![7; 1 << 20];
    let mut group = c.benchmark_group("hash 1 MiB as it comes");
    group.throughput(Throughput::Bytes(1 << 20));
    for algorithm in [layby::oci::Algorithm::Sha256, layby::oci::Algorithm::Sha512] {
        group.bench_function(format!("{algorithm:?}"), |b| {
            b.iter(|| {
                let mut hasher = Hasher::new(algorithm)?;
                for piece in black_box(&bytes).chunks(16 * 1024) {
                    hasher.update(piece);
                }
                Some(hasher.finish())
            });
        });
    }
    group.finish();
}

fn copy(c: &mut Criterion) {
    let bytes = vec![7; 1 << 20];
    let mut group = c.benchmark_group("hash 1 MiB while copying it");
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("Sha256", |b| {
        let mut target = vec![0; bytes.len()];
        b.iter(|| {
            let mut hasher = Hasher::new(layby::oci::Algorithm::Sha256)?;
            for (from, to) in black_box(&bytes)
                .chunks(16 * 1024)
                .zip(target.chunks_mut(16 * 1024))
            {
                to.copy_from_slice(from);
                hasher.update(from);
            }
            black_box(&target);
            Some(hasher.finish())
        });
    });
    group.finish();
}

criterion_group!(
    benches,
    route,
    ranges,
    digest,
    copy,
    stored::bench,
    fan_out::bench
);
criterion_main!(benches);
