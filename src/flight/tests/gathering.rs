//! Small pieces from the network on their way to the disk.

use super::*;

const PIECE: usize = 1000;

fn pieces(world: &World) -> impl Iterator<Item = Bytes> + '_ {
    let starts = (0..world.bytes.len()).step_by(PIECE);
    starts.map(|start| {
        world
            .bytes
            .slice(start..world.bytes.len().min(start + PIECE))
    })
}

#[tokio::test(start_paused = true)]
async fn small_pieces_that_come_at_once_are_written_together() {
    let world = world_of(MIB / 2);
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(world.bytes.len() as u64));
    for piece in pieces(&world) {
        sending.try_send(Ok(piece)).unwrap();
    }
    drop(sending);
    let handle = world.board(&world.wish(&source)).await;
    assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
    world.landed().await;
    assert!(world.is_stored());
    let writes = world.blobs.faults.writes.lock().clone();
    assert_eq!(writes[0], PIECE, "the first one is not kept waiting");
    assert!(writes.len() < 12, "{writes:?}");
    assert_eq!(writes.iter().sum::<usize>(), world.bytes.len());
}

#[tokio::test(start_paused = true)]
async fn what_has_come_is_read_though_nothing_more_comes() {
    let world = world_of(4 * PIECE);
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(world.bytes.len() as u64));
    let handle = world.board(&world.wish(&source)).await;
    size(&handle).await;
    let part = 0..3 * PIECE as u64;
    let reader = handle.reader(Some(part.clone()));
    for piece in pieces(&world).take(3) {
        sending.try_send(Ok(piece)).unwrap();
    }
    let begun = Instant::now();
    assert!(read_all(reader).await.unwrap() == world.part(part));
    assert!(begun.elapsed() < Duration::from_millis(50));
    sending
        .try_send(Ok(pieces(&world).last().unwrap()))
        .unwrap();
    drop(sending);
    assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_written_is_written_when_the_fetch_is_stopped() {
    let world = world_of(MIB / 2);
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(world.bytes.len() as u64));
    let handle = world.board(&world.wish(&source)).await;
    for piece in pieces(&world).take(5) {
        sending.try_send(Ok(piece)).unwrap();
    }
    // Some are with the writer, the others wait for more.
    while sending.capacity() < sending.max_capacity() {
        tokio::task::yield_now().await;
    }
    world.flights.tasks.stop();
    world.landed().await;
    drop(handle);
    let left = world.blobs.left(&world.stage()).await;
    assert_eq!(left, 5 * PIECE as u64);
}
