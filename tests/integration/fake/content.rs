//! Bytes of any size that need no memory: made when they are read.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use layby::oci::{Algorithm, Digest, Hasher};
use parking_lot::Mutex;

/// What a blob holds. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    kind: Kind,
    digest: Digest,
}

#[derive(Debug, Clone)]
enum Kind {
    Bytes(Bytes),
    /// One pseudo-random block again and again, each page stamped with its number: no two pages are alike, so that
    /// misplaced bytes show.
    Pages {
        seed: u64,
        len: u64,
    },
}

impl Content {
    /// These bytes.
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::sha256(&bytes),
            kind: Kind::Bytes(bytes),
        }
    }

    /// These bytes, named by their SHA-512.
    pub(crate) fn bytes_sha512(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::of(Algorithm::Sha512, &bytes).expect("sha512 can be computed"),
            kind: Kind::Bytes(bytes),
        }
    }

    /// `len` pseudo-random bytes, the same for the same `seed`.
    pub(crate) fn random(seed: u64, len: u64) -> Self {
        static DIGESTS: LazyLock<Mutex<HashMap<(u64, u64), Digest>>> =
            LazyLock::new(Mutex::default);
        let kind = Kind::Pages { seed, len };
        let known = DIGESTS.lock().get(&(seed, len)).cloned();
        let digest = known.unwrap_or_else(|| {
            let mut hasher = Hasher::new(Algorithm::Sha256).expect("sha256 can be computed");
            let mut at = 0;
            while at < len {
                let end = len.min(at + BLOCK as u64);
                hasher.update(&kind.read(at..end));
                at = end;
            }
            let digest = hasher.finish();
            DIGESTS.lock().insert((seed, len), digest.clone());
            digest
        });
        Self { kind, digest }
    }

    /// The same bytes under a digest that is not theirs.
    pub(crate) fn under(self, digest: Digest) -> Self {
        Self { digest, ..self }
    }

    /// Its name.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length.
    pub(crate) fn len(&self) -> u64 {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.len() as u64,
            Kind::Pages { len, .. } => *len,
        }
    }

    /// The bytes of `range`, which lies within it.
    pub(crate) fn read(&self, range: Range<u64>) -> Bytes {
        assert!(range.end <= self.len(), "{range:?} of {}", self.len());
        self.kind.read(range)
    }

    /// All of it.
    pub(crate) fn all(&self) -> Bytes {
        self.read(0..self.len())
    }
}

impl Kind {
    fn read(&self, range: Range<u64>) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.slice(as_usize(range.start)..as_usize(range.end)),
            Self::Pages { seed, .. } => pages(*seed, range),
        }
    }
}

fn pages(seed: u64, range: Range<u64>) -> Bytes {
    let first = range.start / PAGE;
    let last = range.end.div_ceil(PAGE);
    let mut bytes = Vec::with_capacity(as_usize((last - first) * PAGE));
    for page in first..last {
        let at = as_usize(page * PAGE) % BLOCK;
        let start = bytes.len();
        bytes.extend_from_slice(&block()[at..at + as_usize(PAGE)]);
        let stamp = mix(page ^ seed.rotate_left(32));
        bytes[start..start + 8].copy_from_slice(&stamp.to_le_bytes());
    }
    let skip = as_usize(range.start - first * PAGE);
    Bytes::from(bytes).slice(skip..skip + as_usize(range.end - range.start))
}

fn block() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        (0..(BLOCK / 8) as u64)
            .flat_map(|word| mix(word).to_le_bytes())
            .collect()
    })
}

/// SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn as_usize(value: u64) -> usize {
    usize::try_from(value).expect("fits in memory")
}

const PAGE: u64 = 4096;
const BLOCK: usize = 1024 * 1024;

#[test]
fn generated_bytes_are_the_same_whichever_way_they_are_read() {
    let content = Content::random(7, 3 * BLOCK as u64 + 123);
    let whole = content.all();
    assert_eq!(Digest::sha256(&whole), *content.digest());
    for (start, end) in [(0, 1), (4095, 4097), (5, 5), (1_048_570, 2_097_160)] {
        let part = content.read(start..end);
        assert_eq!(part, whole.slice(as_usize(start)..as_usize(end)));
    }
    assert_ne!(content.digest(), Content::random(8, content.len()).digest());
}
