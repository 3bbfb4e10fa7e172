//! From the start of the process to the first answers and to the end of the scan.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use super::make::{self, Made};
use super::program::{Program, binary, get};

/// What one start took.
#[derive(Debug)]
struct Start {
    listening_ms: u128,
    blob_ms: u128,
    tag_ms: u128,
    scan_ms: u64,
    memory: u64,
}

/// Measures directories of these sizes, made in `dir`.
pub(crate) fn run(sizes: &[u64], dir: &Path, keep: bool) -> io::Result<()> {
    println!("{}", binary().display());
    let empty = memory_when_empty(dir)?;
    for &size in sizes {
        let scratch = tempfile::tempdir_in(dir)?;
        let began = Instant::now();
        let made = make::make(&scratch.path().join("data"), size)?;
        println!(
            "{} blobs and {} tags, made in {:.1} s in {}",
            made.blobs,
            made.tags,
            began.elapsed().as_secs_f64(),
            scratch.path().display()
        );
        let cold = match drop_page_cache() {
            Ok(()) => "page cache dropped".to_owned(),
            Err(error) => format!("page cache not dropped ({error})"),
        };
        report(&cold, &measure(scratch.path(), &made)?, empty, &made);
        report(
            "once more, warm",
            &measure(scratch.path(), &made)?,
            empty,
            &made,
        );
        if keep {
            println!("kept in {}", scratch.keep().display());
        }
    }
    Ok(())
}

fn report(what: &str, start: &Start, empty: u64, made: &Made) {
    let own = start.memory.saturating_sub(empty);
    println!(
        "  {what}: listening after {} ms, first blob after {} ms, first tag after {} ms, scan {} ms, \
         memory {} KiB, {} bytes per blob",
        start.listening_ms,
        start.blob_ms,
        start.tag_ms,
        start.scan_ms,
        start.memory / 1024,
        own / made.blobs.max(1)
    );
}

fn measure(scratch: &Path, made: &Made) -> io::Result<Start> {
    let mut program = Program::start(scratch)?;
    let address = listening(&mut program)?;
    let listening_ms = program.started.elapsed().as_millis();
    get(address, &made.blob.0, &made.blob.1)?;
    let blob_ms = program.started.elapsed().as_millis();
    get(address, &made.tag.0, &made.tag.1)?;
    let tag_ms = program.started.elapsed().as_millis();
    let (scan_ms, memory) = scanned(&mut program)?;
    Ok(Start {
        listening_ms,
        blob_ms,
        tag_ms,
        scan_ms,
        memory,
    })
}

fn listening(program: &mut Program) -> io::Result<SocketAddr> {
    let address = program.logged("listening", "address")?;
    address.parse().map_err(io::Error::other)
}

/// Waits for the end of the scan: how long it took, and the memory that is held then.
fn scanned(program: &mut Program) -> io::Result<(u64, u64)> {
    let elapsed = program.logged("stored blobs counted", "elapsed_ms")?;
    let elapsed = elapsed.parse().map_err(io::Error::other)?;
    Ok((elapsed, program.memory()?))
}

/// What it holds with nothing stored.
fn memory_when_empty(dir: &Path) -> io::Result<u64> {
    let scratch = tempfile::tempdir_in(dir)?;
    fs::create_dir(scratch.path().join("data"))?;
    let mut program = Program::start(scratch.path())?;
    let (_, memory) = scanned(&mut program)?;
    Ok(memory)
}

/// Has every file read from the disk again.
fn drop_page_cache() -> io::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3\n")
}
