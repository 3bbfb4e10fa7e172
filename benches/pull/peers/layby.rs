//! Layby, with its defaults but for the upstream and the addresses.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Contender, Setting};
use crate::Result;
use crate::bed::Bed;
use crate::client::Target;
use crate::process::{Process, free_address};

/// Its name in tables.
pub(crate) const LAYBY: &str = "layby";

/// How to start one.
#[derive(Debug, Default)]
pub(crate) struct Layby {
    /// Is asked over TLS.
    pub(crate) has_tls: bool,
    /// Requests for one blob at once; 0 for the default.
    pub(crate) parallel: u8,
    /// In place of an empty data directory.
    pub(crate) data: Option<PathBuf>,
}

impl Layby {
    /// Starts it; every request of a client is logged, as it is by default.
    pub(crate) fn start(self, bed: &Bed) -> Result<Contender> {
        let folder = bed.folder("layby-")?;
        let (plain, tls) = (free_address()?, free_address()?);
        let data = self.data.unwrap_or_else(|| folder.path().join("data"));
        let mut text = format!(
            "listen = \"{plain}\"\ndata_dir = \"{}\"\ndefault_upstream = \"origin.test\"\n\
             [admin]\nlisten = \"none\"\n\
             # However full the disk of the machine is.\n[cache]\nmin_free = \"0B\"\n\
             # No tag is asked about again within a run.\n\
             [upstreams.\"origin.test\"]\nurl = \"{}\"\ntag_ttl = \"1d\"\n",
            data.display(),
            bed.origin.url()
        );
        if self.parallel > 0 {
            let _ = writeln!(text, "parallel = {}", self.parallel);
        }
        if self.has_tls {
            let (certificate, key) = (&bed.identity.certificate, &bed.identity.key);
            let _ = write!(
                text,
                "[tls]\nlisten = \"{tls}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
                certificate.display(),
                key.display()
            );
        }
        let process = serve(&bed.peers.layby, folder.path(), &text)?;
        let mut contender = Contender {
            name: LAYBY,
            process: Some(process),
            settings: vec![Setting {
                what: String::new(),
                target: Target {
                    address: plain,
                    tls: None,
                },
            }],
            chosen: 0,
            _folder: Some(folder),
        };
        if self.has_tls {
            contender.settings[0].target = Target {
                address: tls,
                tls: Some(Arc::clone(&bed.identity.client)),
            };
        }
        let address = contender.target().address;
        if let Some(process) = &mut contender.process {
            process.until_it_listens(address)?;
        }
        Ok(contender)
    }
}

fn serve(program: &Path, folder: &Path, text: &str) -> Result<Process> {
    let config = folder.join("layby.toml");
    fs::write(&config, text)?;
    let args = ["serve".as_ref(), "--config".as_ref(), config.as_os_str()];
    Process::start(program, args, &folder.join("log"))
}
