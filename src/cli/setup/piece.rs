//! A file of a client: what it holds when it is new, and how one that is there is changed.

use std::path::PathBuf;

/// A file that tells a client of the mirror.
pub(super) struct Piece {
    /// Where the client looks for it.
    pub(super) path: PathBuf,
    /// The whole of it, where there is none.
    pub(super) text: String,
    merge: Merge,
}

/// From what the file holds to what it should hold; the same text where nothing is missing.
type Merge = Box<dyn Fn(&str) -> Result<String, Refusal>>;

/// Why a file cannot be changed with certainty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What stands against it.
    pub(super) why: String,
}

impl Piece {
    /// The file at `path`, which is `text` when it is new and what `merge` makes of it when not.
    pub(super) fn new(
        path: impl Into<PathBuf>,
        text: String,
        merge: impl Fn(&str) -> Result<String, Refusal> + 'static,
    ) -> Self {
        Self {
            path: path.into(),
            text,
            merge: Box::new(merge),
        }
    }

    /// A file of certificates that is to hold `pem` among others.
    pub(super) fn certificate(path: impl Into<PathBuf>, pem: &str) -> Self {
        let text = format!("{}\n", pem.trim_end());
        let pem = text.clone();
        Self::new(path, text, move |old| {
            if old.contains(pem.trim()) {
                return Ok(old.to_owned());
            }
            let gap = if old.ends_with('\n') { "" } else { "\n" };
            Ok(format!("{old}{gap}{pem}"))
        })
    }

    /// What the file should hold, which holds `old` now.
    pub(super) fn merged(&self, old: Option<&str>) -> Result<String, Refusal> {
        match old {
            Some(old) if !old.trim().is_empty() => (self.merge)(old),
            _ => Ok(self.text.clone()),
        }
    }
}

impl Refusal {
    /// A refusal for this reason.
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

/// Checks what holds for every merge: no line of `old` is lost, and doing it again changes nothing.
#[cfg(test)]
pub(super) fn check_merge(piece: &Piece, old: &str) -> String {
    let new = piece.merged(Some(old)).unwrap();
    let mut lines = new.lines().map(str::trim);
    for line in old.lines().map(str::trim) {
        // An array may have got an element within its line.
        let kept = lines.any(|candidate| candidate == line || has_grown(line, candidate));
        assert!(kept, "{line:?} of\n{old}\nis not in\n{new}");
    }
    assert_eq!(piece.merged(Some(&new)).unwrap(), new, "a second time");
    assert_eq!(piece.merged(None).unwrap(), piece.text);
    let again = piece.merged(Some(&piece.text)).unwrap();
    assert_eq!(again, piece.text, "a new file a second time");
    new
}

/// Whether `new` is `old` with something put in after a bracket or brace.
#[cfg(test)]
fn has_grown(old: &str, new: &str) -> bool {
    let opens = old.char_indices().filter(|(_, c)| matches!(c, '[' | '{'));
    let mut places = opens.map(|(at, c)| at + c.len_utf8());
    places.any(|at| {
        let (before, behind) = old.split_at(at);
        new.len() > old.len() && new.starts_with(before) && new.ends_with(behind.trim_start())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_joins_those_that_are_there() {
        let piece = Piece::certificate("/ca.crt", "-----BEGIN A-----\nx\n-----END A-----");
        let new = check_merge(&piece, "-----BEGIN B-----\ny\n-----END B-----");
        assert!(new.contains("END B-----\n-----BEGIN A"), "{new}");
    }
}
