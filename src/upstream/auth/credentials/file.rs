//! A small file that is read again when it changes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

/// What a file means, kept current: looked at once a second at most, read when it is another one than before.
///
/// A file that goes missing or turns bad keeps its last good meaning, since mounted secrets are swapped under us.
pub(super) struct Watched<T> {
    /// The configuration key that names the file, for messages; the path stays in our own log.
    key: &'static str,
    path: PathBuf,
    max_len: u64,
    parse: Parse<T>,
    /// Held while the file is read, so that it is read once for all who wait.
    seen: tokio::sync::Mutex<Option<Seen<T>>>,
    hurry: AtomicBool,
}

type Parse<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

struct Seen<T> {
    stamp: Stamp,
    looked: Instant,
    meaning: Arc<T>,
    /// Whether the last look failed, so that it is logged once.
    failing: bool,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Watched<T> {
    /// The file `path` of at most `max_len` bytes, which `parse` makes sense of.
    pub(super) fn new(
        key: &'static str,
        path: PathBuf,
        max_len: u64,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            key,
            path,
            max_len,
            parse: Box::new(parse),
            seen: tokio::sync::Mutex::new(None),
            hurry: AtomicBool::new(false),
        }
    }

    /// Makes the next [`Watched::get`] look at the file whatever the time.
    pub(super) fn look_again(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }

    /// What the file means now. The error says what is wrong, without path and content.
    pub(super) async fn get(&self) -> Result<Arc<T>, String> {
        let mut seen = self.seen.lock().await;
        let hurry = self.hurry.swap(false, Ordering::Relaxed);
        if let Some(last) = seen.as_ref()
            && !hurry
            && last.looked.elapsed() < LOOK_EVERY
        {
            return Ok(Arc::clone(&last.meaning));
        }
        match self.look(seen.as_ref()).await {
            Ok(fresh) => {
                let meaning = Arc::clone(&fresh.meaning);
                *seen = Some(fresh);
                Ok(meaning)
            }
            Err(why) => {
                let why = format!("its {} cannot be used: {why}", self.key);
                let Some(last) = seen.as_mut() else {
                    tracing::warn!(path = %self.path.display(), error = %why, "credentials are missing");
                    return Err(why);
                };
                if !last.failing {
                    tracing::warn!(path = %self.path.display(), error = %why, "keeping the credentials read before");
                }
                last.failing = true;
                last.looked = Instant::now();
                Ok(Arc::clone(&last.meaning))
            }
        }
    }

    /// Looks at the file, and reads it if it is not as `last` saw it.
    async fn look(&self, last: Option<&Seen<T>>) -> Result<Seen<T>, String> {
        let looked = Instant::now();
        let found = tokio::fs::metadata(&self.path).await.map_err(plain)?;
        if !found.is_file() {
            return Err("it is not a regular file".to_owned());
        }
        if let Some(last) = last
            && last.stamp == Stamp::of(&found)
        {
            return Ok(Seen {
                stamp: last.stamp,
                looked,
                meaning: Arc::clone(&last.meaning),
                failing: false,
            });
        }
        let file = tokio::fs::File::open(&self.path).await.map_err(plain)?;
        // Of the file that is read, and from before it is read: a write in between changes the stamp once more.
        let stamp = Stamp::of(&file.metadata().await.map_err(plain)?);
        let mut bytes = Vec::new();
        let mut limited = file.take(self.max_len.saturating_add(1));
        limited.read_to_end(&mut bytes).await.map_err(plain)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > self.max_len) {
            return Err(format!("it is larger than {} bytes", self.max_len));
        }
        Ok(Seen {
            stamp,
            looked,
            meaning: Arc::new((self.parse)(&bytes)?),
            failing: false,
        })
    }
}

impl Stamp {
    fn of(found: &std::fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn plain(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "we may not read it".to_owned(),
        _ => error.to_string(),
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
