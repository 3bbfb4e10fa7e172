//! The clients on this machine: whether their files name the mirror, in the form that each needs.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use super::super::client::Client;
use super::super::mirror::{Mirror, Wish};
use super::super::place;
use super::report::Report;
use crate::config::UpstreamName;

/// Where to look.
pub(super) struct Machine<'a> {
    /// Stands for `/`.
    pub(super) root: Option<&'a Path>,
    /// `PATH`, to find programs by; none where another machine's files are looked at.
    pub(super) path: Option<&'a std::ffi::OsStr>,
}

/// Looks at the files of each client that is here.
pub(super) fn clients(machine: &Machine<'_>, mirror: &Mirror, report: &mut Report) {
    for client in Client::value_variants() {
        // Both read one file.
        if *client == Client::Crio && !machine.has(Client::Crio) {
            continue;
        }
        if machine.has(*client)
            || machine
                .main_file(*client)
                .is_some_and(|path| path.is_file())
        {
            look(machine, *client, mirror, report);
        }
    }
}

fn look(machine: &Machine<'_>, client: Client, mirror: &Mirror, report: &mut Report) {
    let what = format!("client {}", client.name());
    let wish = |registries: Vec<UpstreamName>| Wish {
        mirror: mirror.clone(),
        registries,
        authority: None,
    };
    let advice = format!(
        "`layby setup {} --mirror {mirror} --dry-run` shows what is missing",
        client.name()
    );
    let all = wish(Vec::new());
    match machine.is_told(client, &all) {
        Err(why) => return report.fail(what, why, "mend the file, then run this again"),
        Ok(true) => {
            let named = if client.has_catch_all() {
                "all registries".to_owned()
            } else {
                list(&all.named())
            };
            let named = if client.knows_registries() {
                named
            } else {
                "Docker Hub".to_owned()
            };
            return report.ok(what, format!("pulls through {mirror}: {named}"));
        }
        Ok(false) => {}
    }
    let (told, untold): (Vec<_>, Vec<_>) = all
        .named()
        .into_iter()
        .filter(|_| client.knows_registries())
        .partition(|name| machine.is_told(client, &wish(vec![name.clone()])) == Ok(true));
    if !told.is_empty() {
        let (told, untold) = (list(&told), list(&untold));
        return report.ok(
            what,
            format!("pulls through {mirror}: {told}; past it: {untold}"),
        );
    }
    if let Some(path) = machine.names(client, &all, mirror.authority()) {
        let path = path.display();
        let found = format!(
            "{path} names {}, but not in the form that is needed",
            mirror.authority()
        );
        return report.fail(what, found, advice);
    }
    report.warn(what, format!("does not pull through {mirror}"), advice);
}

fn list(names: &[UpstreamName]) -> String {
    let names: Vec<&str> = names.iter().map(UpstreamName::as_str).collect();
    names.join(", ")
}

