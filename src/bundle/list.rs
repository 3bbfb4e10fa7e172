//! What an export holds, so that the next one can leave it out: a list that is small enough to stay where the export was
//! made.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::oci::Digest;

use super::Fault;

/// The blobs that the other side has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// The exports that they are in: the digests of their `index.json`.
    pub exports: BTreeSet<Digest>,
    /// Manifests and other blobs.
    pub blobs: BTreeSet<Digest>,
}

impl List {
    /// What several lists say.
    pub fn extend(&mut self, other: Self) {
        self.exports.extend(other.exports);
        self.blobs.extend(other.blobs);
    }

    /// The list as text.
    pub fn to_text(&self) -> String {
        let mut text = String::from(START);
        for (word, digests) in [("export", &self.exports), ("blob", &self.blobs)] {
            for digest in digests {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{word} {digest}");
            }
        }
        text
    }

    /// Whether a file that starts like this is a list.
    pub fn is_start(bytes: &[u8]) -> bool {
        bytes.starts_with(b"# layby export ")
    }

    /// Reads a list.
    pub fn read(text: &str) -> Result<Self, Fault> {
        let mut list = Self::default();
        let mut is_first = true;
        for line in text.lines() {
            if std::mem::take(&mut is_first) && format!("{line}\n") != START {
                return Err(Fault::document("the list", &"it is of another version"));
            }
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || Fault::document("the list", &format!("{line:?} is no line of it"));
            let (word, digest) = line.split_once(' ').ok_or_else(wrong)?;
            let digest: Digest = digest.trim().parse().map_err(|_| wrong())?;
            let into = match word {
                "export" => &mut list.exports,
                "blob" => &mut list.blobs,
                _ => return Err(wrong()),
            };
            into.insert(digest);
        }
        Ok(list)
    }
}

const START: &str = "# layby export 1: what the other side has, for layby export --since\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let list = List {
            exports: [Digest::sha256(b"1")].into(),
            blobs: [Digest::sha256(b"2"), Digest::sha256(b"3")].into(),
        };
        let text = list.to_text();
        assert!(List::is_start(text.as_bytes()));
        assert_eq!(List::read(&text).unwrap(), list);
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        for line in ["x", "blob", "blob sha256:0", "tag sha256:0"] {
            let text = format!("{START}{line}\n");
            assert!(List::read(&text).is_err(), "{line}");
        }
        assert!(List::read("# layby export 2\n").is_err());
    }
}
