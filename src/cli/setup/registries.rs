//! podman, CRI-O, skopeo and buildah: a file in `registries.conf.d`.
//!
//! Of several entries for one registry the one in the last file is all that counts, whatever the others say.

use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, Value};

use super::mirror::{Mirror, Wish};
use super::piece::{Piece, Refusal};
use super::place::{self, Failure};
use super::toml;
use crate::config::UpstreamName;

/// The file that is Layby's own.
pub(super) const FILE: &str = "/etc/containers/registries.conf.d/050-layby.conf";

/// Where all users' files are.
const FOLDER: &str = "/etc/containers";

/// The files.
pub(super) fn pieces(wish: &Wish) -> Vec<Piece> {
    let mirror = &wish.mirror;
    let certificate = wish.authority.as_ref().map(|authority| {
        let path = format!("/etc/containers/certs.d/{}/ca.crt", mirror.authority());
        Piece::certificate(path, &authority.pem)
    });
    let own = Piece::new(FILE, text(wish), {
        let wish = wish.clone();
        move |old| merge(&wish, old)
    });
    [own].into_iter().chain(certificate).collect()
}

/// The files, without what other files of the client say already. An entry in one of them that says something else is
/// neither replaced nor added beside: that is refused. `at` tells where a path is on this machine.
pub(super) fn missing(wish: &Wish, at: &dyn Fn(&Path) -> PathBuf) -> Result<Vec<Piece>, Failure> {
    let own = at(Path::new(FILE));
    let mut rest = wish.named();
    for path in others(&own, &at(Path::new(FOLDER)))? {
        let Some(old) = place::read(&path)? else {
            continue;
        };
        for name in wish.named() {
            let one = Wish {
                registries: vec![name.clone()],
                ..wish.clone()
            };
            match is_told(&one, &name, &old) {
                Ok(None) => {}
                Ok(Some(true)) => rest.retain(|other| *other != name),
                Ok(Some(false)) => return Err(refused(&wish.mirror, &name, path, &own)),
                Err(Refusal { why }) => {
                    let text = entry(&wish.mirror, &name);
                    return Err(Failure::Refused { path, why, text });
                }
            }
        }
    }
    let mut pieces = pieces(wish);
    if rest.is_empty() {
        pieces.retain(|piece| piece.path != Path::new(FILE));
    } else if let Some(piece) = pieces.first_mut() {
        let rest = Wish {
            registries: rest,
            ..wish.clone()
        };
        *piece = self::pieces(&rest).swap_remove(0);
    }
    Ok(pieces)
}

/// What the client reads besides `own`.
fn others(own: &Path, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut folders = vec![folder.to_owned()];
    // Those of one user have a folder of their own.
    let of_own = match own.parent() {
        Some(parent) if parent.ends_with("registries.conf.d") => parent.parent(),
        parent if own.ends_with("registries.conf") => parent,
        _ => None,
    };
    folders.extend(
        of_own
            .filter(|of_own| *of_own != folder)
            .map(Path::to_owned),
    );
    let whole = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut files = Vec::new();
    for folder in folders {
        files.push(folder.join("registries.conf"));
        files.extend(place::drop_ins(&folder.join("registries.conf.d"))?);
    }
    files.retain(|path| whole(path) != whole(own));
    Ok(files)
}

/// Whether the entry of `name` in a file says what is wished of it alone; `None` where it has none.
fn is_told(one: &Wish, name: &UpstreamName, old: &str) -> Result<Option<bool>, Refusal> {
    let document = toml::parse(old)?;
    let entries: Vec<&dyn TableLike> = match document.get("registry") {
        Some(Item::ArrayOfTables(tables)) => tables.iter().map(|table| table as _).collect(),
        Some(Item::Value(Value::Array(array))) => {
            let tables = array.iter().filter_map(Value::as_inline_table);
            tables.map(|table| table as _).collect()
        }
        _ => return Ok(None),
    };
    let Some(entry) = entries.into_iter().find(|entry| is_for(*entry, name)) else {
        return Ok(None);
    };
    let is_blocked = entry.get("blocked").and_then(Item::as_bool) == Some(true);
    Ok(Some(!is_blocked && merge(one, old)? == old))
}

