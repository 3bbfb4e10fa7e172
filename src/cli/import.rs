//! `layby import`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures_util::{StreamExt as _, stream};

use super::admin::{AdminArgs, Failure, Output};
use super::table::{count, short, size};
use crate::bundle::Shelf;
use crate::proxy::admin::model::{ImportEvent, ImportReport, ImportRequest};
use crate::proxy::admin::{AdminError, Administration, Archive};
use crate::runtime::{PipeWriter, pipe};

/// Takes images from a file or directory into the cache and pins them: what `layby export` has written, any OCI image layout,
/// or what `docker save` has written; as a tar also compressed with zstd or gzip. Either all of it is imported or nothing.
#[derive(Debug, clap::Args)]
pub struct Import {
    #[command(flatten)]
    admin: AdminArgs,
    /// What the image is called, where that is not in the archive: docker.io/library/alpine:3.20
    #[arg(long = "as", value_name = "IMAGE")]
    name: Option<String>,
    /// Let the images be evicted like any other
    #[arg(long)]
    no_pin: bool,
    /// Where from; - for standard input
    #[arg(value_name = "FILE|DIR|-")]
    source: PathBuf,
}

impl Import {
    /// Exits with 1 where the archive is refused.
    pub fn run(self) -> ExitCode {
        let Self {
            admin,
            name,
            no_pin,
            source,
        } = self;
        admin.run_filling(async |administration, output| {
            let request = ImportRequest { name, pin: !no_pin };
            import(administration, output, request, &source).await
        })
    }
}

async fn import(
    administration: &dyn Administration,
    output: &Output,
    request: ImportRequest,
    source: &Path,
) -> Result<ExitCode, Failure> {
    let archive = open(source)?;
    let of = archive.len.map(|len| format!(" of {}", size(len)));
    let of = of.unwrap_or_default();
    let mut events = administration.import(request, archive).await?;
    while let Some(event) = events.next().await {
        match event? {
            ImportEvent::Progress { blobs, bytes } => {
                output.progress(&format!("{}, {}{of}", count(blobs, "blob"), size(bytes)));
            }
            ImportEvent::Failed { message } => {
                output.progress("");
                return Err(AdminError::Failed(message).into());
            }
            ImportEvent::Done(report) => {
                output.progress("");
                output.answer(&report, shown)?;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Err(AdminError::Unreachable("it ended without a result; see Layby's log".to_owned()).into())
}

/// The archive as a stream; where it can be read in any order, in the one that serves best.
fn open(source: &Path) -> Result<Archive, Failure> {
    if source == Path::new("-") {
        return Ok(archive(None, |out| io::copy(&mut io::stdin().lock(), out)));
    }
    let refused = |why: &dyn std::fmt::Display| {
        Failure::from(AdminError::Failed(format!("{}: {why}", source.display())))
    };
    if let Some(shelf) = Shelf::open(source).map_err(|fault| refused(&fault))? {
        let telling = shelf.telling().map_err(|fault| refused(&fault))?;
        let len = telling.len();
        return Ok(archive(Some(len), move |out| {
            telling.write(out).map(|()| len)
        }));
    }
    let mut file = File::open(source).map_err(|error| refused(&error))?;
    let found = file.metadata().map_err(|error| refused(&error))?;
    let len = found.is_file().then_some(found.len());
    Ok(archive(len, move |out| io::copy(&mut file, out)))
}

/// What `write` writes, on a thread of its own.
fn archive(
    len: Option<u64>,
    write: impl FnOnce(&mut PipeWriter) -> io::Result<u64> + Send + 'static,
) -> Archive {
    let (mut writer, reader) = pipe();
    // Ends with its source, or when nobody reads any more.
    tokio::task::spawn_blocking(move || {
        let written = write(&mut writer).and_then(|_| writer.flush());
        if let Err(error) = written
            && !writer.is_closed()
        {
            writer.fail(error);
        }
    });
    let pieces = stream::unfold(reader, async |mut reader| {
        let piece = reader.next().await?;
        Some((piece, reader))
    });
    Archive {
        len,
        pieces: Box::pin(pieces),
    }
}

fn shown(report: &ImportReport) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for image in &report.images {
        let _ = match &image.replaced {
            Some(before) => writeln!(
                text,
                "imported {}, which is {} now and was {}",
                image.image,
                short(&image.digest),
                short(before)
            ),
            None => writeln!(text, "imported {}", image.image),
        };
    }
    let _ = writeln!(
        text,
        "{}{}; {} new, {}; {} here before, {}",
        count(report.images.len() as u64, "image"),
        if report.pinned { ", pinned" } else { "" },
        count(report.new_blobs, "blob"),
        size(report.new_bytes),
        count(report.present_blobs, "blob"),
        size(report.present_bytes)
    );
    text
}
