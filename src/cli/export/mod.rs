//! `layby export`.

mod sink;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use futures_util::StreamExt as _;

use super::admin::{AdminArgs, Failure, Output};
use super::named::text_of;
use super::table::{count, size};
use crate::bundle::{self, List};
use crate::images;
use crate::proxy::admin::model::{ExportPlan, ExportRequest};
use crate::proxy::admin::{AdminError, Administration, Archive};
use crate::runtime::pipe;

use sink::{Format, Sink};

/// Writes images to a file or a directory that `layby import`, skopeo, podman and others read: an OCI image layout, the same
/// bytes for the same images. Only platforms that are here whole are taken.
#[derive(Debug, clap::Args)]
pub struct Export {
    #[command(flatten)]
    admin: AdminArgs,
    /// Where to: images.tar, images.tar.zst, a directory (there already, or written with a / at its end), or - for standard output
    #[arg(short, long, value_name = "FILE|DIR|-")]
    output: PathBuf,
    /// What to write, instead of what the output's name says
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// File with names of images, one on each line, # before comments; - for standard input
    #[arg(short = 'f', long = "file", value_name = "LIST")]
    lists: Vec<PathBuf>,
    /// All images in the cache
    #[arg(long)]
    all: bool,
    /// All pinned images
    #[arg(long)]
    pinned: bool,
    /// Leave out what this earlier export holds, or this list of one, and the other side has
    #[arg(long, value_name = "EXPORT|LIST")]
    since: Vec<PathBuf>,
    /// Also write a list of what the other side has with this export, for a later --since
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Images, or patterns: alpine:3.20, 'docker.io/library/*:*'
    #[arg(value_name = "IMAGE|PATTERN", required_unless_present_any = ["lists", "all", "pinned"])]
    images: Vec<String>,
}

impl Export {
    /// Exits with 1 where an image that was named is not here whole.
    pub fn run(self) -> ExitCode {
        let Self {
            admin,
            output: to,
            format,
            lists,
            all,
            pinned,
            since,
            list,
            images,
        } = self;
        admin.run(async |administration, output| {
            let sink = Sink::new(&to, format)?;
            if list.is_some() && !sink.is_lasting() {
                return Err(wrong(
                    "--list needs an export that can be read again: give -o the name of a file or a directory",
                ));
            }
            let mut request = ExportRequest {
                images,
                all,
                pinned,
                ..ExportRequest::default()
            };
            for list in &lists {
                request.images.extend(names_in(list)?);
            }
            let known = what_is_there(&since)?;
            request.without = known.blobs.iter().cloned().collect();
            request.bases = known.exports.iter().cloned().collect();
            let plan = administration.plan_export(request.clone()).await?;
            request.index = Some(plan.index.clone());
            request.without.extend(sink.present()?);
            write(administration, output, request, &sink).await?;
            if let Some(path) = &list {
                let mut all = known;
                all.extend(read_since(&to)?);
                fs::write(path, all.to_text()).map_err(|error| of_file(path, &error))?;
            }
            tell(output, &plan, &sink)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Has the archive written, and shows how far that is.
async fn write(
    administration: &dyn Administration,
    output: &Output,
    request: ExportRequest,
    sink: &Sink,
) -> Result<(), Failure> {
    let Archive { len, mut pieces } = administration.export(request).await?;
    let len = len.ok_or_else(|| {
        AdminError::Unreachable("the answer does not say how long it is".to_owned())
    })?;
    let (writer, reader) = pipe();
    let to = sink.clone();
    let writing = tokio::task::spawn_blocking(move || to.write(reader, len));
    let mut done = 0_u64;
    while let Some(piece) = pieces.next().await {
        done = done.saturating_add(piece.as_ref().map_or(0, |piece| piece.len() as u64));
        let is_last = piece.is_err();
        if !writer.send(piece).await || is_last {
            break;
        }
        output.progress(&format!("{} of {}", size(done), size(len)));
    }
    drop(writer);
    output.progress("");
    let written = writing.await.map_err(io::Error::other);
    written
        .and_then(|written| written)
        .map_err(|error| AdminError::Failed(format!("nothing was exported: {error}")).into())
}

fn tell(output: &Output, plan: &ExportPlan, sink: &Sink) -> Result<(), Failure> {
    let text = if output.json {
        output.json_of(plan)? + "\n"
    } else {
        shown(plan)
    };
    if sink.is_stdout() {
        // Standard output is the export itself.
        eprint!("{text}");
        return Ok(());
    }
    output.text(&text)
}

fn shown(plan: &ExportPlan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for image in &plan.images {
        let mut about = image.platforms.join(", ");
        if !image.absent.is_empty() {
            about = format!("{about}; not here: {}", image.absent.join(", "));
        }
        let _ = match &*about {
            "" => writeln!(text, "exported {}", image.image),
            about => writeln!(text, "exported {} ({about})", image.image),
        };
    }
    for passed_over in &plan.passed_over {
        let _ = writeln!(
            text,
            "passed over {}: {}",
            passed_over.image, passed_over.why
        );
    }
    let _ = writeln!(
        text,
        "{} in {}, {}",
        count(plan.images.len() as u64, "image"),
        count(plan.blobs, "blob"),
        size(plan.bytes)
    );
    if plan.left_out_blobs > 0 {
        let _ = writeln!(
            text,
            "left out: {}, {}, which the other side needs to have",
            count(plan.left_out_blobs, "blob"),
            size(plan.left_out_bytes)
        );
    }
    text
}

/// The names in a list.
fn names_in(path: &Path) -> Result<Vec<String>, Failure> {
    let text = text_of(path).map_err(|error| of_file(path, &error))?;
    Ok(images::lines(&text)
        .map(|(_, name)| name.to_owned())
        .collect())
}

fn what_is_there(since: &[PathBuf]) -> Result<List, Failure> {
    let mut known = List::default();
    for path in since {
        known.extend(read_since(path)?);
    }
    Ok(known)
}

fn read_since(path: &Path) -> Result<List, Failure> {
    bundle::since(path).map_err(|fault| wrong(&format!("{}: {fault}", path.display())))
}

fn of_file(path: &Path, error: &io::Error) -> Failure {
    AdminError::Failed(format!("{}: {error}", path.display())).into()
}

fn wrong(message: &str) -> Failure {
    AdminError::Invalid(message.to_owned()).into()
}
