//! containerd: `hosts.toml`, one for each registry or one for all, and the line that names their directory.

use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, Value};

use super::mirror::Wish;
use super::piece::{Piece, Refusal};
use super::toml;

/// containerd's own configuration.
pub(super) const FILE: &str = "/etc/containerd/config.toml";
/// Where `hosts.toml` files are, unless the configuration says otherwise.
pub(super) const HOSTS: &str = "/etc/containerd/certs.d";

/// What is to be known about it.
pub(super) fn notes(wish: &Wish) -> Vec<String> {
    let mut notes = vec!["ctr reads hosts.toml files with --hosts-dir alone".to_owned()];
    if wish.registries.is_empty() {
        let note = "a registry with a directory of its own does not use _default";
        notes.push(note.to_owned());
    }
    notes
}

/// The files, where containerd's configuration holds `config`.
pub(super) fn pieces(wish: &Wish, config: Option<&str>) -> Vec<Piece> {
    let folder = config.and_then(hosts_folder);
    let folder = folder.unwrap_or_else(|| HOSTS.to_owned());
    let names: Vec<String> = if wish.registries.is_empty() {
        vec!["_default".to_owned()]
    } else {
        wish.registries.iter().map(ToString::to_string).collect()
    };
    let own = Piece::new(FILE, config_text(&folder), {
        let folder = folder.clone();
        move |old| merge_config(&folder, old)
    });
    let hosts = names.iter().map(|name| {
        // With a port it is the same directory name: containerd looks for `host:port` first.
        let path = Path::new(&folder).join(name).join("hosts.toml");
        let (text, wish) = (hosts_text(wish, name, &folder), wish.clone());
        Piece::new(path, text, move |old| merge_hosts(&wish, old))
    });
    [own].into_iter().chain(hosts).collect()
}

/// The directory of `hosts.toml` files that a configuration names, the first where it names several.
pub(super) fn hosts_folder(config: &str) -> Option<String> {
    let document: DocumentMut = config.parse().ok()?;
    let plugins = document.get("plugins")?;
    let set = PLUGINS.iter().find_map(|(_, plugin)| {
        let path = plugins.get(plugin)?.get("registry")?.get("config_path")?;
        path.as_str().filter(|path| !path.is_empty())
    })?;
    set.split(':').next().map(str::to_owned)
}

fn config_text(folder: &str) -> String {
    format!(
        "# containerd: {FILE}\n\
         version = 2\n\
         \n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
         config_path = \"{folder}\"\n"
    )
}

fn merge_config(folder: &str, old: &str) -> Result<String, Refusal> {
    let mut document = toml::parse(old)?;
    let version = document.get("version").map_or(Some(1), Item::as_integer);
    let plugin = PLUGINS.iter().find(|(of, _)| Some(*of) == version);
    let (_, plugin) = plugin.ok_or_else(|| {
        Refusal::new(format!(
            "its version is none of 1, 2 and 3; containerd's documentation says where config_path = \"{folder}\" goes"
        ))
    })?;
    let registry = toml::table_at(&mut document, &["plugins", plugin, "registry"])?;
    for (key, is_in_the_way) in [
        ("mirrors", has_any as fn(&Item) -> bool),
        ("configs", has_tls),
    ] {
        if registry.get(key).is_some_and(is_in_the_way) {
            return Err(Refusal::new(format!(
                "it has registry.{key} with settings that containerd does not take beside config_path: move them to \
                 hosts.toml files in {folder} first"
            )));
        }
    }
    match registry.get_mut("config_path").map(Item::as_value_mut) {
        Some(Some(path)) if path.as_str() == Some("") => {
            let decor = path.decor().clone();
            *path = Value::from(folder);
            *path.decor_mut() = decor;
        }
        Some(_) => {}
        None => {
            registry.insert("config_path", Item::Value(Value::from(folder)));
        }
    }
    Ok(document.to_string())
}

fn has_any(item: &Item) -> bool {
    item.as_table_like().is_none_or(|table| !table.is_empty())
}

/// Whether a registry has settings for TLS, which are the ones that `config_path` excludes.
fn has_tls(item: &Item) -> bool {
    let hosts = item.as_table_like();
    hosts.is_none_or(|hosts| hosts.iter().any(|(_, host)| host.get("tls").is_some()))
}

