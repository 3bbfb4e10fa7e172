//! Bytes between a thread that blocks and tasks that do not, a bounded number of them at a time.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Where bytes go in: by [`Write`] from a thread that may block, or piece by piece from a task.
#[derive(Debug)]
pub struct PipeWriter {
    sender: Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

/// Where they come out: by [`Read`] on a thread that may block, or piece by piece in a task.
///
/// It ends when the writer is dropped, wherever that stood: who has to know counts.
#[derive(Debug)]
pub struct PipeReader {
    receiver: Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

/// Both ends of one. Whoever writes waits for whoever reads.
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = channel(PIECES);
    let writer = PipeWriter {
        sender,
        buffer: BytesMut::new(),
    };
    let reader = PipeReader {
        receiver,
        piece: Bytes::new(),
    };
    (writer, reader)
}

impl PipeWriter {
    /// Hands a piece over; whether somebody still reads.
    pub async fn send(&self, piece: io::Result<Bytes>) -> bool {
        self.sender.send(piece).await.is_ok()
    }

    /// Ends with an error. Blocks.
    pub fn fail(self, error: io::Error) {
        // Who reads no more need not know.
        let _ = self.sender.blocking_send(Err(error));
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (now, _) = bytes.split_at(bytes.len().min(PIECE_BYTES));
        self.buffer.extend_from_slice(now);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        let sent = self.sender.blocking_send(Ok(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl PipeReader {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.receiver.recv().await
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        let target = buffer.get_mut(..count).unwrap_or_default();
        self.piece.copy_to_slice(target);
        Ok(count)
    }
}

/// Bytes in a piece, about.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces on their way.
const PIECES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in() {
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (mut writer, mut reader) = pipe();
        let copy = sent.clone();
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_all(&copy)?;
            writer.flush()
        });
        let mut got = Vec::new();
        while let Some(piece) = reader.next().await {
            got.extend_from_slice(&piece.unwrap());
        }
        writing.await.unwrap().unwrap();
        assert!(got == sent);

        let (writer, mut reader) = pipe();
        let reading = tokio::task::spawn_blocking(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).map(|_| got)
        });
        for piece in sent.chunks(100_000) {
            assert!(writer.send(Ok(Bytes::copy_from_slice(piece))).await);
        }
        drop(writer);
        assert!(reading.await.unwrap().unwrap() == sent);
    }

    #[tokio::test]
    async fn an_error_comes_out_behind_what_went_before() {
        let (mut writer, mut reader) = pipe();
        tokio::task::spawn_blocking(move || {
            writer.write_all(b"x").unwrap();
            writer.flush().unwrap();
            writer.fail(io::Error::other("no more"));
        });
        assert_eq!(reader.next().await.unwrap().unwrap(), "x");
        assert!(reader.next().await.unwrap().is_err());
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn whoever_writes_hears_that_nobody_reads() {
        let (mut writer, reader) = pipe();
        drop(reader);
        let written = tokio::task::spawn_blocking(move || {
            let written = writer.write_all(&vec![0; 2 * PIECE_BYTES]);
            (written, writer.is_closed())
        });
        let (written, is_closed) = written.await.unwrap();
        assert!(written.is_err() && is_closed);
    }
}
