//! Tables of images as docker, nerdctl, crictl and ctr print them: known by the words of their first line.

use super::Finds;

/// Where in its lines a table names images.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// The whole name begins here.
    Name(usize),
    /// The repository, and the tag.
    Parts(usize, usize),
}

/// The columns of a table; `None`: the text is none.
pub(super) fn columns(text: &str) -> Option<Columns> {
    let head = text.lines().find(|line| !line.trim().is_empty())?;
    let is_upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_whitespace() || c == '/';
    if !head.chars().all(is_upper) || head.split_whitespace().count() < 2 {
        return None;
    }
    // `IMAGE ID` is another column than `IMAGE`.
    let at = |title: &str| {
        head.match_indices(title).find_map(|(at, _)| {
            let begins = at == 0 || head.get(at - 1..at) == Some(" ");
            let rest = head.get(at + title.len()..)?;
            let ends = rest.is_empty() || rest.starts_with("  ") || rest.trim().is_empty();
            (begins && ends).then_some(at)
        })
    };
    let name = at("REPOSITORY").or_else(|| at("IMAGE"));
    match (name, at("TAG"), at("REF")) {
        (Some(name), Some(tag), _) => Some(Columns::Parts(name, tag)),
        (Some(name), None, _) | (None, _, Some(name)) => Some(Columns::Name(name)),
        _ => None,
    }
}

pub(super) fn read(text: &str, columns: &Columns, finds: &mut Finds) {
    let mut lines = (1..).zip(text.lines());
    // Up to the head, which was found.
    let _ = lines.find(|(_, line)| !line.trim().is_empty());
    for (number, line) in lines {
        let word = |at: usize| {
            let rest = line.get(at..)?;
            let word = rest.split_whitespace().next()?;
            (!rest.starts_with(' ')).then_some(word)
        };
        let name = match columns {
            Columns::Name(at) => word(*at).map(str::to_owned),
            Columns::Parts(name, tag) => word(*name)
                .zip(word(*tag))
                .map(|(name, tag)| format!("{name}:{tag}")),
        };
        match name {
            None if line.trim().is_empty() => {}
            // ctr lists images under the digests of their configurations too.
            Some(name) if name.starts_with("sha256:") => {}
            Some(name) if !name.contains("<none>") && finds.image(&name, number).is_ok() => {}
            _ => finds.note(number, "names no image, and is passed over"),
        }
    }
}
