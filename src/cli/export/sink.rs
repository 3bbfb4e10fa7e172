//! Where an export goes: it is there whole, or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::bundle::{Found, Member, Members, OCI_LAYOUT};
use crate::cli::admin::Failure;
use crate::oci::{Digest, Hasher};
use crate::proxy::admin::AdminError;
use crate::runtime::PipeReader;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A tar
    Tar,
    /// A tar, compressed with zstd
    #[value(name = "tar.zst")]
    Zstd,
    /// A directory
    Dir,
}

/// Where it goes.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    /// `None`: standard output.
    path: Option<PathBuf>,
    format: Format,
}

/// Bytes of a stream, counted.
struct Counted<R> {
    source: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count = self.count.saturating_add(count as u64);
        Ok(count)
    }
}

impl Sink {
    /// What the name says, or else `format`.
    pub(super) fn new(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::from(AdminError::Invalid(message));
        if path == Path::new("-") || path == Path::new("/dev/stdout") {
            return match format.unwrap_or(Format::Tar) {
                Format::Dir => Err(wrong("a directory cannot go to standard output".to_owned())),
                format => Ok(Self { path: None, format }),
            };
        }
        let name = path.as_os_str().as_encoded_bytes();
        let is_dir = name.ends_with(b"/") || fs::metadata(path).is_ok_and(|found| found.is_dir());
        let ends = |end: &str| name.ends_with(end.as_bytes());
        let said = match format {
            Some(format) => format,
            None if is_dir => Format::Dir,
            None if ends(".tar.zst") || ends(".tzst") => Format::Zstd,
            None if ends(".tar") => Format::Tar,
            None => {
                return Err(wrong(format!(
                    "{} does not say what to write: give it the end .tar, .tar.zst or /, or --format",
                    path.display()
                )));
            }
        };
        if is_dir && said != Format::Dir {
            return Err(wrong(format!("{} is a directory", path.display())));
        }
        Ok(Self {
            path: Some(path.to_owned()),
            format: said,
        })
    }

    pub(super) fn is_stdout(&self) -> bool {
        self.path.is_none()
    }

    /// Whether what is written can be read again afterwards: not from a pipe or a device.
    pub(super) fn is_lasting(&self) -> bool {
        let path = self.path.as_deref();
        path.is_some_and(|path| !is_special(path))
    }

    /// Blobs that are there already, whole: an export into a directory that broke off goes on.
    pub(super) fn present(&self) -> Result<Vec<Digest>, Failure> {
        let Some(dir) = self.path.as_ref().filter(|_| self.format == Format::Dir) else {
            return Ok(Vec::new());
        };
        let failed = |error: io::Error| {
            Failure::from(AdminError::Failed(format!("{}: {error}", dir.display())))
        };
        check_directory(dir).map_err(failed)?;
        let mut present = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let entries = match fs::read_dir(dir.join("blobs").join(algorithm)) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                let name = format!("{algorithm}:{}", name.to_string_lossy());
                if let Ok(digest) = name.parse::<Digest>()
                    && is_sound(&entry.path(), &digest).map_err(failed)?
                {
                    present.push(digest);
                }
            }
        }
        Ok(present)
    }

    /// Writes the tar of `len` bytes that `source` gives. What was there before stays until the new is whole. Blocks.
    pub(super) fn write(&self, source: PipeReader, len: u64) -> io::Result<()> {
        let mut source = Counted { source, count: 0 };
        match (&self.path, self.format) {
            (Some(dir), Format::Dir) => write_directory(dir, &mut source, len),
            (Some(path), _) if is_special(path) => self.write_into(path, &mut source, len),
            (Some(path), _) => {
                // Where it is a link to a file, that file is replaced, and the link stays.
                let real = fs::canonicalize(path);
                self.write_file(real.as_deref().unwrap_or(path), &mut source, len)
            }
            (None, _) => {
                let mut out = io::stdout().lock();
                self.copy(&mut source, &mut out, len)?;
                out.flush()
            }
        }
    }

    fn write_file(
        &self,
        path: &Path,
        source: &mut Counted<PipeReader>,
        len: u64,
    ) -> io::Result<()> {
        let partial = beside(path);
        let written = File::create(&partial).and_then(|mut file| {
            self.copy(source, &mut file, len)?;
            file.sync_all()?;
            fs::rename(&partial, path)?;
            sync_parent(path)
        });
        written.map_err(|error| {
            // It is worth nothing, and may not even be there.
            let _ = fs::remove_file(&partial);
            at(path, &error)
        })
    }

    /// Into what is there and is no file: putting another in its place would take it from everybody else.
    fn write_into(
        &self,
        path: &Path,
        source: &mut Counted<PipeReader>,
        len: u64,
    ) -> io::Result<()> {
        let opened = File::options().write(true).open(path);
        let written = opened.and_then(|mut out| self.copy(source, &mut out, len));
        written.map_err(|error| at(path, &error))
    }

    fn copy(
        &self,
        source: &mut Counted<PipeReader>,
        out: &mut dyn Write,
        len: u64,
    ) -> io::Result<()> {
        if self.format == Format::Zstd {
            // One thread and one level: the same bytes on every machine.
            let mut encoder = zstd::stream::write::Encoder::new(out, LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.set_pledged_src_size(Some(len))?;
            io::copy(source, &mut encoder)?;
            is_whole(source, len)?;
            encoder.finish()?;
        } else {
            io::copy(source, out)?;
            is_whole(source, len)?;
        }
        Ok(())
    }
}

