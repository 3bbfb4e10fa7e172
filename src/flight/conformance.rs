//! What every place for blobs must do, whatever it is made of: the contract of [`Blobs`] and [`Stage`] as tests.
//!
//! [`blobs_conform`] makes a test of each rule for one maker, a function whose future brings
//! `(impl Sized, Arc<dyn Blobs>)`; the first of these is held as long as the test runs.

use std::io::IoSlice;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::ports::{Blobs, BoxFuture, Chunk, Leave, Stage, StageId};
use crate::oci::Digest;

/// Long enough to be worth keeping.
const LEN: u64 = 2 << 20;

/// Makes a test of each rule.
macro_rules! blobs_conform {
    ($maker:path: $($rule:ident)*) => {
        $(
            #[tokio::test]
            async fn $rule() {
                let (_held, blobs) = $maker().await;
                $crate::flight::conformance::$rule(&*blobs).await;
            }
        )*
    };
    ($maker:path) => {
        $crate::flight::conformance::blobs_conform! {
            $maker:
            a_blob_is_there_whole_once_it_is_committed_and_not_before
            bytes_in_any_order_are_read_where_they_were_written
            what_is_left_resumable_is_there_for_the_next
            what_is_dropped_is_left_resumable
            what_is_left_for_nothing_or_has_no_length_is_gone
            a_new_stage_throws_away_what_was_left
            a_commit_leaves_nothing_to_resume
            an_id_is_free_when_its_stage_is_closed_and_not_before
            a_closed_stage_takes_no_more_and_only_the_first_close_counts
            readers_go_on_when_the_stage_is_taken_up_or_committed
        }
    };
}
pub(crate) use blobs_conform;

fn content(range: Range<u64>) -> Vec<u8> {
    range
        .map(|at| (at * 0x9e37_79b9).to_le_bytes()[3])
        .collect()
}

fn id(name: &str) -> StageId {
    StageId::of(&["conformance", name])
}

async fn begin(blobs: &dyn Blobs, name: &str) -> Arc<dyn Stage> {
    blobs.stage(&id(name), Some(LEN)).await.expect("a stage")
}

async fn resume(blobs: &dyn Blobs, name: &str) -> Option<Arc<dyn Stage>> {
    blobs.resume(&id(name)).await.expect("an answer")
}

fn write(stage: &dyn Stage, range: Range<u64>) {
    let bytes = content(range.clone());
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let parts = [first, second].map(IoSlice::new);
    stage.write_at(range.start, &parts).expect("written");
}

fn read(stage: &dyn Stage, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; content(range.clone()).len()];
    stage.read_at(range.start, &mut bytes).expect("read");
    assert!(
        bytes_of(&stage.chunk(range)) == bytes,
        "two ways of reading"
    );
    bytes
}

fn bytes_of(chunk: &Chunk) -> Vec<u8> {
    match chunk {
        Chunk::Bytes(bytes) => bytes.to_vec(),
        Chunk::File(slice) => {
            let mut bytes = vec![0; content(slice.range.clone()).len()];
            let read = slice.file.read_exact_at(&mut bytes, slice.range.start);
            read.expect("a readable file");
            bytes
        }
    }
}

async fn commit(blobs: &dyn Blobs, stage: Arc<dyn Stage>) -> Digest {
    let digest = Digest::sha256(&content(0..LEN));
    blobs.commit(stage, LEN, &digest).await.expect("committed");
    digest
}

async fn read_blob(blobs: &dyn Blobs, digest: &Digest) -> Option<Vec<u8>> {
    let blob = blobs.open(digest).await.expect("an answer")?;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < blob.len() {
        let rest = bytes.len() as u64..blob.len();
        let chunk = blob.read(rest).await.expect("bytes");
        assert!(!chunk.is_empty());
        bytes.extend(bytes_of(&chunk));
    }
    Some(bytes)
}

pub(crate) async fn a_blob_is_there_whole_once_it_is_committed_and_not_before(blobs: &dyn Blobs) {
    let digest = Digest::sha256(&content(0..LEN));
    let stage = begin(blobs, "a").await;
    assert_eq!((stage.len(), stage.is_empty()), (Some(LEN), false));
    assert!(stage.present().is_empty());
    write(&*stage, 0..LEN);
    let commits = blobs.commits();
    assert!(read_blob(blobs, &digest).await.is_none());
    assert_eq!(blobs.commits(), commits);
    commit(blobs, stage).await;
    assert!(blobs.commits() > commits);
    assert!(!blobs.lacks(&digest));
    assert!(read_blob(blobs, &digest).await == Some(content(0..LEN)));
    let empty = blobs.stage(&id("b"), Some(0)).await.expect("a stage");
    assert!(empty.is_empty());
    let digest = Digest::sha256(b"");
    blobs.commit(empty, 0, &digest).await.expect("committed");
    assert_eq!(read_blob(blobs, &digest).await, Some(vec![]));
}

pub(crate) async fn bytes_in_any_order_are_read_where_they_were_written(blobs: &dyn Blobs) {
    let stage = begin(blobs, "a").await;
    let pieces = [
        1_500_000..LEN,
        7..1000,
        0..7,
        700_000..1_500_000,
        1000..700_000,
    ];
    for piece in pieces {
        write(&*stage, piece.clone());
        assert!(read(&*stage, piece.clone()) == content(piece));
    }
    let digest = commit(blobs, Arc::clone(&stage)).await;
    assert!(read_blob(blobs, &digest).await == Some(content(0..LEN)));
}

