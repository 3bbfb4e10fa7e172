use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn descriptor(digest: &str) -> Value {
    json!({"mediaType": "application/x", "digest": digest, "size": 7})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_MANIFEST,
        "config": descriptor(A),
        "layers": [descriptor(B), descriptor(A)],
    })
}

fn index() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OCI_INDEX,
        "manifests": [descriptor(B)],
    })
}

fn parse(content_type: &str, body: &Value) -> Result<ManifestInfo, ManifestError> {
    let content_type = MediaType::parse(content_type);
    ManifestInfo::parse(content_type.as_ref(), body.to_string().as_bytes())
}

/// `body` with a field changed; `null` takes it away.
fn with(mut body: Value, key: &str, value: Value) -> Value {
    let fields = body.as_object_mut().unwrap();
    fields.remove(key);
    if !value.is_null() {
        fields.insert(key.to_owned(), value);
    }
    body
}

#[test]
fn an_image_names_its_configuration_and_layers() {
    let info = parse(MediaType::OCI_MANIFEST, &image()).unwrap();
    let named: Vec<&str> = info.blobs().map(|blob| blob.digest.as_str()).collect();
    assert_eq!(named, [A, B, A]);
    assert!(info.manifests().is_empty());
    assert!(matches!(info.kind, ManifestKind::Image { ref layers, .. } if layers.len() == 2));
}

#[test]
fn an_index_names_its_manifests_with_their_platforms() {
    let platform = json!({"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": null, "x": 1});
    let body = json!({
        "manifests": [with(descriptor(A), "platform", platform), descriptor(B)],
        "annotations": {"k": "v"},
        "unknown": {"layers": []},
    });
    let info = parse(MediaType::DOCKER_LIST, &body).unwrap();
    assert_eq!(info.media_type.as_str(), MediaType::DOCKER_LIST);
    assert_eq!(info.blobs().count(), 0);
    let platform = info.manifests()[0].platform.clone().unwrap();
    assert_eq!(
        (platform.os.as_str(), platform.variant.as_deref()),
        ("linux", Some("v8"))
    );
    assert_eq!(info.annotations.unwrap().get(), r#"{"k":"v"}"#);
    assert!(parse(MediaType::OCI_INDEX, &json!({"manifests": []})).is_ok());
}

#[test]
fn the_type_it_was_sent_with_wins_unless_it_says_nothing() {
    for sent in ["application/json", "text/plain", ""] {
        let info = parse(sent, &image()).unwrap();
        assert_eq!(info.media_type.as_str(), MediaType::OCI_MANIFEST, "{sent}");
    }
    for sent in [
        MediaType::OCI_MANIFEST,
        MediaType::DOCKER_MANIFEST,
        "application/vnd.custom+json",
    ] {
        let info = parse(sent, &image()).unwrap();
        assert_eq!(info.media_type.as_str(), sent);
    }
    let untyped = with(image(), "mediaType", Value::Null);
    let info = parse(MediaType::DOCKER_MANIFEST, &untyped).unwrap();
    assert_eq!(info.media_type.as_str(), MediaType::DOCKER_MANIFEST);
    for useless in ["application/json", "nonsense", "text/html"] {
        let body = with(image(), "mediaType", json!(useless));
        let guessed = parse("application/json", &body).unwrap();
        assert_eq!(guessed.media_type.as_str(), MediaType::OCI_MANIFEST);
        let info = parse("application/vnd.custom+json", &body).unwrap();
        assert_eq!(info.media_type.as_str(), "application/vnd.custom+json");
    }
}

#[test]
fn a_type_that_nobody_gives_is_guessed_from_the_shape() {
    let docker = json!({"mediaType": "application/vnd.docker.container.image.v1+json", "digest": A, "size": 1});
    for (body, guessed) in [
        (json!({"manifests": []}), MediaType::OCI_INDEX),
        (
            json!({"config": descriptor(A), "layers": []}),
            MediaType::OCI_MANIFEST,
        ),
        (
            json!({"config": docker, "layers": []}),
            MediaType::DOCKER_MANIFEST,
        ),
        (json!({"layers": []}), MediaType::OCI_MANIFEST),
        (json!({"blobs": [descriptor(A)]}), MediaType::OCI_ARTIFACT),
    ] {
        for sent in ["", "application/json"] {
            assert_eq!(
                parse(sent, &body).unwrap().media_type.as_str(),
                guessed,
                "{body}"
            );
        }
    }
    assert!(matches!(
        parse("application/json", &json!({"a": 1})),
        Err(ManifestError::Shapeless)
    ));
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for key in ["config", "layers", "blobs", "fsLayers"] {
        for body in [
            with(index(), key, json!([])),
            with(index(), key, descriptor(A)),
        ] {
            for sent in [
                MediaType::OCI_INDEX,
                MediaType::OCI_MANIFEST,
                "application/vnd.custom+json",
            ] {
                assert!(
                    matches!(parse(sent, &body), Err(ManifestError::Ambiguous(_))),
                    "{body}"
                );
            }
        }
    }
    let image_called_index = with(image(), "mediaType", json!(MediaType::DOCKER_LIST));
    let index_called_image = with(index(), "mediaType", json!(MediaType::DOCKER_MANIFEST));
    for body in [image_called_index, index_called_image] {
        for sent in ["", "application/vnd.custom+json"] {
            assert!(
                matches!(parse(sent, &body), Err(ManifestError::Ambiguous(_))),
                "{body}"
            );
        }
    }
    for (sent, body) in [
        (MediaType::OCI_INDEX, image()),
        (MediaType::OCI_MANIFEST, index()),
    ] {
        assert!(
            matches!(parse(sent, &body), Err(ManifestError::Ambiguous(_))),
            "{body}"
        );
    }
    let twice = format!(
        r#"{{"layers":[],"layers":[],"mediaType":"{}"}}"#,
        MediaType::OCI_MANIFEST
    );
    assert!(matches!(
        ManifestInfo::parse(None, twice.as_bytes()),
        Err(ManifestError::Invalid(_))
    ));
}

#[test]
fn null_is_taken_for_absent() {
    let body = r#"{"manifests":[],"layers":null,"config":null,"subject":null,"annotations":null}"#;
    let info = ManifestInfo::parse(None, body.as_bytes()).unwrap();
    assert!(info.manifests().is_empty() && info.annotations.is_none() && info.subject.is_none());
}

#[test]
fn the_first_schema_is_refused_by_name() {
    let body = json!({"schemaVersion": 1, "fsLayers": [], "history": [], "signatures": []});
    for sent in [
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/json",
        MediaType::OCI_MANIFEST,
    ] {
        assert!(
            matches!(parse(sent, &body), Err(ManifestError::Schema1)),
            "{sent}"
        );
    }
    assert!(matches!(
        parse("", &json!({"schemaVersion": 1})),
        Err(ManifestError::Schema1)
    ));
    // Wrongly labelled, but the body knows better.
    assert!(
        parse(
            "application/vnd.docker.distribution.manifest.v1+json",
            &image()
        )
        .is_ok()
    );
}

#[test]
fn what_is_no_manifest_is_refused() {
    for body in [
        "",
        "  ",
        "<html>",
        "\n<!DOCTYPE html>",
        "[]",
        "null",
        "7",
        "{",
        "{\"a\":}",
        "{} {}",
        "\u{feff}{}",
    ] {
        let refused = ManifestInfo::parse(
            MediaType::parse(MediaType::OCI_MANIFEST).as_ref(),
            body.as_bytes(),
        );
        assert!(
            matches!(refused, Err(ManifestError::NotAManifest(_))),
            "{body:?}: {refused:?}"
        );
    }
    assert!(matches!(
        parse("text/html", &image()),
        Err(ManifestError::NotAManifest(_))
    ));
}

#[test]
fn descriptors_of_known_types_must_be_sound() {
    for bad in [
        json!({"digest": "sha256:x", "size": 1}),
        json!({"digest": A}),
        json!({"size": 1}),
        json!({"digest": A, "size": -1}),
        json!({"digest": A, "size": 1.5}),
        json!("text"),
        json!(null),
    ] {
        let body = with(image(), "layers", json!([bad]));
        assert!(
            matches!(parse("", &body), Err(ManifestError::Invalid(_))),
            "{body}"
        );
    }
}

#[test]
fn types_that_are_not_known_pass_whatever_they_hold() {
    let sent = "application/vnd.custom+json";
    for body in [
        json!({}),
        json!({"layers": ["x"], "config": 7}),
        json!({"blobs": [descriptor(A)]}),
    ] {
        let info = parse(sent, &body).unwrap();
        assert_eq!(info.media_type.as_str(), sent);
        assert!(matches!(info.kind, ManifestKind::Other { .. }));
    }
}

#[test]
fn unknown_algorithms_data_and_extra_fields_are_passed_over() {
    let layer =
        json!({"digest": "blake3:abcd", "size": 2, "data": "e30=", "urls": null, "x": [[{}]]});
    let info = parse("", &with(image(), "layers", json!([layer]))).unwrap();
    assert!(!info.blobs().nth(1).unwrap().digest.is_verifiable());
}

#[test]
fn depth_is_survived() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for key in ["x", "annotations", "layers", "config", "subject"] {
        let body = format!(
            r#"{{"mediaType":"{}","{key}":{deep}}}"#,
            MediaType::OCI_MANIFEST
        );
        let read = ManifestInfo::parse(None, body.as_bytes());
        assert_eq!(read.is_ok(), matches!(key, "x" | "annotations"), "{key}");
    }
}

