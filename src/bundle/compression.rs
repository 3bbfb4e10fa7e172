//! Telling by its first bytes how a file is compressed, and undoing that.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::Fault;

/// The bytes behind the compression, if there is any.
pub(super) enum Plain<R: Read> {
    /// There is none.
    As(Whole<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Whole<R>>>>),
    Zstd(Box<ZstdDecoder<'static, BufReader<Whole<R>>>>),
}

/// A source, and before it what was read of it to tell.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// What the first bytes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(super) fn of(start: &[u8]) -> Result<Self, Fault> {
        match start {
            [] => Err(Fault::Empty),
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(Fault::Compression("xz")),
            [b'B', b'Z', b'h', ..] => Err(Fault::Compression("bzip2")),
            _ => Ok(Self::None),
        }
    }
}

impl<R: Read> Plain<R> {
    pub(super) fn of(mut source: R) -> Result<Self, Fault> {
        let mut start = Vec::new();
        (&mut source).take(START).read_to_end(&mut start)?;
        let compression = Compression::of(&start)?;
        let whole = Cursor::new(start).chain(source);
        Ok(match compression {
            Compression::None => Self::As(whole),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(BufReader::new(whole)))),
            Compression::Zstd => Self::Zstd(Box::new(ZstdDecoder::new(whole)?)),
        })
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::As(source) => source.read(buffer),
            Self::Gzip(source) => source.read(buffer),
            Self::Zstd(source) => source.read(buffer),
        }
    }
}

/// Bytes that tell.
pub(super) const START: u64 = 6;
