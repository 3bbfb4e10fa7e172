//! What every scenario stands on: the origin, the programs, a folder.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::Result;
use crate::args::{Args, Scale};
use crate::client::{self, Bodies};
use crate::content::Content;
use crate::identity::Identity;
use crate::origin::{Origin, Pace};
use crate::peers::{Contender, Programs};

/// The origin, the programs, and how much of everything.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) scale: Scale,
    pub(crate) origin: Origin,
    pub(crate) peers: Programs,
    pub(crate) identity: Identity,
    /// Blobs made so far, so that none is like another.
    made: AtomicU64,
    folder: TempDir,
}

impl Bed {
    /// Finds the programs, and says which are missing.
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("pull-")
            .tempdir_in(&args.data)?;
        let peers = Programs::find();
        for missing in peers.missing() {
            if args.all_peers {
                return Err(format!("not on this machine: {missing}").into());
            }
            eprintln!("not on this machine, left out: {missing}");
        }
        Ok(Self {
            scale: args.scale(),
            origin: Origin::start()?,
            peers,
            identity: Identity::new(folder.path())?,
            made: AtomicU64::new(0),
            folder,
        })
    }

    /// An empty folder.
    pub(crate) fn folder(&self, name: &str) -> Result<TempDir> {
        let builder = tempfile::Builder::new()
            .prefix(name)
            .tempdir_in(self.folder.path());
        Ok(builder?)
    }

    /// Where everything is written.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A blob that nobody has yet but the origin.
    pub(crate) fn blob(&self, len: u64) -> Arc<Content> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let blob = Arc::new(Content::noise(number, len));
        self.origin.put(blob.blob_path(), &blob);
        blob
    }

    /// What is done with bodies while time is taken.
    pub(crate) fn bodies(&self) -> Bodies {
        if self.scale.is_tiny {
            Bodies::Hash
        } else {
            Bodies::Discard
        }
    }

    /// How long a measurement of what is warm takes.
    pub(crate) fn while_warm(&self) -> Duration {
        Duration::from_secs_f64(self.scale.seconds)
    }

    /// These numbers of connections, as far as this run goes.
    pub(crate) fn connections(&self, wanted: &[usize]) -> Vec<usize> {
        let most = self.scale.connections;
        wanted.iter().copied().filter(|&n| n <= most).collect()
    }

    /// Pulls `content` once through each of `contenders`, so that they have it from then on, and looks at every byte.
    pub(crate) fn warm(
        &self,
        contenders: &[Contender],
        path: &str,
        content: &Content,
    ) -> Result<()> {
        self.origin.pace(Pace::Free);
        for contender in contenders {
            for target in contender.targets() {
                client::pull(target, path, content, Bodies::Hash)
                    .map_err(|error| format!("{}: {error}", contender.name))?;
            }
        }
        self.settle()
    }

    /// Has the disk finish what was written, so that it does not count against the next.
    pub(crate) fn settle(&self) -> Result<()> {
        if self.scale.is_tiny {
            return Ok(());
        }
        let folder = std::fs::File::open(self.root())?;
        Ok(rustix::fs::syncfs(folder)?)
    }
}
