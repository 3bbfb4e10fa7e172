//! Export and import, where what happens in between has to come at a chosen moment.

use std::io;

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use crate::proxy::admin::model::{ExportRequest, ImportEvent, ImportRequest};
use crate::proxy::admin::{AdminError, Archive, Events};

use super::*;

pub(super) fn all() -> ExportRequest {
    ExportRequest {
        all: true,
        ..ExportRequest::default()
    }
}

fn pinned() -> ImportRequest {
    ImportRequest {
        name: None,
        pin: true,
    }
}

pub(super) async fn bytes(archive: Archive) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pieces = archive.pieces;
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(archive.len, Some(bytes.len() as u64));
    bytes
}

pub(super) async fn last(mut events: Events<ImportEvent>) -> ImportEvent {
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event.unwrap());
    }
    last.unwrap()
}

/// An archive that comes as the test sends it.
pub(super) fn fed() -> (mpsc::Sender<io::Result<Bytes>>, Archive) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    let archive = Archive {
        len: None,
        pieces: Box::pin(pieces),
    };
    (sender, archive)
}

async fn feed(sender: &mpsc::Sender<io::Result<Bytes>>, bytes: &[u8]) {
    for piece in bytes.chunks(64 * 1024) {
        sender
            .send(Ok(Bytes::copy_from_slice(piece)))
            .await
            .unwrap();
    }
}

/// An image whose first blob in an archive is large, so that it is committed before the others have come.
fn picture() -> Picture {
    let named =
        |number: u32| Picture::new("a", &[&format!("{number}{}", "x".repeat(2 << 20)), "small"]);
    let mut numbers = 0..;
    let is_first = |picture: &Picture| {
        let [large, small] = [0, 1].map(|layer| sha(&picture.layers[layer]));
        large < small && large < sha(&picture.config)
    };
    let first = numbers.by_ref().map(named).find(is_first);
    first.unwrap()
}

