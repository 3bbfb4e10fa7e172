//! The parts of the program import each other in one direction only: `server → proxy → {flight, store, upstream} → oci`.
//!
//! Read from the sources, so that a new import the wrong way fails here and not in a review. A new part needs a line in
//! [`PARTS`].

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the sources has failed"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part of `src/`, and the parts that it may import.
const PARTS: &[(&str, &[&str])] = &[
    ("oci", &[]),
    ("images", &[]),
    ("bundle", &["oci"]),
    ("config", &["oci"]),
    ("telemetry", &["config"]),
    ("runtime", &["config", "telemetry"]),
    ("store", &["oci", "config", "telemetry", "runtime"]),
    ("upstream", &["oci", "config", "telemetry", "runtime"]),
    ("flight", &["oci", "config", "telemetry", "runtime"]),
    (
        "proxy",
        &[
            "bundle",
            "flight",
            "store",
            "upstream",
            "oci",
            "config",
            "telemetry",
            "runtime",
        ],
    ),
    (
        "server",
        &[
            "proxy",
            "flight",
            "store",
            "upstream",
            "oci",
            "config",
            "telemetry",
            "runtime",
        ],
    ),
    (
        "app",
        &[
            "bundle",
            "server",
            "proxy",
            "flight",
            "store",
            "upstream",
            "oci",
            "config",
            "telemetry",
            "runtime",
        ],
    ),
    (
        "cli",
        &[
            "bundle",
            "app",
            "images",
            "server",
            "proxy",
            "flight",
            "store",
            "upstream",
            "oci",
            "config",
            "telemetry",
            "runtime",
        ],
    ),
];

/// Files that tie the parts together and belong to none.
const ROOTS: &[&str] = &["lib", "main"];

#[test]
fn imports_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let mut faults = Vec::new();
    let mut parts_seen = BTreeSet::new();
    for file in &files {
        let path = file.strip_prefix(&src).unwrap();
        let text = fs::read_to_string(file).unwrap();
        parts_seen.insert(part_of(path));
        faults.extend(faults_of(path, &text));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    assert!(
        parts_seen.contains("oci") && parts_seen.contains("proxy"),
        "{parts_seen:?}"
    );
}

#[test]
fn an_import_the_wrong_way_is_found_however_it_is_written() {
    for (path, text) in [
        ("oci/digest.rs", "use crate::config::Config;"),
        ("oci/digest.rs", "pub use crate::runtime;"),
        ("store/mod.rs", "fn f() { crate::upstream::get() }"),
        (
            "store/blobs/mod.rs",
            "use crate::{\n    config::Cache,\n    flight::ports::{Blobs, Stage},\n};",
        ),
        ("upstream/client.rs", "use crate::{oci, store};"),
        (
            "flight/table.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::proxy::Place;\n}",
        ),
        ("flight/table.rs", "use super::super::store::Store;"),
        ("proxy/mod.rs", "use super::server::Server;"),
        ("proxy/mod.rs", "use crate::cli::Serve;"),
        ("server/mod.rs", "use crate::app::App;"),
        ("app.rs", "use crate::cli::Serve;"),
        ("proxy/mod.rs", "use crate :: server;"),
        ("store/mod.rs", "use crate::*;"),
        ("novelty/mod.rs", ""),
    ] {
        assert_eq!(faults_of(Path::new(path), text).len(), 1, "{path}: {text}");
    }
}

#[test]
fn an_import_the_right_way_is_no_fault() {
    for (path, text) in [
        (
            "oci/route/mod.rs",
            "use crate::oci::Digest;\nuse super::super::Digest;",
        ),
        (
            "proxy/mod.rs",
            "use crate::{flight, oci::{Digest, Tag}, store::{self, Store}, upstream::Upstreams};",
        ),
        (
            "store/mod.rs",
            "// unlike crate::upstream\n/// See [`crate::flight`].\n//! crate::proxy\nuse crate::runtime::Clock;",
        ),
        (
            "store/mod.rs",
            "macro_rules! m { () => { $crate::oci::Digest } }\nuse mycrate::upstream;",
        ),
        ("main.rs", "use layby::cli;"),
        ("lib.rs", "pub use crate::server::Server;"),
        ("cli/serve.rs", "use crate::app::App;"),
    ] {
        assert_eq!(
            faults_of(Path::new(path), text),
            Vec::<String>::new(),
            "{path}: {text}"
        );
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The part that a file below `src/` belongs to.
fn part_of(path: &Path) -> String {
    let first = path
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first
        .strip_suffix(".rs")
        .map(str::to_owned)
        .unwrap_or(first)
}

/// What is wrong with the imports of a file below `src/`.
fn faults_of(path: &Path, text: &str) -> Vec<String> {
    let part = part_of(path);
    if ROOTS.contains(&part.as_str()) {
        return Vec::new();
    }
    let Some((_, allowed)) = PARTS.iter().find(|(name, _)| *name == part) else {
        return vec![format!(
            "src/{}: the part {part:?} is not in PARTS of tests/structure.rs: say there what it may import",
            path.display()
        )];
    };
    imports(path, text)
        .into_iter()
        .filter(|import| *import != part && !allowed.contains(&import.as_str()))
        .map(|import| {
            format!(
                "src/{}: imports crate::{import}, but {part} may import only {allowed:?}: move what is shared to a part that \
                 both may import, or pass it in",
                path.display()
            )
        })
        .collect()
}

/// The parts that a file names, its own among them perhaps, each once; `*` for an import of everything.
fn imports(path: &Path, text: &str) -> BTreeSet<String> {
    let code = without_comments(text);
    let tokens: Vec<&str> = tokens(&code);
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| tokens[before]);
        match *token {
            "crate" if before != Some("$") && tokens.get(at + 1) == Some(&"::") => {
                found.extend(heads(&tokens[at + 2..]));
            }
            "super" if before != Some("::") => found.extend(above(path, &tokens[at..])),
            _ => {}
        }
    }
    found
}

/// The first names of a path, or of each path in a group.
fn heads(tokens: &[&str]) -> Vec<String> {
    if tokens.first() != Some(&"{") {
        return tokens
            .first()
            .map(ToString::to_string)
            .into_iter()
            .collect();
    }
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut is_start = true;
    for token in tokens {
        match *token {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," if depth == 1 => is_start = true,
            name if depth == 1 && is_start => {
                heads.push(name.to_owned());
                is_start = false;
            }
            _ => {}
        }
    }
    heads
}

/// The part that a chain of `super` leads to when it is long enough to leave the file's own.
fn above(path: &Path, tokens: &[&str]) -> Option<String> {
    let links = tokens
        .chunks(2)
        .take_while(|pair| **pair == ["super", "::"])
        .count();
    let is_folder = path.ends_with("mod.rs");
    let depth = path.components().count() - usize::from(is_folder);
    let name = tokens.get(links * 2)?;
    let is_part = PARTS.iter().any(|(part, _)| part == name);
    (links >= depth && is_part).then(|| (*name).to_owned())
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Words, `::`, and every other character that is no space.
fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, behind) = rest.split_at(len);
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}
