//! Files that name images, as they are given on the command line.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::images::MOST_BYTES;

/// The text of a file, or with `-` of standard input: all of it, or an error.
pub(super) fn text_of(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        whole(io::stdin().lock())
    } else {
        whole(File::open(file)?)
    }
}

fn whole(from: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One more than is taken, to see that there is more.
    from.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!(
            "it is longer than {MOST_BYTES} bytes; name the images in several files"
        )));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whole_or_not_at_all() {
        let long = |len| whole(io::repeat(b'a').take(len));
        assert_eq!(long(MOST_BYTES).unwrap().len() as u64, MOST_BYTES);
        assert!(long(MOST_BYTES + 1).is_err());
        assert!(whole(&[0xff][..]).is_err());
    }
}