fn refused(mirror: &Mirror, name: &UpstreamName, path: PathBuf, own: &Path) -> Failure {
    let why = format!(
        "it has an entry for {name}, of which nothing would count beside one in {}, or the other way round; add the mirror \
         to it with --registry {name} --file {}, or leave {name} out by naming the others with --registry",
        own.display(),
        path.display()
    );
    let text = entry(mirror, name);
    Failure::Refused { path, why, text }
}

/// The entry of a registry.
fn entry(mirror: &Mirror, name: &UpstreamName) -> String {
    let insecure = if mirror.is_tls() {
        ""
    } else {
        "insecure = true\n"
    };
    format!(
        "\n[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n\n\
         [[registry.mirror]]\nlocation = \"{}\"\n{insecure}",
        mirror.of(name)
    )
}

fn text(wish: &Wish) -> String {
    let mirror = &wish.mirror;
    let named = wish.named();
    let entries: Vec<String> = named.iter().map(|name| entry(mirror, name)).collect();
    let alone = if mirror.is_tls() {
        ""
    } else {
        " and insecure = true"
    };
    format!(
        "# podman, CRI-O, skopeo and buildah: {FILE}\n\
         #\n\
         # These clients do not say which registry they mean, so each has its own path on Layby. The registry itself is \
         asked when\n\
         # Layby does not answer; to ask Layby alone, write location = \"{}/docker.io\"{alone} into\n\
         # [[registry]] and leave the mirror out.\n{}",
        mirror.authority(),
        entries.concat()
    )
}

fn merge(wish: &Wish, old: &str) -> Result<String, Refusal> {
    let mut document = toml::parse(old)?;
    if document.contains_key("registries") {
        return Err(Refusal::new(
            "it is written in the old form with [registries.search], which does not go together with [[registry]]",
        ));
    }
    for name in wish.named() {
        let registry = registry_of(&mut document, &name)?;
        let mirrors = tables(registry, "mirror")?;
        let location = wish.mirror.of(&name);
        if !mirrors
            .iter()
            .any(|mirror| says(mirror, "location", &location))
        {
            insert_first(mirrors, mirror_table(&wish.mirror, &location));
        }
    }
    Ok(document.to_string())
}

/// The entry that images of a registry are looked up by, made where there is none.
fn registry_of<'a>(
    document: &'a mut DocumentMut,
    name: &UpstreamName,
) -> Result<&'a mut Table, Refusal> {
    let registries = tables(document.as_table_mut(), "registry")?;
    let found = registries.iter().position(|entry| is_for(entry, name));
    let at = found.unwrap_or_else(|| {
        let mut table = Table::new();
        table.decor_mut().set_prefix("\n");
        table.insert("prefix", Item::Value(Value::from(name.as_str())));
        table.insert("location", Item::Value(Value::from(name.as_str())));
        registries.push(table);
        registries.len() - 1
    });
    registries
        .get_mut(at)
        .ok_or_else(|| Refusal::new("its [[registry]] entries cannot be read"))
}

fn tables<'a>(table: &'a mut Table, key: &str) -> Result<&'a mut ArrayOfTables, Refusal> {
    let item = table
        .entry(key)
        .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or_else(|| {
        Refusal::new(format!(
            "its {key} entries are not written as [[…{key}]] tables"
        ))
    })
}

/// Puts a table before those that are there, which are asked in order.
fn insert_first(tables: &mut ArrayOfTables, mut new: Table) {
    let first = tables.iter().filter_map(Table::position).min();
    new.set_position(first.map(|first| first - 1));
    tables.insert(0, new);
}

fn mirror_table(mirror: &Mirror, location: &str) -> Table {
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    table.insert("location", Item::Value(Value::from(location)));
    if !mirror.is_tls() {
        table.insert("insecure", Item::Value(Value::from(true)));
    }
    table
}

/// Whether images of a registry are looked up by this entry.
fn is_for(entry: &dyn TableLike, name: &UpstreamName) -> bool {
    says(entry, "prefix", name.as_str())
        || !entry.contains_key("prefix") && says(entry, "location", name.as_str())
}

fn says(table: &dyn TableLike, key: &str, value: &str) -> bool {
    table.get(key).and_then(Item::as_str) == Some(value)
}

#[cfg(test)]
mod tests {
    use super::super::piece::check_merge;
    use super::super::tests::wish;
    use super::*;

    fn on(registry: &str, mirror: &str) -> Piece {
        let mut wish = wish(mirror);
        wish.registries = vec![registry.parse().unwrap()];
        pieces(&wish).remove(0)
    }

