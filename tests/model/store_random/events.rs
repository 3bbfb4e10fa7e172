//! What may happen, at random.

use proptest::prelude::*;

use crate::forgetful::Luck;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A blob is begun: its content's number.
    Stage(u8),
    /// The oldest begun blob is committed.
    CommitOldest,
    /// The oldest begun blob is given up.
    DropOldest,
    /// A fetch begins anew, or goes on, and writes as far as it gets: which, its pieces, how it is closed.
    Fetch(u8, Vec<Piece>, Close),
    /// The disk takes only so many more bytes, or again as many as come.
    FillAfter(Option<usize>),
    /// Several blobs are committed at once, among them perhaps the same.
    CommitTogether(Vec<u8>),
    /// A manifest is stored.
    PutBlob(u8),
    RemoveBlob(u8),
    OpenBlob(u8),
    PutRef(u8, u8),
    /// Two writers of one record at once, each expecting what is there; one may win.
    RaceRef(u8, u8, u8),
    RemoveRef(u8),
    /// A proof is removed if its content is gone.
    RemoveOrphan(u8),
    /// The same, while it is written again, with its content or without; which of them is asked for first.
    RaceOrphan {
        number: u8,
        seed: u8,
        has_content: bool,
        removal_first: bool,
    },
    /// The process ends and starts again.
    Restart,
    /// After so many more changes everything fails, until the next restart or power loss.
    PowerOffAfter(u64),
    PowerLoss(Luck),
}

/// A part of a fetched blob, in units of its 32nd part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) start: usize,
    pub(super) len: usize,
    /// In writes of so many bytes.
    pub(super) step: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Close {
    Keep,
    Discard,
    /// It is dropped as it is.
    Drop,
    /// It is left open until the end of the life, as when the process is killed.
    Never,
}

fn fetches() -> impl Strategy<Value = Event> {
    let piece = (0..32_usize, 1..12_usize, 9_000..400_000_usize);
    let piece = piece.prop_map(|(start, len, step)| Piece { start, len, step });
    let close = prop_oneof![
        Just(Close::Keep),
        Just(Close::Discard),
        Just(Close::Drop),
        Just(Close::Never),
    ];
    (0..3_u8, prop::collection::vec(piece, 0..6), close)
        .prop_map(|(number, pieces, close)| Event::Fetch(number, pieces, close))
}

pub(super) fn events() -> impl Strategy<Value = Event> {
    let number = 0..6_u8;
    let luck = prop_oneof![
        Just(Luck::All),
        Just(Luck::Nothing),
        Just(Luck::Names),
        Just(Luck::Bytes),
        any::<u64>().prop_map(Luck::Seed),
    ];
    prop_oneof![
        3 => number.clone().prop_map(Event::Stage),
        3 => Just(Event::CommitOldest),
        1 => Just(Event::DropOldest),
        2 => prop::collection::vec(number.clone(), 1..6).prop_map(Event::CommitTogether),
        2 => number.clone().prop_map(Event::PutBlob),
        2 => number.clone().prop_map(Event::RemoveBlob),
        2 => number.clone().prop_map(Event::OpenBlob),
        4 => (number.clone(), any::<u8>()).prop_map(|(key, value)| Event::PutRef(key, value)),
        2 => (number.clone(), any::<u8>(), any::<u8>())
            .prop_map(|(key, a, b)| Event::RaceRef(key, a, b)),
        2 => number.clone().prop_map(Event::RemoveRef),
        2 => number.clone().prop_map(Event::RemoveOrphan),
        3 => (number, any::<u8>(), any::<bool>(), any::<bool>()).prop_map(
            |(number, seed, has_content, removal_first)| Event::RaceOrphan {
                number,
                seed,
                has_content,
                removal_first,
            }
        ),
        4 => fetches(),
        1 => (0..3_000_000_usize).prop_map(|left| Event::FillAfter(Some(left))),
        1 => Just(Event::FillAfter(None)),
        1 => Just(Event::Restart),
        2 => (0..12_u64).prop_map(Event::PowerOffAfter),
        2 => luck.prop_map(Event::PowerLoss),
    ]
}