/// A stream that ends early is no end.
fn is_whole(source: &Counted<PipeReader>, len: u64) -> io::Result<()> {
    if source.count == len {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{} of {len} bytes came; export again", source.count),
    ))
}

/// Blobs first; what lists the images last, once all that it lists is durable.
fn write_directory(dir: &Path, source: &mut Counted<PipeReader>, len: u64) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| at(dir, &error))?;
    let mut documents = Vec::new();
    {
        let mut members = Members::of(&mut *source).map_err(io::Error::other)?;
        while let Some(entry) = members.next_entry().map_err(io::Error::other)? {
            match entry.found {
                Found::File(Member::Blob(digest)) => {
                    let mut content = Content(&mut members);
                    write_blob(dir, &digest, &mut content)?;
                }
                Found::File(document) => {
                    let bytes = members.document(&document, entry.len);
                    documents.push((document, bytes.map_err(io::Error::other)?));
                }
                Found::Alias { .. } => {}
            }
        }
    }
    is_whole(source, len)?;
    for shard in ["blobs/sha256", "blobs/sha512", "blobs"] {
        sync_directory(&dir.join(shard))?;
    }
    let has_docker = documents
        .iter()
        .any(|(document, _)| *document == Member::DockerManifest);
    if !has_docker {
        remove(&dir.join(Member::DockerManifest.to_string()))?;
    }
    documents.sort_by_key(|(document, _)| *document == Member::Index);
    for (document, bytes) in documents {
        let path = dir.join(document.to_string());
        put(&path, &mut &bytes[..])?;
    }
    sync_directory(dir)?;
    sync_parent(dir)
}

struct Content<'a, R: Read>(&'a mut Members<crate::bundle::Stream<R>>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
    }
}

fn write_blob(dir: &Path, digest: &Digest, content: &mut dyn Read) -> io::Result<()> {
    let dir = dir.join("blobs").join(digest.algorithm_name());
    fs::create_dir_all(&dir).map_err(|error| at(&dir, &error))?;
    put(&dir.join(digest.encoded()), content)
}

/// Writes a file that is there whole, or as it was before.
fn put(path: &Path, content: &mut dyn Read) -> io::Result<()> {
    let partial = beside(path);
    let put = File::create(&partial).and_then(|mut file| {
        io::copy(content, &mut file)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    });
    put.map_err(|error| {
        // It is worth nothing, and may not even be there.
        let _ = fs::remove_file(&partial);
        at(path, &error)
    })
}

/// Whether it may be written to: nothing of somebody else's is in it.
fn check_directory(dir: &Path) -> io::Result<()> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_layout =
        fs::metadata(dir.join(OCI_LAYOUT)).is_ok() || fs::metadata(dir.join("blobs")).is_ok();
    if is_layout || entries.next().is_none() {
        return Ok(());
    }
    Err(io::Error::other(
        "it is neither empty nor an image layout; give another directory",
    ))
}

fn is_sound(path: &Path, digest: &Digest) -> io::Result<bool> {
    let Some(mut hasher) = Hasher::new(digest.algorithm()) else {
        return Ok(false);
    };
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish() == *digest),
            count => hasher.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// Whether it is a pipe, a device or the like.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Where a file is written before it has its name.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, &error)),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(dir) => dir.sync_all().map_err(|error| at(path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(path, &error)),
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Of the compression: the fastest that is still worth it.
const LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pipe;

    fn write(path: &Path, content: &[u8]) -> io::Result<()> {
        let (mut writer, reader) = pipe();
        writer.write_all(content)?;
        writer.flush()?;
        drop(writer);
        let sink = Sink::new(path, Some(Format::Tar)).map_err(|_| io::ErrorKind::InvalidInput)?;
        sink.write(reader, content.len() as u64)
    }

    #[test]
    fn what_is_no_file_is_written_into_and_stays_what_it_is() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let fifo = path.clone();
        let reading = std::thread::spawn(move || fs::read(fifo));
        write(&path, b"images").unwrap();
        assert!(is_special(&path));
        assert_eq!(reading.join().unwrap().unwrap(), b"images");
        assert!(!Sink::new(&path, Some(Format::Tar)).unwrap().is_lasting());
    }

    #[test]
    fn a_link_to_a_file_stays_one_and_the_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [real, link] = ["disk/real.tar", "link.tar"].map(|name| dir.path().join(name));
        fs::create_dir(dir.path().join("disk")).unwrap();
        fs::write(&real, "older").unwrap();
        std::os::unix::fs::symlink("disk/real.tar", &link).unwrap();
        write(&link, b"images").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"images");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
