//! An answer on its way out, with all that the script does to it.

use std::io;
use std::ops::Range;

use http::StatusCode;

use super::answer::Answer;
use super::content::Content;
use super::gate::Gate;
use super::record::Seen;
use super::script::{Act, Cut, Edit};
use super::wire::Connection;

/// What becomes of the connection.
pub(super) enum After {
    /// Another request may follow.
    Keep,
    /// It ends.
    End(Cut),
}

impl Answer {
    /// The answer as the script wants it.
    pub(super) fn changed_by(mut self, act: &Act) -> Self {
        if let Some(status) = act.status {
            self = Self::new(status, "text/plain", act.body.clone().unwrap_or_default());
        }
        for (name, value) in &act.headers {
            self.headers
                .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
            if let Some(value) = value {
                self.headers.push((name.clone(), value.clone()));
            }
        }
        self
    }

    /// Sends it.
    pub(super) async fn send(
        self,
        connection: &mut Connection,
        is_head: bool,
        act: &Act,
        seen: &Seen,
    ) -> io::Result<After> {
        if let Some(gate) = &act.hold {
            gate.pass().await;
        }
        if let Some(how) = act.hang_up {
            return Ok(After::End(how));
        }
        let body = BodyPlan::new(&self, act);
        let mut headers = self.headers.clone();
        let has = |name: &str| {
            headers
                .iter()
                .any(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let left_out = |name: &str| {
            act.headers
                .iter()
                .any(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let body_less = self.status == StatusCode::NOT_MODIFIED;
        let mut ends = false;
        if act.chunked {
            headers.push(("Transfer-Encoding".into(), "chunked".into()));
        } else if !has("content-length") && !left_out("content-length") {
            headers.push(("Content-Length".into(), body.len().to_string()));
        } else {
            // The length is missing or not that of the body: only the end of the connection can tell the end.
            ends = !is_head;
        }
        if ends {
            headers.push(("Connection".into(), "close".into()));
        }
        seen.answered(self.status.as_u16());
        connection.send_head(self.status, &headers).await?;
        if is_head || body_less {
            return Ok(if ends {
                After::End(Cut::Fin)
            } else {
                After::Keep
            });
        }
        seen.begins_at(self.range.start);
        if let Some(how) = body.send(connection, act.chunked, seen).await? {
            return Ok(After::End(how));
        }
        if act.chunked {
            connection.send(b"0\r\n\r\n").await?;
        }
        Ok(if ends {
            After::End(Cut::Fin)
        } else {
            After::Keep
        })
    }
}

/// Something that happens before a byte of a body.
enum Break<'a> {
    Cut(Cut),
    Stall,
    Wait(&'a Gate),
}

/// What is sent of a content.
struct BodyPlan<'a> {
    content: &'a Content,
    range: Range<u64>,
    edits: &'a [Edit],
}

impl<'a> BodyPlan<'a> {
    fn new(answer: &'a Answer, act: &'a Act) -> Self {
        let mut range = answer.range.clone();
        for edit in &act.edits {
            if let Edit::Shorten { at } = edit {
                range.end = range.end.min(*at).max(range.start);
            }
        }
        Self {
            content: &answer.content,
            range,
            edits: &act.edits,
        }
    }

    /// Where the body does not simply go on, by offset in the content; what lies behind its end does not count.
    fn breaks(&self) -> Vec<(u64, Break<'a>)> {
        let start = self.range.start;
        let breaks = self.edits.iter().filter_map(|edit| match edit {
            Edit::Cut { at, how } => Some((*at, Break::Cut(*how))),
            Edit::CutAfter { bytes, how } => Some((start + bytes, Break::Cut(*how))),
            Edit::Stall { within } => Some((start + fastrand::u64(within.clone()), Break::Stall)),
            Edit::Wait { at, gate } => Some((*at, Break::Wait(gate))),
            Edit::Flip { .. } | Edit::Shorten { .. } | Edit::Append(_) => None,
        });
        breaks.filter(|(at, _)| *at <= self.range.end).collect()
    }

    fn appended(&self) -> impl Iterator<Item = &bytes::Bytes> {
        self.edits.iter().filter_map(|edit| match edit {
            Edit::Append(bytes) => Some(bytes),
            _ => None,
        })
    }

    fn len(&self) -> u64 {
        let more: usize = self.appended().map(bytes::Bytes::len).sum();
        self.range.end - self.range.start + more as u64
    }

    /// Sends the body; how to end the connection where the script says so.
    async fn send(
        &self,
        connection: &mut Connection,
        chunked: bool,
        seen: &Seen,
    ) -> io::Result<Option<Cut>> {
        let mut at = self.range.start;
        let breaks = self.breaks();
        loop {
            let mut stop = self.range.end.min(at + PIECE);
            for (offset, brk) in &breaks {
                match brk {
                    _ if *offset > at => stop = stop.min(*offset),
                    _ if *offset < at => {}
                    Break::Wait(gate) => gate.pass().await,
                    Break::Cut(how) => {
                        seen.broke();
                        return Ok(Some(*how));
                    }
                    Break::Stall => {
                        seen.broke();
                        connection.until_left().await;
                        return Ok(Some(Cut::Reset));
                    }
                }
            }
            if at == self.range.end {
                break;
            }
            let mut piece = self.content.read(at..stop).to_vec();
            for edit in self.edits {
                if let Edit::Flip { at: flip } = edit
                    && (at..stop).contains(flip)
                {
                    let index = usize::try_from(flip - at).expect("within a piece");
                    piece[index] ^= 0x40;
                }
            }
            write(connection, chunked, &piece).await?;
            seen.has_sent(piece.len());
            at = stop;
        }
        for bytes in self.appended() {
            write(connection, chunked, bytes).await?;
        }
        Ok(None)
    }
}

async fn write(connection: &mut Connection, chunked: bool, bytes: &[u8]) -> io::Result<()> {
    if !chunked || bytes.is_empty() {
        return connection.send(bytes).await;
    }
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    connection.send(&chunk).await
}

/// Bytes written at once.
const PIECE: u64 = 64 * 1024;
