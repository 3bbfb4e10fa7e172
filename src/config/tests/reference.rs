//! The files in `config/`.

use super::*;

/// The file as it would be with every example turned into a key.
fn with_examples(reference: &str) -> String {
    reference.replace("#: ", "")
}

const REFERENCE: &str = include_str!("../../../config/reference.toml");

#[test]
fn the_reference_holds_the_defaults() {
    let mut reference = good(REFERENCE);
    let defaults = good("");
    reference.data_dir.clone_from(&defaults.data_dir);
    assert_eq!(format!("{reference:#?}"), format!("{defaults:#?}"));
}

#[test]
fn the_reference_with_all_examples_is_right() {
    let config = good(&with_examples(REFERENCE));
    assert!(config.tls.is_some());
    assert_eq!(upstream(&config, "registry.example.com").urls.len(), 2);
}

/// What a list holds; what is none, itself.
fn items(value: &toml::Value) -> Vec<&toml::Value> {
    value
        .as_array()
        .map_or_else(|| vec![value], |array| array.iter().collect())
}

#[test]
fn the_reference_names_every_key() {
    let reference: toml::Table = with_examples(REFERENCE).parse().expect("TOML");
    let holds = |section: &str, key: &str| {
        let mut tables = vec![&reference];
        for part in section.split('.').filter(|part| !part.is_empty()) {
            tables = tables
                .into_iter()
                .flat_map(|table| match part {
                    "*" => table.values().flat_map(items).collect(),
                    part => table
                        .get(part)
                        .into_iter()
                        .flat_map(items)
                        .collect::<Vec<_>>(),
                })
                .filter_map(toml::Value::as_table)
                .collect();
        }
        tables.iter().any(|table| table.contains_key(key))
    };
    for (section, header) in [
        ("", ""),
        ("tls", "[tls]"),
        ("admin", "[admin]"),
        ("tags", "[tags]"),
        ("tags.*", "[[tags.rule]]"),
        ("cache", "[cache]"),
        ("limits", "[limits]"),
        ("log", "[log]"),
        ("warm", "[[warm]]"),
        ("upstreams.*", "[upstreams.x]"),
    ] {
        // The fault of a key that is like no other lists those that there are.
        let text = format!("{header}\nzzzzzzzz = 1");
        let unknown = faults(&text);
        let listed = unknown
            .iter()
            .find_map(|fault| fault.split_once("the keys here are "));
        let (_, keys) = listed.expect("the keys of the section");
        for key in keys.split(", ") {
            assert!(
                holds(section, key),
                "reference.toml lacks {key} in [{section}]"
            );
        }
    }
}

#[test]
fn client_files_are_in_their_format() {
    for toml in [
        include_str!("../../../config/clients/buildkit/buildkitd.toml"),
        include_str!("../../../config/clients/containerd/docker.io/hosts.toml"),
        include_str!("../../../config/clients/containerd/_default/hosts.toml"),
        include_str!("../../../config/clients/podman/registries.conf"),
    ] {
        toml.parse::<toml::Table>().expect(toml);
        assert!(toml.contains("127.0.0.1:5000"));
    }
    let json = include_str!("../../../config/clients/docker/daemon.json");
    let json: serde_json::Value = serde_json::from_str(json).expect(json);
    assert_eq!(json["registry-mirrors"][0], "http://127.0.0.1:5000");
}