pub(crate) async fn what_is_left_resumable_is_there_for_the_next(blobs: &dyn Blobs) {
    assert!(resume(blobs, "a").await.is_none());
    let stage = begin(blobs, "a").await;
    let islands = [0..300_000, 1_000_000..1_000_001, 1_500_000..LEN];
    for island in islands.iter().rev() {
        write(&*stage, island.clone());
    }
    stage.close(Leave::Resumable);
    assert!(resume(blobs, "b").await.is_none(), "another id");
    for _ in 0..2 {
        let stage = resume(blobs, "a").await.expect("what was left");
        assert_eq!(stage.len(), Some(LEN));
        assert_eq!(stage.present(), islands);
        for island in islands.clone() {
            assert!(read(&*stage, island.clone()) == content(island));
        }
        stage.close(Leave::Resumable);
    }
    let stage = resume(blobs, "a").await.expect("what was left");
    write(&*stage, 300_000..1_000_000);
    write(&*stage, 1_000_001..1_500_000);
    let digest = commit(blobs, stage).await;
    assert!(read_blob(blobs, &digest).await == Some(content(0..LEN)));
}

pub(crate) async fn what_is_dropped_is_left_resumable(blobs: &dyn Blobs) {
    let stage = begin(blobs, "a").await;
    write(&*stage, 0..LEN - 1);
    drop(stage);
    let stage = resume(blobs, "a").await.expect("what was left");
    assert_eq!(stage.present().last(), Some(&(0..LEN - 1)));
}

pub(crate) async fn what_is_left_for_nothing_or_has_no_length_is_gone(blobs: &dyn Blobs) {
    for (len, leave) in [(Some(LEN), Leave::Nothing), (None, Leave::Resumable)] {
        let stage = blobs.stage(&id("a"), len).await.expect("a stage");
        write(&*stage, 0..LEN - 1);
        stage.close(leave);
        assert!(resume(blobs, "a").await.is_none(), "{len:?}");
    }
}

pub(crate) async fn a_new_stage_throws_away_what_was_left(blobs: &dyn Blobs) {
    let stage = begin(blobs, "a").await;
    write(&*stage, 0..LEN - 1);
    stage.close(Leave::Resumable);
    let stage = begin(blobs, "a").await;
    assert!(stage.present().is_empty());
    write(&*stage, 5..10);
    stage.close(Leave::Resumable);
    let stage = resume(blobs, "a").await.expect("what was left");
    assert_eq!(stage.present().first(), Some(&(5..10)));
    assert_eq!(stage.present().len(), 1);
}

pub(crate) async fn a_commit_leaves_nothing_to_resume(blobs: &dyn Blobs) {
    let stage = begin(blobs, "a").await;
    write(&*stage, 0..LEN);
    commit(blobs, Arc::clone(&stage)).await;
    // Although a reader still has it.
    assert!(resume(blobs, "a").await.is_none());
    stage.close(Leave::Resumable);
    drop(stage);
    assert!(resume(blobs, "a").await.is_none());
}

pub(crate) async fn an_id_is_free_when_its_stage_is_closed_and_not_before(blobs: &dyn Blobs) {
    let stage = begin(blobs, "a").await;
    write(&*stage, 0..LEN - 1);
    let id = id("a");
    let mut next: BoxFuture<'_, _> = blobs.resume(&id);
    assert!(futures_util::poll!(&mut next).is_pending());
    let mut anew: BoxFuture<'_, _> = blobs.stage(&id, Some(LEN));
    assert!(futures_util::poll!(&mut anew).is_pending());
    drop(anew);
    begin(blobs, "b").await;
    stage.close(Leave::Resumable);
    assert!(next.await.expect("an answer").is_some());
}

pub(crate) async fn a_closed_stage_takes_no_more_and_only_the_first_close_counts(
    blobs: &dyn Blobs,
) {
    let stage = begin(blobs, "a").await;
    write(&*stage, 0..LEN - 1);
    stage.close(Leave::Resumable);
    stage.close(Leave::Nothing);
    assert!(stage.write_at(0, &[IoSlice::new(&[0])]).is_err());
    let next = resume(blobs, "a").await.expect("what was left");
    stage.close(Leave::Nothing);
    assert!(stage.write_at(0, &[IoSlice::new(&[0])]).is_err());
    write(&*next, LEN - 1..LEN);
    let digest = commit(blobs, Arc::clone(&next)).await;
    assert!(next.write_at(0, &[IoSlice::new(&[0])]).is_err());
    assert!(read_blob(blobs, &digest).await == Some(content(0..LEN)));
}

pub(crate) async fn readers_go_on_when_the_stage_is_taken_up_or_committed(blobs: &dyn Blobs) {
    let first = begin(blobs, "a").await;
    write(&*first, 0..1_000_000);
    let whole = 0..1_000_000;
    first.close(Leave::Resumable);
    assert!(read(&*first, whole.clone()) == content(whole.clone()));
    let second = resume(blobs, "a").await.expect("what was left");
    assert!(read(&*first, whole.clone()) == content(whole.clone()));
    write(&*second, 1_000_000..LEN);
    commit(blobs, Arc::clone(&second)).await;
    assert!(read(&*first, whole.clone()) == content(whole.clone()));
    assert!(read(&*second, 0..LEN) == content(0..LEN));
    let third = begin(blobs, "a").await;
    write(&*third, 0..10);
    third.close(Leave::Nothing);
    drop(begin(blobs, "a").await);
    assert!(read(&*third, 0..10) == content(0..10));
    assert!(read(&*first, whole.clone()) == content(whole));
}