/// An export of it, and how many bytes of that bring its large blob.
async fn exported(picture: &Picture) -> (Vec<u8>, usize) {
    let near = Shelf::new().await;
    near.image(&alpine(), "3.20", picture).await;
    let tar = bytes(near.keeper.export(all()).await.unwrap()).await;
    let large = picture.layers[0].as_bytes();
    let start = tar.windows(64).position(|window| *window == large[..64]);
    (tar, (start.unwrap() + large.len()).next_multiple_of(512))
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Who else has come to need what an import brings.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Other {
    Nobody,
    /// An image leads to it.
    Image,
    /// It was read.
    Client,
}

#[tokio::test]
async fn a_refused_import_takes_back_what_it_brought_and_nothing_that_somebody_needs_by_then() {
    for other in [Other::Nobody, Other::Image, Other::Client] {
        let picture = picture();
        let large = sha(&picture.layers[0]);
        let (tar, enough) = exported(&picture).await;
        let far = Shelf::new().await;
        let (sender, archive) = fed();
        let events = far.keeper.import(pinned(), archive).await.unwrap();
        feed(&sender, &tar[..enough]).await;
        until(|| far.has(&large)).await;
        // Somebody reads it, without having asked for it.
        let open = far.store.peek_open(&large).unwrap().unwrap();
        match other {
            Other::Nobody => {}
            Other::Image => {
                let other = Picture::new("b", &[&picture.layers[0]]);
                far.image(&place("ghcr.io", "org/b"), "v1", &other).await;
            }
            Other::Client => {
                // Uses are told apart by seconds.
                far.clock.advance(Duration::from_secs(2));
                far.store.open_blob(&large).unwrap().unwrap();
            }
        }
        let mut rest = tar[enough..].to_vec();
        rest[10] ^= 1;
        feed(&sender, &rest).await;
        drop(sender);
        let ended = last(events).await;
        assert!(matches!(ended, ImportEvent::Failed { .. }), "{ended:?}");
        assert_eq!(far.has(&large), other != Other::Nobody, "{other:?}");
        assert!(!far.has(&sha(&picture.manifest)));
        let images = usize::from(other == Other::Image);
        assert_eq!(far.names().await.len(), images, "{other:?}");
        let mut start = [0; 64];
        std::os::unix::fs::FileExt::read_exact_at(&*open.file, &mut start, 0).unwrap();
        assert_eq!(start, picture.layers[0].as_bytes()[..64]);
        assert_eq!(
            Administration::pins(&far.keeper).await.unwrap().command,
            Vec::<String>::new()
        );
    }
}

#[tokio::test]
async fn an_archive_that_stops_coming_is_no_refusal_and_what_came_stays_for_the_next_time() {
    let picture = picture();
    let large = sha(&picture.layers[0]);
    let (tar, enough) = exported(&picture).await;
    let far = Shelf::new().await;
    let (sender, archive) = fed();
    let events = far.keeper.import(pinned(), archive).await.unwrap();
    feed(&sender, &tar[..enough]).await;
    until(|| far.has(&large)).await;
    let broken = io::Error::new(io::ErrorKind::ConnectionAborted, "gone");
    sender.send(Err(broken)).await.unwrap();
    assert!(matches!(last(events).await, ImportEvent::Failed { .. }));
    assert!(far.has(&large));
    assert_eq!(far.names().await, Vec::<String>::new());

    let (sender, archive) = fed();
    let events = far.keeper.import(pinned(), archive).await.unwrap();
    let sending = async {
        feed(&sender, &tar).await;
        drop(sender);
    };
    let (ended, ()) = tokio::join!(last(events), sending);
    let ImportEvent::Done(report) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!((report.present_blobs, report.new_blobs), (2, 2));
    assert_eq!(far.names().await, ["docker.io/library/alpine:3.20"]);
}

#[tokio::test]
async fn one_import_at_a_time_and_none_beside_a_removal() {
    let far = Shelf::new().await;
    let (sender, archive) = fed();
    let events = far.keeper.import(pinned(), archive).await.unwrap();
    let (_, second) = fed();
    let refused = far.keeper.import(pinned(), second).await;
    assert!(matches!(refused, Err(AdminError::Busy)));
    assert!(matches!(
        far.keeper.remove("a", false).await,
        Err(AdminError::Busy)
    ));
    drop(events);
    drop(sender);
    until(|| far.keeper.turn_is_free()).await;
}

#[tokio::test]
async fn a_blob_that_is_damaged_or_removed_ends_an_export_before_its_end() {
    let picture = picture();
    let near = Shelf::new().await;
    near.image(&alpine(), "3.20", &picture).await;
    let whole = bytes(near.keeper.export(all()).await.unwrap()).await;
    let path = near.path(&sha("small"));
    let stored = std::fs::read(&path).unwrap();
    std::fs::write(&path, vec![b'S'; stored.len()]).unwrap();
    let archive = near.keeper.export(all()).await.unwrap();
    let pieces: Vec<_> = archive.pieces.collect().await;
    let sent: usize = pieces.iter().flatten().map(Bytes::len).sum();
    assert!(sent < whole.len());
    let error = pieces.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let refused = near.keeper.export(all()).await;
    assert!(matches!(
        refused,
        Err(AdminError::NotFound(_) | AdminError::Failed(_))
    ));
}

#[tokio::test]
async fn an_export_of_something_else_than_was_planned_is_refused() {
    let near = Shelf::new().await;
    near.image(&alpine(), "3.20", &Picture::new("a", &["one"]))
        .await;
    let plan = near.keeper.plan_export(all()).await.unwrap();
    let mut request = all();
    request.index = Some(plan.index);
    near.keeper.export(request.clone()).await.unwrap();
    near.image(&alpine(), "3.20", &Picture::new("b", &["two"]))
        .await;
    assert!(matches!(
        near.keeper.export(request).await,
        Err(AdminError::Failed(_))
    ));
}

#[tokio::test]
async fn what_an_archive_only_names_is_not_given_to_its_repository() {
    // A layer that somebody else's image has here, and that the archive's image only names.
    let far = Shelf::new().await;
    let secret = Picture::new("secret", &["a secret layer"]);
    far.image(&place("ghcr.io", "org/secret"), "v1", &secret)
        .await;
    let thief = Picture::new("thief", &["a secret layer"]);
    let near = Shelf::new().await;
    near.image(&alpine(), "3.20", &thief).await;
    let request = ExportRequest {
        without: vec![sha("a secret layer")],
        ..all()
    };
    let tar = bytes(near.keeper.export(request).await.unwrap()).await;
    let (sender, archive) = fed();
    let events = far.keeper.import(pinned(), archive).await.unwrap();
    let sending = async {
        feed(&sender, &tar).await;
        drop(sender);
    };
    let (ended, ()) = tokio::join!(last(events), sending);
    assert!(matches!(ended, ImportEvent::Failed { .. }), "{ended:?}");
    assert!(!far.is_proven(&alpine(), &sha("a secret layer")));
    assert!(far.has(&sha("a secret layer")));
}

#[tokio::test]
async fn more_pins_than_there_may_be_are_refused_before_anything_is_an_image() {
    let near = Shelf::new().await;
    near.image(&alpine(), "3.20", &Picture::new("a", &["one"]))
        .await;
    let tar = bytes(near.keeper.export(all()).await.unwrap()).await;
    let far = Shelf::new().await;
    let pins = (0..1024).map(|number| {
        format!("docker.io/library/other:v{number}")
            .parse()
            .unwrap()
    });
    far.keeper
        .pins()
        .add_all(pins.collect(), &mut Vec::new(), &far.store)
        .await
        .unwrap();
    // Before its blobs are read, so that a damaged one is not even noticed.
    let mut damaged = tar.clone();
    let layer = tar.windows(4).rposition(|window| window == b"one\0");
    damaged[layer.unwrap()] ^= 1;
    for (pin, is_done, tar) in [(true, false, damaged), (false, true, tar)] {
        let (sender, archive) = fed();
        let request = ImportRequest { name: None, pin };
        let events = far.keeper.import(request, archive).await.unwrap();
        let sending = async {
            feed(&sender, &tar).await;
            drop(sender);
        };
        let (ended, ()) = tokio::join!(last(events), sending);
        assert_eq!(matches!(ended, ImportEvent::Done(_)), is_done, "{ended:?}");
        let is_for_pins = format!("{ended:?}").contains("more pins");
        assert_ne!(is_for_pins, is_done, "{ended:?}");
        assert_eq!(far.names().await.len(), usize::from(is_done));
    }
}
