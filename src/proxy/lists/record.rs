//! A list as an upstream answered it.

use std::io;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::MediaType;
use crate::upstream;

use super::freshness::Withdrawn;
use super::{CacheOutcome, ListAnswer, StaleReason};

/// The record `_lists/…`: one line of JSON, a line feed, and the body as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListRecord {
    pub(super) head: ListHead,
    pub(super) fetched: Timestamp,
    /// What the upstream has said since, if it has.
    pub(super) withdrawn: Option<Withdrawn>,
    pub(super) body: Bytes,
}

/// What belongs to a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListHead {
    /// The question, whole.
    pub(super) query: String,
    pub(super) media_type: MediaType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filters_applied: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct FirstLine {
    #[serde(flatten)]
    head: ListHead,
    fetched: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    withdrawn: Option<Withdrawn>,
}

/// Memory of an entry besides its body, roughly.
const OVERHEAD: usize = 1024;

impl ListRecord {
    /// The record of an answer to `query`.
    pub(super) fn of(query: String, answer: upstream::ListAnswer, fetched: Timestamp) -> Self {
        Self {
            head: ListHead {
                query,
                media_type: answer.media_type,
                next: answer.next,
                filters_applied: answer.filters_applied,
            },
            fetched,
            withdrawn: None,
            body: answer.body,
        }
    }

    /// The same list after the upstream took it away.
    pub(super) fn taken_away(&self, how: Withdrawn) -> Self {
        Self {
            withdrawn: Some(how),
            ..self.clone()
        }
    }

    /// Why it is served stale, where the present reason is this one.
    pub(super) fn reason(&self, present: StaleReason) -> StaleReason {
        Withdrawn::reason(self.withdrawn, present)
    }

    pub(super) fn weight(&self) -> u32 {
        u32::try_from(self.body.len().saturating_add(OVERHEAD)).unwrap_or(u32::MAX)
    }

    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&FirstLine {
            head: self.head.clone(),
            fetched: self.fetched,
            withdrawn: self.withdrawn,
        })?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    pub(super) fn from_bytes(bytes: Vec<u8>) -> io::Result<Self> {
        let bytes = Bytes::from(bytes);
        let end = bytes
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let first: FirstLine = serde_json::from_slice(&bytes.slice(..end))?;
        Ok(Self {
            head: first.head,
            fetched: first.fetched,
            withdrawn: first.withdrawn,
            body: bytes.slice(end + 1..),
        })
    }

    /// What the client gets.
    pub(super) fn answer(&self, outcome: CacheOutcome, warning: Option<String>) -> ListAnswer {
        ListAnswer {
            body: self.body.clone(),
            media_type: self.head.media_type.clone(),
            next: self.head.next.clone(),
            filters_applied: self.head.filters_applied.clone(),
            outcome,
            warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_from_disk_byte_for_byte() {
        let answer = upstream::ListAnswer {
            body: Bytes::from_static(b"{\n  \"tags\" : [ \"a\" ]\n}\n\xff"),
            media_type: MediaType::parse("application/json").unwrap(),
            next: Some("n=1&last=a".to_owned()),
            filters_applied: None,
        };
        let record = ListRecord::of("tags?n=1".to_owned(), answer, Timestamp::UNIX_EPOCH);
        let read = ListRecord::from_bytes(record.to_bytes().unwrap()).unwrap();
        assert_eq!(read, record);
        let gone = record.taken_away(Withdrawn::Gone);
        let read = ListRecord::from_bytes(gone.to_bytes().unwrap()).unwrap();
        assert_eq!(read, gone);
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        for bad in ["", "{}", "{}\n", "x\n{}"] {
            assert!(ListRecord::from_bytes(bad.into()).is_err(), "{bad}");
        }
    }
}
