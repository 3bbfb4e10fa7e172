//! What the fake does wrong, and when.

use std::ops::Range;

use bytes::Bytes;
use http::StatusCode;
use layby::oci::Digest;

use super::gate::Gate;

/// One scripted deviation: which requests it is for, and what becomes of the answer they would have got.
///
/// The first rule that matches a request is used for it, and no other. Offsets count from the start of the content,
/// whatever range was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    method: &'static str,
    path: String,
    left: Option<usize>,
    pub(super) act: Act,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Act {
    pub(super) status: Option<StatusCode>,
    /// Set, or with `None` removed.
    pub(super) headers: Vec<(String, Option<String>)>,
    pub(super) body: Option<Bytes>,
    /// Passed before the status line.
    pub(super) hold: Option<Gate>,
    /// Instead of a status line.
    pub(super) hang_up: Option<Cut>,
    pub(super) ignores_range: bool,
    pub(super) chunked: bool,
    pub(super) edits: Vec<Edit>,
}

/// Something done to a body.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// The connection ends before the byte at this offset.
    Cut { at: u64, how: Cut },
    /// The connection ends after so many bytes of an answer.
    CutAfter { bytes: u64, how: Cut },
    /// Nothing more comes after so many bytes of an answer, as many as chance has it.
    Stall { within: Range<u64> },
    /// The byte at this offset and all behind it wait.
    Wait { at: u64, gate: Gate },
    /// The byte at this offset is another.
    Flip { at: u64 },
    /// The body ends before this offset, and says so.
    Shorten { at: u64 },
    /// These bytes follow, and the length counts them.
    Append(Bytes),
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Politely, as if all had been said.
    Fin,
    /// Abruptly.
    Reset,
}

impl Rule {
    /// For `GET`s whose path contains `path`.
    pub(crate) fn path(path: impl Into<String>) -> Self {
        Self {
            method: "GET",
            path: path.into(),
            left: None,
            act: Act::default(),
        }
    }

    /// For `GET`s of this blob or manifest, in whatever repository and also at a storage host.
    pub(crate) fn digest(digest: &Digest) -> Self {
        Self::path(digest.as_str())
    }

    /// For this method instead of `GET`; `*` for all.
    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// So many times, then never again.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }

    /// Once.
    pub(crate) fn once(self) -> Self {
        self.times(1)
    }

    /// Answers this, whatever was asked for.
    pub(crate) fn answer(mut self, status: u16, media_type: &str, body: impl Into<Bytes>) -> Self {
        self.act.status = Some(StatusCode::from_u16(status).expect("a status code"));
        self.act.body = Some(body.into());
        self.header("content-type", media_type)
    }

    /// Answers an error of the protocol.
    pub(crate) fn error(self, status: u16, code: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"scripted {code}"}}]}}"#);
        self.answer(status, "application/json", body)
    }

    /// Answers a web page, and that all is well.
    pub(crate) fn web_page(self) -> Self {
        let page = "<!doctype html><html><body>Please log in to the network.</body></html>";
        self.answer(200, "text/html; charset=utf-8", page)
    }

    /// Sends this header, in place of the one that it would have sent.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.act.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Leaves this header out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.act.headers.push((name.into(), None));
        self
    }

    /// Redirects there.
    pub(crate) fn redirect(self, status: u16, location: &str) -> Self {
        self.answer(status, "text/html", "<a href=elsewhere>elsewhere</a>")
            .header("location", location)
    }

    /// Waits at this gate before the status line.
    pub(crate) fn hold(mut self, gate: &Gate) -> Self {
        self.act.hold = Some(gate.clone());
        self
    }

    /// Ends the connection instead of answering.
    pub(crate) fn hang_up(mut self, how: Cut) -> Self {
        self.act.hang_up = Some(how);
        self
    }

    /// Waits at this gate before the byte at `at`.
    pub(crate) fn wait_at(self, at: u64, gate: &Gate) -> Self {
        let gate = gate.clone();
        self.edit(Edit::Wait { at, gate })
    }

    /// Ends the connection before the byte at `at`.
    pub(crate) fn cut(self, at: u64, how: Cut) -> Self {
        self.edit(Edit::Cut { at, how })
    }

    /// Ends the connection after so many bytes of each answer, wherever that began.
    pub(crate) fn cut_after(self, bytes: u64, how: Cut) -> Self {
        self.edit(Edit::CutAfter { bytes, how })
    }

    /// Says nothing more after so many bytes of each answer, as many as chance has it, and leaves the connection open.
    pub(crate) fn stall_within(self, within: Range<u64>) -> Self {
        self.edit(Edit::Stall { within })
    }

    /// Sends another byte at `at`.
    pub(crate) fn flip(self, at: u64) -> Self {
        self.edit(Edit::Flip { at })
    }

    /// Sends only the bytes before `at`, and announces no more.
    pub(crate) fn shorten(self, at: u64) -> Self {
        self.edit(Edit::Shorten { at })
    }

    /// Sends these bytes as well, and announces them.
    pub(crate) fn append(self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.edit(Edit::Append(bytes))
    }

    /// Answers a `Range` with everything.
    pub(crate) fn ignore_range(mut self) -> Self {
        self.act.ignores_range = true;
        self
    }

    /// Sends chunks and no length.
    pub(crate) fn chunked(mut self) -> Self {
        self.act.chunked = true;
        self
    }

    fn edit(mut self, edit: Edit) -> Self {
        self.act.edits.push(edit);
        self
    }

    /// Whether the rule is for this request; counts it if so.
    pub(super) fn takes(&mut self, method: &str, path: &str) -> bool {
        let matches = (self.method == "*" || self.method == method) && path.contains(&self.path);
        match &mut self.left {
            _ if !matches => false,
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}