fn hosts_text(wish: &Wish, name: &str, folder: &str) -> String {
    let url = wish.mirror.to_string();
    let head = if name == "_default" {
        format!(
            "# containerd, all registries that have no directory of their own: {folder}/_default/hosts.toml\n\
             #\n\
             # containerd adds ?ns=<registry>, by which Layby knows whom to ask; a registry that Layby does not know is \
             answered 404.\n"
        )
    } else {
        format!("# containerd, one registry: {folder}/{name}/hosts.toml\n#\n")
    };
    let last = match name {
        "_default" => "the registry",
        "docker.io" => "https://registry-1.docker.io",
        name => &format!("https://{name}"),
    };
    let authority = wish.authority.as_ref().map(|authority| {
        let path = Value::from(authority.path.display().to_string());
        format!("  ca = {path}\n")
    });
    format!(
        "{head}\
         # The directory must be named in containerd's own configuration (version 2 of it, containerd 1.x):\n\
         #   [plugins.\"io.containerd.grpc.v1.cri\".registry]\n\
         #     config_path = \"{folder}\"\n\
         # in version 3 (containerd 2.x): [plugins.\"io.containerd.cri.v1.images\".registry]; for ctr: --hosts-dir.\n\
         \n\
         # What is asked last. Here Layby itself, so that nothing goes past it; without this line it is {last}.\n\
         server = \"{url}\"\n\
         \n\
         # Not left to `server` alone: containerd 1.6 then still asks Docker Hub.\n\
         [host.\"{url}\"]\n  \
           capabilities = [\"pull\", \"resolve\"]\n{}",
        authority.unwrap_or_default()
    )
}

fn merge_hosts(wish: &Wish, old: &str) -> Result<String, Refusal> {
    let url = wish.mirror.to_string();
    let mut document = toml::parse(old)?;
    let first = first_host(&document)?;
    let is_there = document
        .get("host")
        .is_some_and(|hosts| hosts.get(&url).is_some());
    let host = toml::table_at(&mut document, &["host", &url])?;
    if is_there {
        // Without the key a host may do everything.
        if host.contains_key("capabilities") {
            let capabilities = toml::strings(host, "capabilities")?;
            for needed in ["resolve", "pull"] {
                toml::put_first(capabilities, needed);
            }
        }
    } else {
        let capabilities = ["pull", "resolve"].into_iter().collect();
        host.insert("capabilities", Item::Value(Value::Array(capabilities)));
    }
    if let Some(authority) = &wish.authority
        && !host.contains_key("ca")
    {
        let path = authority.path.display().to_string();
        host.insert("ca", Item::Value(Value::from(path)));
    }
    if let (false, Some(first)) = (is_there, first) {
        // containerd asks hosts in the order of the file.
        let hosts = document.get_mut("host").and_then(Item::as_table_mut);
        if let Some(host) = hosts
            .and_then(|hosts| hosts.get_mut(&url))
            .and_then(Item::as_table_mut)
        {
            host.set_position(Some(first - 1));
        }
    }
    Ok(document.to_string())
}

/// Where the first host's table stands among the tables of the file, if there is a host.
fn first_host(document: &DocumentMut) -> Result<Option<isize>, Refusal> {
    let Some(hosts) = document.get("host") else {
        return Ok(None);
    };
    let refused =
        || Refusal::new("its hosts are not written as tables of their own, [host.\"https://…\"]");
    let hosts = hosts.as_table().ok_or_else(refused)?;
    let positions: Option<Vec<isize>> = hosts
        .iter()
        .map(|(_, host)| host.as_table().and_then(Table::position))
        .collect();
    positions
        .ok_or_else(refused)
        .map(|positions| positions.into_iter().min())
}

/// The name of containerd's CRI plugin in each version of its configuration.
const PLUGINS: [(i64, &str); 3] = [
    (2, "io.containerd.grpc.v1.cri"),
    (3, "io.containerd.cri.v1.images"),
    (1, "cri"),
];

#[cfg(test)]
mod tests {
    use super::super::piece::check_merge;
    use super::super::tests::{authority, wish};
    use super::*;

    const URL: &str = "http://127.0.0.1:5000";

    fn config(old: &str) -> Result<String, Refusal> {
        pieces(&wish(URL), Some(old))[0].merged(Some(old))
    }

