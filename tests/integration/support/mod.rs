//! What the tests stand on: a client that sees every byte, Layby in this process and as a program, images, the disk.

mod client;
mod disk;
mod http2;
mod identity;
mod image;
mod instance;
mod message;
mod program;

use std::time::Duration;

use tokio::task::JoinSet;

pub(crate) use client::{Wire, download, get, pull};
pub(crate) use disk::{committed, verify_committed};
pub(crate) use http2::Http2;
pub(crate) use identity::Identity;
pub(crate) use image::{Image, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, index_of};
pub(crate) use instance::{Layby, Setup, UPSTREAM, blob_path, metric};
pub(crate) use message::{Download, End, Reply, Request};
pub(crate) use program::Program;

/// Waits for `future`, and fails the test when it takes longer than any right program needs.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|elapsed| panic!("waited in vain, {elapsed}: {what}"))
}

/// Asks again and again until `attempt` gives something: for what comes about without an event to wait for.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let trying = async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    };
    soon(what, trying).await
}

/// Has `work` go on beside the test; [`done`] waits for it.
pub(crate) fn beside<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinSet<T> {
    let mut set = JoinSet::new();
    set.spawn(work);
    set
}

/// What came of work [`beside`] the test; fails where it did.
pub(crate) async fn done<T: 'static>(mut work: JoinSet<T>) -> T {
    let ended = soon("work beside the test", work.join_next()).await;
    ended.expect("one task").expect("a task that did not fail")
}

const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// 1024 bytes.
pub(crate) const KIB: u64 = 1024;
/// 1024 KiB.
pub(crate) const MIB: u64 = 1024 * KIB;

/// Size of the blobs in tests about large ones. `LAYBY_TEST_LARGE` has them as large as real ones.
pub(crate) fn large() -> u64 {
    let wanted = !cfg!(debug_assertions) || std::env::var_os("LAYBY_TEST_LARGE").is_some();
    if wanted { 256 * MIB } else { 32 * MIB }
}
