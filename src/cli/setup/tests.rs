//! What holds for all clients: their files in `config/clients/`, and what cannot be done for them.

use std::path::Path;

use clap::{Parser, ValueEnum};

use super::mirror::{Authority, Wish};
use super::*;
use crate::cli::{Cli, Command};

pub(super) fn wish(mirror: &str) -> Wish {
    Wish {
        mirror: mirror.parse().unwrap(),
        registries: Vec::new(),
        authority: None,
    }
}

pub(super) fn authority() -> Authority {
    Authority {
        path: "/etc/ssl/layby.pem".into(),
        pem: "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n".to_owned(),
    }
}

fn setup(arguments: &str) -> Setup {
    let call = format!("layby setup {arguments}");
    match Cli::try_parse_from(call.split(' ')).unwrap().command {
        Command::Setup(setup) => setup,
        other => panic!("{other:?}"),
    }
}

fn wished(setup: &Setup) -> Result<Wish, Misuse> {
    setup.wish(setup.client.unwrap())
}

#[test]
fn the_files_in_config_clients_are_what_is_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/clients");
    let stored = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let usual = wish("http://127.0.0.1:5000");
    let mut hub = usual.clone();
    hub.registries = vec!["docker.io".parse().unwrap()];
    for (name, client, wish, number) in [
        ("docker/daemon.json", Client::Docker, &usual, 0),
        (
            "containerd/_default/hosts.toml",
            Client::Containerd,
            &usual,
            1,
        ),
        (
            "containerd/docker.io/hosts.toml",
            Client::Containerd,
            &hub,
            1,
        ),
        ("podman/registries.conf", Client::Podman, &usual, 0),
        ("buildkit/buildkitd.toml", Client::Buildkit, &usual, 0),
        ("k3s/registries.yaml", Client::K3s, &usual, 0),
    ] {
        assert_eq!(
            stored(name),
            client.pieces(wish, None)[number].text,
            "{name}"
        );
    }
    let flags = Client::Kaniko.flags(&usual).unwrap();
    assert_eq!(stored("kaniko/flags"), flags);
}

#[test]
fn podman_and_cri_o_have_one_file() {
    let wish = wish("http://127.0.0.1:5000");
    let texts = |client: Client| {
        let pieces = client.pieces(&wish, None);
        pieces
            .into_iter()
            .map(|piece| (piece.path, piece.text))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(Client::Podman), texts(Client::Crio));
}

#[test]
fn a_new_file_is_left_as_it_is_the_second_time() {
    let mut tls = wish("https://layby.lan:5443");
    tls.authority = Some(authority());
    for wish in [wish("http://127.0.0.1:5000"), wish("http://layby.lan"), tls] {
        for client in Client::value_variants() {
            for piece in client.pieces(&wish, None) {
                let again = piece.merged(Some(&piece.text)).unwrap();
                assert_eq!(again, piece.text, "{client:?} {}", wish.mirror);
                assert!(
                    piece.text.contains(wish.mirror.authority())
                        || piece.path.ends_with("config.toml")
                        || piece.path.ends_with("ca.crt")
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_done_is_answered_with_what_to_do() {
    for (arguments, hint) in [
        ("docker --registry ghcr.io", "leave it out"),
        ("kaniko --write", "give it the flags"),
        ("containerd --file /x", "--root"),
        ("docker --mirror http://m:1 --ca /x", "https://"),
        ("docker --mirror https://m:1 --ca /does/not/exist", "PEM"),
        ("docker --mirror https://m:1 --ca /dev/null", "PEM"),
    ] {
        let misuse = wished(&setup(arguments)).unwrap_err().to_string();
        assert!(misuse.contains(hint), "{arguments}: {misuse}");
    }
}

#[test]
fn the_mirror_is_where_the_configuration_listens() {
    for (config, mirror) in [
        ("", "http://127.0.0.1:5000"),
        ("listen = \"0.0.0.0:80\"", "http://127.0.0.1"),
        (
            "listen = [\"[::]:5001\", \"127.0.0.1:5002\"]",
            "http://[::1]:5001",
        ),
        (
            "listen = []\n[tls]\nlisten = \"10.0.0.1:443\"\ncert_file = \"c\"\nkey_file = \"k\"",
            "https://10.0.0.1",
        ),
    ] {
        let config = Config::from_toml(config, &crate::config::Overrides::default()).unwrap();
        assert_eq!(listener(&config).unwrap().to_string(), mirror);
    }
}

#[test]
fn nothing_is_written_when_one_file_of_several_cannot_be_added_to() {
    let root = tempfile::tempdir().unwrap();
    let containerd = root.path().join("etc/containerd");
    let hosts = containerd.join("certs.d/_default/hosts.toml");
    fs::create_dir_all(hosts.parent().unwrap()).unwrap();
    fs::write(&hosts, "host = 1\n").unwrap();
    let arguments = format!(
        "containerd --write --mirror http://m:1 --root {}",
        root.path().display()
    );
    let setup = setup(&arguments);
    let wish = wished(&setup).unwrap();
    assert!(setup.place(Client::Containerd, &wish).is_err());
    assert!(fs::metadata(containerd.join("config.toml")).is_err());
}