    #[test]
    fn the_directory_is_named_where_each_version_looks_for_it() {
        for (old, table) in [
            (
                "version = 2\n# mine\nroot = \"/r\"\n",
                "[plugins.\"io.containerd.grpc.v1.cri\".registry]",
            ),
            (
                "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\n  snapshotter = \"overlayfs\"\n",
                "[plugins.\"io.containerd.cri.v1.images\".registry]",
            ),
            ("disabled_plugins = [\"x\"]\n", "[plugins.cri.registry]"),
        ] {
            let pieces = pieces(&wish(URL), Some(old));
            let new = check_merge(&pieces[0], old);
            let path = format!("{table}\nconfig_path = \"/etc/containerd/certs.d\"\n");
            assert!(new.contains(&path), "{new}");
        }
    }

    #[test]
    fn a_registry_table_that_is_there_gets_the_key() {
        let old = "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"\"\n      [plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n  [plugins.\"z\"]\n";
        let new = config(old).unwrap();
        assert_eq!(
            new,
            old.replace(
                "config_path = \"\"",
                "config_path = \"/etc/containerd/certs.d\""
            )
        );
        let inline =
            "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { registry = {} } }\n";
        let new = config(inline).unwrap();
        assert!(new.contains("registry = { config_path = "), "{new}");
    }

    #[test]
    fn hosts_go_to_the_directory_that_is_named_already() {
        let old = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/opt/certs:/etc/docker/certs.d\"\n";
        let pieces = pieces(&wish(URL), Some(old));
        assert_eq!(check_merge(&pieces[0], old), old);
        assert_eq!(
            pieces[1].path.to_str(),
            Some("/opt/certs/_default/hosts.toml")
        );
    }

    #[test]
    fn what_containerd_would_not_start_with_is_refused() {
        let registry = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry";
        for (old, why) in [
            (
                format!("{registry}.mirrors.\"docker.io\"]\nendpoint = []\n"),
                "registry.mirrors",
            ),
            (
                format!("{registry}.configs.\"r.test\".tls]\n"),
                "registry.configs",
            ),
            ("version = 9\n".to_owned(), "version"),
            ("version = \n".to_owned(), "not valid TOML"),
            ("version = 2\nplugins = 1\n".to_owned(), "no table"),
        ] {
            let refusal = config(&old).unwrap_err();
            assert!(refusal.why.contains(why), "{old}: {refusal:?}");
        }
        let login = format!("{registry}.configs.\"r.test\".auth]\nusername = \"u\"\n");
        assert!(config(&login).is_ok(), "a login is taken beside it");
    }

    #[test]
    fn the_mirror_is_asked_before_the_hosts_that_are_there() {
        let old = "# ours\nserver = \"https://registry-1.docker.io\"\n\n[host.\"https://old.test\"]\n  capabilities = [\"pull\"]\n\n[host.\"https://old.test\".header]\n  x = \"1\"\n";
        let mut wish = wish(URL);
        wish.registries = vec!["docker.io".parse().unwrap()];
        let piece = &pieces(&wish, None)[1];
        let new = check_merge(piece, old);
        let at = |what: &str| new.find(what).unwrap();
        assert!(
            at("[host.\"http://127") < at("[host.\"https://old"),
            "{new}"
        );
        assert!(at("server = ") < at("[host.\"http://127"), "{new}");
        assert!(!new.contains("server = \"http://127"), "{new}");
        let weak = format!("[host.\"{URL}\"]\ncapabilities = [\"pull\"]\n");
        let new = check_merge(piece, &weak);
        assert!(new.contains("[\"resolve\", \"pull\"]"), "{new}");
    }

    #[test]
    fn an_authority_is_named_with_the_host() {
        let mut wish = wish("https://layby.lan");
        wish.authority = Some(authority());
        let piece = &pieces(&wish, None)[1];
        assert!(piece.text.ends_with("\n  ca = \"/etc/ssl/layby.pem\"\n"));
        let new = check_merge(piece, "server = \"https://x.test\"\n");
        assert!(new.contains("ca = \"/etc/ssl/layby.pem\""), "{new}");
    }

    #[test]
    fn hosts_that_are_no_tables_are_refused() {
        let piece = &pieces(&wish(URL), None)[1];
        for old in [
            "host = \"x\"\n",
            "host.\"https://x.test\".capabilities = [\"pull\"]\n",
            "host = { \"https://x.test\" = {} }\n",
        ] {
            assert!(piece.merged(Some(old)).is_err(), "{old}");
        }
    }
}
