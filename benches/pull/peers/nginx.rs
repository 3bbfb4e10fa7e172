//! nginx, as a server of files and as a cache: not a registry, but the mark for sending bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Contender, Setting, write_file};
use crate::Result;
use crate::bed::Bed;
use crate::client::Target;
use crate::content::Content;
use crate::process::{Process, free_address};

/// Serving files, each by its path, in every setting that may be its best, plain or over TLS; `None` if the machine lacks it.
pub(crate) fn nginx(
    bed: &Bed,
    files: &[(String, &Content)],
    has_tls: bool,
) -> Result<Option<Contender>> {
    let folder = bed.folder("nginx-")?;
    for (path, content) in files {
        write_file(&folder.path().join("files"), path, content)?;
    }
    let mut settings = Vec::new();
    let mut servers = String::new();
    for nopush in ["on", "off"] {
        for chunk in ["512k", "2m", "0"] {
            let (plain, tls) = (free_address()?, free_address()?);
            servers.push_str(&fill(
                include_str!("nginx-files.conf"),
                &[
                    ("plain", &plain.to_string()),
                    ("tls", &tls.to_string()),
                    (
                        "certificate",
                        &bed.identity.certificate.display().to_string(),
                    ),
                    ("key", &bed.identity.key.display().to_string()),
                    ("nopush", nopush),
                    ("chunk", chunk),
                    ("root", &folder.path().join("files").display().to_string()),
                ],
            ));
            settings.push(Setting {
                what: format!("tcp_nopush {nopush}, sendfile_max_chunk {chunk}"),
                target: Target {
                    address: if has_tls { tls } else { plain },
                    tls: has_tls.then(|| Arc::clone(&bed.identity.client)),
                },
            });
        }
    }
    let process = serve(bed, &folder, &servers, free_address()?)?;
    Ok(process.map(|process| contender("nginx", process, settings, folder)))
}

/// Caching what the origin has; `None` if the machine lacks it.
pub(crate) fn nginx_cache(bed: &Bed) -> Result<Option<Contender>> {
    let folder = bed.folder("nginx-")?;
    let cache = free_address()?;
    let settings = vec![Setting {
        what: String::new(),
        target: Target {
            address: cache,
            tls: None,
        },
    }];
    let process = serve(bed, &folder, "", cache)?;
    Ok(process.map(|process| contender("nginx cache", process, settings, folder)))
}

fn contender(
    name: &'static str,
    process: Process,
    settings: Vec<Setting>,
    folder: TempDir,
) -> Contender {
    Contender {
        name,
        process: Some(process),
        settings,
        chosen: 0,
        _folder: Some(folder),
    }
}

fn serve(bed: &Bed, folder: &TempDir, servers: &str, cache: SocketAddr) -> Result<Option<Process>> {
    let Some(program) = &bed.peers.nginx else {
        return Ok(None);
    };
    let is_root = rustix::process::geteuid().is_root();
    let config = fill(
        include_str!("nginx.conf"),
        &[
            ("folder", &folder.path().display().to_string()),
            // The workers must get at the data, which is this user's.
            ("user", if is_root { "user root;" } else { "" }),
            ("servers", servers),
            ("origin", &bed.origin.address().to_string()),
            ("cache", &cache.to_string()),
        ],
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, config)?;
    let args = [
        "-e".as_ref(),
        "stderr".as_ref(),
        "-c".as_ref(),
        file.as_os_str(),
    ];
    let mut process = Process::start(program, args, &folder.path().join("log"))?;
    process.until_it_listens(cache)?;
    Ok(Some(process))
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
}
