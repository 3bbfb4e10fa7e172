//! The disk and the upstreams, as the traits that `flight` and the decisions own.

mod records;
mod registry;
mod store;
mod upstream;

#[cfg(test)]
mod tests;

use std::io;

pub(super) use records::StoreRecords;
pub(super) use store::{StoreBlobs, stage_of};
pub(super) use upstream::{UpstreamFailure, UpstreamSources};

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
}