impl Machine<'_> {
    /// Where a path of the machine is.
    fn at(&self, path: &Path) -> PathBuf {
        match self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    fn main_file(&self, client: Client) -> Option<PathBuf> {
        client.main_file().map(|path| self.at(path))
    }

    /// Whether a program of the client is here.
    fn has(&self, client: Client) -> bool {
        let folders = self.path.map(std::env::split_paths).into_iter().flatten();
        let programs = client.programs();
        folders
            .into_iter()
            .any(|folder| programs.iter().any(|name| folder.join(name).is_file()))
    }

    /// Whether the client's files already say what is wished, or why that cannot be told.
    fn is_told(&self, client: Client, wish: &Wish) -> Result<bool, String> {
        let main = match self.main_file(client) {
            Some(path) => place::read(&path).map_err(|error| error.to_string())?,
            None => None,
        };
        let missing = client.missing(wish, main.as_deref(), &|path| self.at(path));
        for piece in missing.map_err(|error| error.to_string())? {
            let path = self.at(&piece.path);
            let change = place::Change::of(&piece, &path).map_err(|error| error.to_string())?;
            if change.is_needed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A file of the client that names the mirror at all.
    fn names(&self, client: Client, wish: &Wish, authority: &str) -> Option<PathBuf> {
        let main = self
            .main_file(client)
            .and_then(|path| place::read(&path).ok()?);
        let pieces = client.pieces(wish, main.as_deref());
        pieces
            .into_iter()
            .map(|piece| self.at(&piece.path))
            .find(|path| {
                let text = place::read(path).ok().flatten();
                text.is_some_and(|text| text.contains(authority))
            })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::report::{Finding, Verdict};
    use super::*;

    fn look_at(root: &Path) -> Vec<Finding> {
        let machine = Machine {
            root: Some(root),
            path: None,
        };
        let mut report = Report::default();
        clients(
            &machine,
            &"http://127.0.0.1:5000".parse().unwrap(),
            &mut report,
        );
        report.findings
    }

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_machine_without_clients_has_nothing_to_tell() {
        let root = tempfile::tempdir().unwrap();
        assert!(look_at(root.path()).is_empty());
    }

    #[test]
    fn what_setup_writes_is_right_and_what_is_missing_is_named() {
        let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/clients");
        let stored = |name: &str| fs::read_to_string(stored.join(name)).unwrap();
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        put(
            root,
            "etc/docker/daemon.json",
            &stored("docker/daemon.json"),
        );
        put(
            root,
            "etc/rancher/k3s/registries.yaml",
            &stored("k3s/registries.yaml"),
        );
        put(
            root,
            "etc/containerd/config.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
        );
        let hub = "etc/containerd/certs.d/docker.io/hosts.toml";
        put(root, hub, &stored("containerd/docker.io/hosts.toml"));
        put(root, "etc/buildkit/buildkitd.toml", "debug = true\n");
        let findings = look_at(root);
        let found = |client: &str| {
            let what = format!("client {client}");
            let finding = findings
                .iter()
                .find(|finding| finding.what == what)
                .unwrap();
            (finding.verdict, finding.found.as_str())
        };
        assert_eq!(
            found("docker"),
            (
                Verdict::Ok,
                "pulls through http://127.0.0.1:5000: Docker Hub"
            )
        );
        assert_eq!(
            found("k3s"),
            (
                Verdict::Ok,
                "pulls through http://127.0.0.1:5000: all registries"
            )
        );
        let (verdict, containerd) = found("containerd");
        assert_eq!(verdict, Verdict::Ok);
        assert!(
            containerd.contains("docker.io; past it: ghcr.io"),
            "{containerd}"
        );
        assert_eq!(found("buildkit").0, Verdict::Warn);
        assert_eq!(findings.len(), 4);
    }

    #[test]
    fn an_entry_that_is_not_to_be_overruled_is_named() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/clients/podman");
        let own = fs::read_to_string(stored.join("registries.conf")).unwrap();
        put(
            root,
            super::super::super::registries::FILE.trim_start_matches('/'),
            &own,
        );
        assert_eq!(look_at(root)[0].verdict, Verdict::Ok);
        let theirs = "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n";
        put(root, "etc/containers/registries.conf", theirs);
        let findings = look_at(root);
        assert_eq!(findings[0].verdict, Verdict::Fail);
        let found = &findings[0].found;
        assert!(
            found.contains("containers/registries.conf is left"),
            "{found}"
        );
    }

    #[test]
    fn a_wrong_form_and_a_broken_file_are_wrong() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let https = r#"{"registry-mirrors": ["https://127.0.0.1:5000"]}"#;
        put(root, "etc/docker/daemon.json", https);
        put(root, "etc/buildkit/buildkitd.toml", "debug =\n");
        let findings = look_at(root);
        assert_eq!(findings[0].verdict, Verdict::Fail);
        assert!(findings[0].found.contains("form"), "{:?}", findings[0]);
        assert!(
            findings[0]
                .advice
                .as_ref()
                .unwrap()
                .contains("layby setup docker")
        );
        assert_eq!(findings[1].verdict, Verdict::Fail);
        assert!(
            findings[1].found.contains("not valid TOML"),
            "{:?}",
            findings[1]
        );
    }
}