    #[test]
    fn a_registry_gets_an_entry_behind_those_that_are_there() {
        let old = "unqualified-search-registries = [\"docker.io\"] # mine\n\n[[registry]]\nprefix = \"r.test\"\nlocation = \"r.test\"\n";
        let new = check_merge(&on("ghcr.io", "http://127.0.0.1:5000"), old);
        let entry = "\n[[registry]]\nprefix = \"ghcr.io\"\nlocation = \"ghcr.io\"\n\n[[registry.mirror]]\nlocation = \"127.0.0.1:5000/ghcr.io\"\ninsecure = true\n";
        assert_eq!(new, format!("{old}{entry}"));
    }

    #[test]
    fn the_mirror_is_asked_before_those_that_are_there() {
        let old = "[[registry]]\nlocation = \"ghcr.io\"\nblocked = false\n[[registry.mirror]]\nlocation = \"old.test/a\"\n\n[[registry.mirror]]\nlocation = \"old.test/b\"\n\n[[registry]]\nprefix = \"*.test\"\n";
        let new = check_merge(&on("ghcr.io", "https://layby.lan"), old);
        let at = |what: &str| new.find(what).unwrap();
        assert!(at("layby.lan/ghcr.io") < at("old.test/a"), "{new}");
        assert!(at("blocked") < at("layby.lan"), "{new}");
        assert!(!new.contains("insecure"), "{new}");
        assert_eq!(new.matches("[[registry]]").count(), 2);
    }

    /// What is missing on a machine with these files in its `/etc/containers`.
    fn missing_beside(registry: &str, files: &[(&str, &str)]) -> Result<Vec<Piece>, Failure> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join("etc/containers").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut wish = wish("http://127.0.0.1:5000");
        wish.registries = vec!["r.test".parse().unwrap(), registry.parse().unwrap()];
        missing(&wish, &|path| {
            root.path().join(path.strip_prefix("/").unwrap())
        })
    }

    #[test]
    fn an_entry_in_another_file_is_neither_replaced_nor_overruled() {
        let blocked = "[[registry]]\nlocation = \"ghcr.io\"\nblocked = true\n";
        let mirrored = "registry = [{ prefix = \"ghcr.io\", location = \"m.test\" }]\n";
        let added = entry(
            &"http://127.0.0.1:5000".parse().unwrap(),
            &"ghcr.io".parse().unwrap(),
        );
        for (name, text) in [
            ("registries.conf", blocked.to_owned()),
            ("registries.conf.d/000-a.conf", mirrored.to_owned()),
            ("registries.conf.d/999-z.conf", blocked.to_owned()),
            (
                "registries.conf.d/a.conf",
                added.replace("\n\n[[", "\nblocked = true\n[["),
            ),
        ] {
            match missing_beside("ghcr.io", &[(name, &text)]) {
                Err(Failure::Refused { path, text, .. }) => {
                    assert!(path.ends_with(name), "{}", path.display());
                    assert_eq!(text, added);
                }
                other => panic!("{name}: {}", other.is_ok()),
            }
            assert!(
                missing_beside("quay.io", &[(name, &text)]).is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_another_file_says_already_is_not_said_twice() {
        let mirror = "http://127.0.0.1:5000".parse().unwrap();
        let told = |name: &str| entry(&mirror, &name.parse().unwrap());
        let own = missing_beside("ghcr.io", &[("registries.conf", &told("ghcr.io"))]).unwrap();
        assert!(own[0].text.contains(&told("r.test")) && !own[0].text.contains("ghcr.io"));
        let both = told("ghcr.io") + &told("r.test");
        let own = missing_beside("ghcr.io", &[("registries.conf.d/a.conf", &both)]).unwrap();
        assert!(own.is_empty());
        let itself = missing_beside("ghcr.io", &[("registries.conf.d/050-layby.conf", &both)]);
        assert_eq!(itself.unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_added_to_is_refused() {
        let piece = on("ghcr.io", "http://127.0.0.1:5000");
        for (old, why) in [
            ("[registries.search]\nregistries = []\n", "old form"),
            ("registry = [{ location = \"ghcr.io\" }]\n", "[[…registry]]"),
            ("[[registry]]\nlocation =\n", "not valid TOML"),
        ] {
            let refusal = piece.merged(Some(old)).unwrap_err();
            assert!(refusal.why.contains(why), "{old}: {refusal:?}");
        }
    }
}
