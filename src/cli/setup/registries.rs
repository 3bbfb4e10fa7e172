//! podman, CRI-O, skopeo and buildah: a file in `registries.conf.d`.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, Value};

use super::mirror::{Mirror, Wish};
use super::piece::{Piece, Refusal};
use super::toml;
use crate::config::UpstreamName;

/// The file that is Layby's own.
pub(super) const FILE: &str = "/etc/containers/registries.conf.d/050-layby.conf";

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

fn text(wish: &Wish) -> String {
    let mirror = &wish.mirror;
    let entries: Vec<String> = wish
        .named()
        .iter()
        .map(|name| {
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
        })
        .collect();
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
    let found = registries.iter().position(|registry| {
        says(registry, "prefix", name.as_str())
            || !registry.contains_key("prefix") && says(registry, "location", name.as_str())
    });
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

fn says(table: &Table, key: &str, value: &str) -> bool {
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
