//! Whose data directory it is. What the superuser writes into somebody else's, the server of that user cannot read.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where systemd keeps the state of services with users of their own; only the superuser gets past it.
const PRIVATE: &str = "/var/lib/private";

/// Another user, whom a data directory belongs to.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} belongs to uid {uid}, gid {gid}, and what is written there as root its server cannot read; start the server, \
     through which this command works as root too{}",
    self.or_else()
)]
pub(super) struct Foreign {
    path: PathBuf,
    uid: u32,
    gid: u32,
    is_private: bool,
}

impl Foreign {
    /// The owner of `data_dir`, where we are the superuser and it is not.
    pub(super) fn of(data_dir: &Path) -> io::Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let stat = match std::fs::metadata(data_dir) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if stat.uid() == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            path: data_dir.to_owned(),
            uid: stat.uid(),
            gid: stat.gid(),
            is_private: std::fs::canonicalize(data_dir)?.starts_with(PRIVATE),
        }))
    }

    fn or_else(&self) -> String {
        let (uid, gid) = (self.uid, self.gid);
        if self.is_private {
            // That user alone does not get there.
            return String::new();
        }
        format!(
            ", or run it as that user: setpriv --reuid={uid} --regid={gid} --clear-groups layby …"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_to_run_where_that_helps() {
        let mut foreign = Foreign {
            path: "/srv/layby".into(),
            uid: 7,
            gid: 8,
            is_private: false,
        };
        let told = foreign.to_string();
        for what in ["/srv/layby belongs to uid 7, gid 8", "start the server"] {
            assert!(told.contains(what), "{told}");
        }
        assert!(told.contains("setpriv --reuid=7 --regid=8 --clear-groups layby"));
        foreign.is_private = true;
        assert!(!foreign.to_string().contains("setpriv"));
    }
}
