//! What the tests stand on: a client that sees every byte, Layby in this process and as a program, images, the disk.

mod client;
mod disk;
mod identity;
mod image;

use std::time::Duration;

pub(crate) use client::{End, Head, Reply, Request, Wire, download, get};
pub(crate) use disk::{committed, verify_committed};
pub(crate) use identity::Identity;
pub(crate) use image::{Image, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, index_of};

/// Waits for `future`, and fails the test when it takes longer than any right program needs.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain: {what}", PATIENCE.as_secs()),
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Kibibytes and mebibytes.
pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;
