//! The CNCF's registry as a pull-through cache, Debian's `docker-registry`.

use std::fs;

use super::{Contender, Setting};
use crate::Result;
use crate::bed::Bed;
use crate::client::Target;
use crate::process::{Process, free_address};

/// As its documentation sets it up for this, without a log of requests; `None` if the machine lacks it.
pub(crate) fn distribution(bed: &Bed) -> Result<Option<Contender>> {
    let Some(program) = &bed.peers.distribution else {
        return Ok(None);
    };
    let folder = bed.folder("distribution-")?;
    let address = free_address()?;
    let config = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1\n\
         log: {{ level: error, accesslog: {{ disabled: true }} }}\n\
         storage:\n  cache: {{ blobdescriptor: inmemory }}\n  filesystem: {{ rootdirectory: {} }}\n\
         http: {{ addr: \"{address}\" }}\n\
         proxy: {{ remoteurl: \"{}\" }}\n",
        folder.path().join("data").display(),
        bed.origin.url()
    );
    fs::write(&config, text)?;
    let args = ["serve".as_ref(), config.as_os_str()];
    let mut process = Process::start(program, args, &folder.path().join("log"))?;
    process.until_it_listens(address)?;
    Ok(Some(Contender {
        name: "distribution",
        process: Some(process),
        settings: vec![Setting {
            what: String::new(),
            target: Target { address, tls: None },
        }],
        chosen: 0,
        _folder: Some(folder),
    }))
}
