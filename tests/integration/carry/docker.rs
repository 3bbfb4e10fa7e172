use std::io::Write as _;

use layby::oci::Digest;
use serde_json::{Value, json};

use super::*;

/// What `docker save` wrote before it wrote image layouts: layers by strange names, one of them a link, the list at the end.
struct Saved {
    config: Vec<u8>,
    layers: [Vec<u8>; 2],
    tags: Vec<&'static str>,
}

impl Saved {
    fn new(tags: &[&'static str]) -> Self {
        let layers = [b"the first layer".to_vec(), vec![7; 200_000]];
        let ids: Vec<_> = [&layers[0], &layers[1], &layers[0]]
            .map(|layer| Digest::sha256(layer))
            .into();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        Self {
            config: config.to_string().into_bytes(),
            layers,
            tags: tags.to_vec(),
        }
    }

    fn tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, content: &[u8]| {
            let mut head = tar::Header::new_gnu();
            head.set_size(content.len() as u64);
            head.set_mode(0o644);
            builder
                .append_data(&mut head, name, content)
                .expect("it is added");
        };
        add("1/VERSION", b"1.0");
        add("1/json", b"{}");
        add("1/layer.tar", &self.layers[0]);
        add("2/layer.tar", &self.layers[1]);
        let config = format!("{}.json", Digest::sha256(&self.config).encoded());
        add(&config, &self.config);
        let manifest = json!([{
            "Config": config,
            "RepoTags": self.tags,
            "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"],
        }]);
        add("manifest.json", manifest.to_string().as_bytes());
        add("repositories", b"{}");
        let mut head = tar::Header::new_gnu();
        head.set_entry_type(tar::EntryType::Symlink);
        head.set_size(0);
        builder
            .append_link(&mut head, "3/layer.tar", "../1/layer.tar")
            .expect("a link");
        builder.into_inner().expect("a tar")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_save_wrote_is_imported_under_its_tags() {
    for (is_at_rest, is_packed) in [(false, false), (true, true), (false, true)] {
        let fake = Fake::start().await;
        let far = Side::offline(&fake).await.at_rest(is_at_rest).await;
        let saved = Saved::new(&["registry.test/org/saved:v1", "org/saved:v2"]);
        let file = far.file("saved");
        let tar = if is_packed {
            gzip(&saved.tar())
        } else {
            saved.tar()
        };
        std::fs::write(&file, tar).expect("a file");
        let told = far.run(&["import", text(&file)]).await.expect(0);
        assert!(told.out.contains("2 images"), "{}", told.out);
        let far = if is_at_rest { far.serving().await } else { far };
        let manifest = far
            .layby
            .get("/v2/org/saved/manifests/v1")
            .await
            .expect(200);
        assert_eq!(
            manifest.header("content-type"),
            Some("application/vnd.docker.distribution.manifest.v2+json")
        );
        let same = far
            .layby
            .get("/v2/org/saved/manifests/v2")
            .await
            .expect(200);
        assert_eq!(manifest.body, same.body);
        let manifest: Value = serde_json::from_slice(&manifest.body).expect("JSON");
        assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(3));
        for content in [&saved.config, &saved.layers[0], &saved.layers[1]] {
            let content = Content::bytes(content.clone());
            far.layby.blob("org/saved", &content).await.expect(&content);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_without_a_name_needs_one_and_what_is_damaged_is_refused() {
    let fake = Fake::start().await;
    let far = Side::offline(&fake).await;
    let before = far.settled().await;
    let file = far.file("saved.tar");
    std::fs::write(&file, Saved::new(&[]).tar()).expect("a file");
    let refused = far.run(&["import", text(&file)]).await.expect(1);
    assert!(refused.err.contains("--as"), "{}", refused.err);
    far.is_again(&before, "refused").await;
    let mut damaged = Saved::new(&["org/saved:v1"]);
    damaged.layers[1][100_000] ^= 1;
    let damaged_file = far.file("damaged.tar");
    std::fs::write(&damaged_file, damaged.tar()).expect("a file");
    let refused = far.run(&["import", text(&damaged_file)]).await.expect(1);
    assert!(refused.err.contains("damaged"), "{}", refused.err);
    far.is_again(&before, "refused").await;
    far.run(&["import", text(&file), "--as", "org/saved:v3"])
        .await
        .expect(0);
    far.layby
        .get("/v2/org/saved/manifests/v3")
        .await
        .expect(200);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
