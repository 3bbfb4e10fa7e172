//! Administration: what the cache holds, what it was good for, and changes by an operator's hand.
//!
//! Owns the pins, the statistics that outlive a restart, and every question that goes over all images. It reads
//! records and manifests straight from the store, a repository at a time, and notes no use; it never fetches, evicts
//! or decides what a client gets. [`Keeper`] answers in this process; whoever asks a running server from another one
//! implements [`Administration`] over the admin listener. Imports what `proxy` imports, and `store` itself.

mod describe;
mod digests;
mod export;
mod heal;
mod import;
mod keeper;
mod memory;
pub mod model;
mod names;
mod pins;
mod protection;
mod remove;
mod scrub;
mod statistics;
mod sweep;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

use model::{
    Collected, ExportPlan, ExportRequest, ImageDetail, ImagePage, ImportEvent, ImportRequest,
    PinChange, PinList, Refreshed, Removal, Statistics, VerifyEvent,
};

use super::warm::model::{WarmEvent, WarmRequest};

pub use keeper::Keeper;
pub(super) use memory::Memory;
pub(super) use names::{ImageName, Names};
pub use pins::{Pins, Protected};
pub(super) use protection::Protection;

/// An answer to come.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, AdminError>> + Send + 'a>>;

/// What a long action tells while it runs. Dropping it calls the action off.
pub type Events<T> = Pin<Box<dyn Stream<Item = Result<T, AdminError>> + Send>>;

/// A file that comes along with a request or an answer, read as it is used.
pub struct Archive {
    /// How many, where that is known.
    pub len: Option<u64>,
    /// They end with an error where they break off.
    pub pieces: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
}

/// All that an operator can ask for. Images are named as people name them; where several are taken, also by a pattern.
pub trait Administration: Send + Sync {
    /// A part of the list of images.
    fn images(&self, query: ImageQuery) -> Reply<'_, ImagePage>;

    /// All about one image.
    fn image<'a>(&'a self, name: &'a str) -> Reply<'a, ImageDetail>;

    /// What the cache holds and what it was good for.
    fn statistics(&self) -> Reply<'_, Statistics>;

    /// Removes images and what only they lead to, but for pinned ones; with `dry_run`, says what would go.
    fn remove<'a>(&'a self, images: &'a str, dry_run: bool) -> Reply<'a, Removal>;

    /// The pins.
    fn pins(&self) -> Reply<'_, PinList>;

    /// Keeps images from being evicted.
    fn pin<'a>(&'a self, images: &'a str) -> Reply<'a, PinChange>;

    /// Takes a pin away.
    fn unpin<'a>(&'a self, images: &'a str) -> Reply<'a, PinChange>;

    /// Evicts what is above `to` bytes, or without it what the limits and the age ask for; with `dry_run`, says what would
    /// go.
    fn collect(&self, to: Option<u64>, dry_run: bool) -> Reply<'_, Collected>;

    /// Has upstreams asked about tags at their next use.
    fn refresh<'a>(&'a self, images: &'a str) -> Reply<'a, Refreshed>;

    /// Brings images into the cache.
    fn warm(&self, request: WarmRequest) -> Reply<'_, Events<WarmEvent>>;

    /// What an export would hold.
    fn plan_export(&self, request: ExportRequest) -> Reply<'_, ExportPlan>;

    /// Images as a tar.
    fn export(&self, request: ExportRequest) -> Reply<'_, Archive>;

    /// Takes images in from an archive, all or none.
    fn import(&self, request: ImportRequest, archive: Archive) -> Reply<'_, Events<ImportEvent>>;

    /// Compares everything, or an image, with its digests.
    fn verify<'a>(&'a self, image: Option<&'a str>) -> Reply<'a, Events<VerifyEvent>>;
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Archive").field(&self.len).finish()
    }
}

/// Which part of the list of images is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageQuery {
    /// Most images; `None`: 1000. At most 10,000 are given.
    pub n: Option<usize>,
    /// The part before ended with this.
    pub last: Option<String>,
    /// Only this image, or those that this pattern matches.
    pub matching: Option<String>,
}

/// Why an operator does not get what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no such thing here.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done as it was asked for; the message says how it can.
    #[error("{0}")]
    Invalid(String),
    /// Another long action is under way.
    #[error("another action of this kind is running; wait for it to end")]
    Busy,
    /// It went wrong here.
    #[error("{0}")]
    Failed(String),
    /// The server gave no answer.
    #[error("{0}")]
    Unreachable(String),
    /// The server does not let us.
    #[error("{0}")]
    Denied(String),
}

impl AdminError {
    /// Its name in the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Invalid(_) => "invalid",
            Self::Busy => "busy",
            Self::Failed(_) => "failed",
            Self::Unreachable(_) => "unreachable",
            Self::Denied(_) => "denied",
        }
    }

    /// The error with this name in the API.
    pub fn from_code(code: &str, message: String) -> Self {
        match code {
            "not_found" => Self::NotFound(message),
            "invalid" => Self::Invalid(message),
            "busy" => Self::Busy,
            "denied" => Self::Denied(message),
            _ => Self::Failed(message),
        }
    }

    fn unknown_image(name: &ImageName) -> Self {
        Self::NotFound(format!(
            "{name} is not in the cache; `layby ls` says what is"
        ))
    }
}

impl From<io::Error> for AdminError {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!(
            "the data directory cannot be used: {error}; check the disk, and owner and mode of what is in it"
        ))
    }
}

/// Runs `work` where it may block.
async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, AdminError>
where
    T: Send + 'static,
    E: Into<AdminError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(io::Error::other(error).into()),
    }
}
