//! Plain lists: an image per line, comments behind `#`.

use super::{Finds, ListError};

pub(super) fn read(text: &str, finds: &mut Finds) -> Result<(), ListError> {
    for (number, line) in lines(text) {
        // What docker images prints of an image that lost its name.
        if line.contains("<none>") {
            finds.note(number, "an image without a name is passed over");
            continue;
        }
        finds.image(line, number)?;
    }
    Ok(())
}

/// What stands on the lines of a list, each with its number.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(|line| without_comment(line).trim());
    (1..).zip(lines).filter(|(_, line)| !line.is_empty())
}

/// A `#` begins a comment at the start of a line and behind a space.
fn without_comment(line: &str) -> &str {
    let begins = |(at, c): (usize, char)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        (c == '#' && before.is_none_or(char::is_whitespace)).then_some(at)
    };
    let end = line.char_indices().find_map(begins);
    end.and_then(|end| line.get(..end)).unwrap_or(line)
}
