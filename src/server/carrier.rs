//! Parts of files on their way through hyper, which takes bytes in memory only.
//!
//! A body puts a part of a file into its connection's [`Outlet`] and gives hyper a *carrier* in its place: as many bytes
//! of one block that nobody ever reads. hyper queues it among heads and other bytes without a look at it, and where
//! [`Sending`](super::sending::Sending), the stream under hyper, meets it in a write, it sends the part itself.
//!
//! No byte of the block may go out. What is written is therefore checked against what is in the outlet: a part whose
//! carrier is not found where it must be, say since it was copied on the way, fails the write, and the connection ends.
//! The carrier's place in the block tells how much of the part hyper believes to be sent, and its length how much is
//! left, so that the two can never drift apart unseen.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::LazyLock;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::flight::ports::FileSlice;

/// The parts of files that one connection has still to send, in order.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    parts: Mutex<VecDeque<Part>>,
}

#[derive(Debug)]
struct Part {
    /// What is still to be sent.
    rest: FileSlice,
    sent: usize,
}

/// What a write begins with.
#[derive(Debug)]
pub(super) enum Next {
    /// So many slices of bytes in memory.
    Memory(usize),
    /// A part of a file.
    File(FileSlice),
}

impl Outlet {
    /// Takes a part, not empty and at most [`WINDOW`] long, and gives what stands for it. Both must go on at once: into
    /// hyper, behind all that was given before.
    pub(super) fn put(&self, slice: FileSlice) -> io::Result<Bytes> {
        let len = usize::try_from(slice.range.end.saturating_sub(slice.range.start));
        let carrier = len.ok().and_then(|len| BLOCK.get(..len));
        let Some(carrier) = carrier.filter(|carrier| !carrier.is_empty()) else {
            return Err(io::Error::other("a part of a file that no carrier fits"));
        };
        self.parts.lock().push_back(Part {
            rest: slice,
            sent: 0,
        });
        Ok(Bytes::from_static(carrier))
    }

    /// What the write of `slices`, all that hyper has, has to begin with.
    pub(super) fn next(&self, slices: &[IoSlice<'_>]) -> io::Result<Next> {
        let parts = self.parts.lock();
        let carriers = slices.iter().filter(|slice| place(slice).is_some()).count();
        if carriers != parts.len() {
            return Err(astray());
        }
        let Some(part) = parts.front() else {
            return Ok(Next::Memory(slices.len()));
        };
        let first = slices.iter().position(|slice| place(slice).is_some());
        let first = first.ok_or_else(astray)?;
        let carrier = &slices[first];
        let rest = part.left();
        if place(carrier) != Some(part.sent) || carrier.len() as u64 != rest {
            return Err(astray());
        }
        Ok(match first {
            0 => Next::File(part.rest.clone()),
            first => Next::Memory(first),
        })
    }

    /// Takes `count` bytes of the first part for sent.
    pub(super) fn advance(&self, count: usize) {
        let mut parts = self.parts.lock();
        let Some(part) = parts.front_mut() else {
            return;
        };
        part.sent += count;
        part.rest.range.start += count as u64;
        let is_over = part.rest.range.is_empty();
        let over = is_over.then(|| parts.pop_front());
        // It may be the last that has the file open.
        drop(parts);
        drop(over);
    }

    /// Bytes that are still to be sent.
    pub(super) fn len(&self) -> u64 {
        self.parts.lock().iter().map(Part::left).sum()
    }
}

impl Part {
    fn left(&self) -> u64 {
        self.rest.range.end.saturating_sub(self.rest.range.start)
    }
}

/// Where in the block a carrier begins; `None` for other bytes.
fn place(bytes: &[u8]) -> Option<usize> {
    let place = bytes.as_ptr().addr().checked_sub(BLOCK.as_ptr().addr())?;
    (place < BLOCK.len() && !bytes.is_empty()).then_some(place)
}

fn astray() -> io::Error {
    io::Error::other("a part of a file is not where it has to be sent")
}

/// The largest part that is sent in one piece. A connection leaves the thread to others after two, so after 1 MiB: hyper
/// asks a body once more in the same poll, and there what was to leave the thread goes on.
pub(super) const WINDOW: usize = 512 * 1024;

/// Read by nobody, so that it never takes memory.
static BLOCK: LazyLock<Box<[u8]>> = LazyLock::new(|| vec![0; WINDOW].into_boxed_slice());

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use super::*;

    fn slice(range: Range<u64>) -> FileSlice {
        FileSlice {
            file: Arc::new(tempfile::tempfile().unwrap()),
            range,
            hold: None,
        }
    }

    fn next(outlet: &Outlet, slices: &[&[u8]]) -> io::Result<Next> {
        let slices: Vec<_> = slices.iter().map(|bytes| IoSlice::new(bytes)).collect();
        outlet.next(&slices)
    }

    #[test]
    fn bytes_in_memory_go_before_the_part_behind_them() {
        let outlet = Outlet::default();
        let carrier = outlet.put(slice(5..25)).unwrap();
        let write: &[&[u8]] = &[b"head", b"more", &carrier, b"tail"];
        assert!(matches!(next(&outlet, write), Ok(Next::Memory(2))));
        let Ok(Next::File(part)) = next(&outlet, &write[2..]) else {
            panic!("not the part");
        };
        assert_eq!(part.range, 5..25);
        outlet.advance(8);
        let Ok(Next::File(part)) = next(&outlet, &[&carrier[8..], b"tail"]) else {
            panic!("not the rest of the part");
        };
        assert_eq!(part.range, 13..25);
        outlet.advance(12);
        assert!(matches!(next(&outlet, &[b"tail"]), Ok(Next::Memory(1))));
    }

    #[test]
    fn what_counts_a_file_as_open_is_kept_until_its_part_is_sent() {
        let outlet = Outlet::default();
        let hold = Arc::new(());
        let part = FileSlice {
            hold: Some(Arc::<()>::clone(&hold)),
            ..slice(0..20)
        };
        outlet.put(part).unwrap();
        outlet.advance(19);
        assert_eq!((outlet.len(), Arc::strong_count(&hold)), (1, 2));
        outlet.advance(1);
        assert_eq!((outlet.len(), Arc::strong_count(&hold)), (0, 1));
    }

    #[test]
    fn a_carrier_that_was_copied_cut_moved_or_lost_fails_the_write() {
        let outlet = Outlet::default();
        let carrier = outlet.put(slice(0..20)).unwrap();
        let copied = carrier.to_vec();
        for write in [
            &[&copied[..]][..],
            &[b"head"],
            &[],
            &[&carrier[..19]],
            &[&carrier[1..]],
            &[&carrier, &carrier],
        ] {
            assert!(next(&outlet, write).is_err(), "{write:?}");
        }
        assert!(next(&outlet, &[&carrier]).is_ok());
        outlet.advance(20);
        assert!(next(&outlet, &[&carrier]).is_err(), "sent twice");
    }

    #[test]
    fn a_part_that_no_carrier_fits_is_refused() {
        let outlet = Outlet::default();
        assert!(outlet.put(slice(3..3)).is_err());
        assert!(outlet.put(slice(0..WINDOW as u64 + 1)).is_err());
        assert!(outlet.put(slice(1..WINDOW as u64 + 1)).is_ok());
    }
}