#[test]
fn a_referrer_is_described_by_its_artifact_type_or_that_of_its_configuration() {
    let subject = with(image(), "subject", descriptor(B));
    let info = parse("", &subject).unwrap();
    assert_eq!(info.subject.as_ref().unwrap().as_str(), B);
    let described = |info: &ManifestInfo| info.as_referrer(A.parse().unwrap(), 9).artifact_type;
    assert_eq!(described(&info).as_deref(), Some("application/x"));
    let typed = parse("", &with(subject, "artifactType", json!("application/y"))).unwrap();
    assert_eq!(described(&typed).as_deref(), Some("application/y"));
    assert_eq!(described(&parse("", &index()).unwrap()), None);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ManifestInfo::parse(None, &body);
    }

    #[test]
    fn any_mixture_of_fields_is_survived(
        fields in prop::collection::btree_map(
            prop::sample::select(vec![
                "schemaVersion", "mediaType", "artifactType", "annotations", "subject", "config", "layers",
                "manifests", "blobs", "fsLayers",
            ]),
            prop::sample::select(vec![
                json!(null), json!(1), json!("x"), json!([]), json!({}), descriptor(A), json!([descriptor(B)]),
                json!(MediaType::OCI_INDEX), json!(MediaType::OCI_MANIFEST),
            ]),
            0..10,
        ),
    ) {
        let has = |key: &str| fields.get(key).is_some_and(|value| !value.is_null());
        let read = ManifestInfo::parse(None, serde_json::to_string(&fields).unwrap().as_bytes());
        if has("manifests") && has("layers") {
            prop_assert!(read.is_err());
        }
        if let Ok(info) = read {
            prop_assert!(!info.media_type.is_generic() && !info.media_type.is_schema1());
        }
    }
}
