//! Import of archives that are made by hand, member by member.

use serde_json::Value;

use crate::bundle::{END, header, padding};
use crate::proxy::admin::model::{ImportEvent, ImportRequest};
use crate::store::testing::Sick;

use super::carry::{all, bytes, fed, last};
use super::*;

/// A member of an archive.
fn member(name: &str, text: &str) -> Vec<u8> {
    let len = text.len() as u64;
    let mut member = header(name, len);
    member.extend_from_slice(text.as_bytes());
    member.resize(member.len() + padding(len), 0);
    member
}

fn blob(text: &str) -> Vec<u8> {
    member(&format!("blobs/sha256/{}", sha(text).encoded()), text)
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), END.to_vec()].concat()
}

/// An image in an `index.json`, under a name in docker.io.
fn listed(repository: &str, tag: &str, manifest: &str) -> Value {
    json!({
        "digest": sha(manifest),
        "size": manifest.len(),
        "annotations": {
            "dev.layby.upstream": "docker.io",
            "dev.layby.repository": repository,
            "dev.layby.tag": tag,
        },
    })
}

fn index_json(images: &[Value], base: Option<&Digest>) -> Vec<u8> {
    let mut index = json!({ "schemaVersion": 2, "manifests": images });
    if let Some(base) = base {
        index["annotations"] = json!({ "dev.layby.base": base });
    }
    member("index.json", &index.to_string())
}

async fn import(far: &Shelf, pin: bool, tar: &[u8]) -> ImportEvent {
    let (sender, archive) = fed();
    let request = ImportRequest { name: None, pin };
    let events = far.keeper.import(request, archive).await.unwrap();
    let sending = async {
        for piece in tar.chunks(64 * 1024) {
            // A refused archive is not read to its end.
            if sender
                .send(Ok(Bytes::copy_from_slice(piece)))
                .await
                .is_err()
            {
                break;
            }
        }
        drop(sender);
    };
    tokio::join!(last(events), sending).0
}

fn is_done(event: &ImportEvent) -> bool {
    matches!(event, ImportEvent::Done(_))
}

fn refusal(event: ImportEvent) -> String {
    let ImportEvent::Failed { message } = event else {
        panic!("{event:?}");
    };
    message
}

/// The digest by which others build on an export.
fn name_of(export: &[u8]) -> Digest {
    let start = export
        .chunks(512)
        .position(|block| block.starts_with(b"index.json\0"));
    let text = &export[(start.unwrap() + 1) * 512..];
    Digest::sha256(text.split(|&byte| byte == 0).next().unwrap())
}

#[tokio::test]
async fn an_export_that_was_not_imported_here_lends_nothing_and_another_only_its_own() {
    let far = Shelf::new().await;
    let secret = Picture::new("secret", &["a secret layer"]);
    let place = place("ghcr.io", "org/secret");
    far.image(&place, "v1", &secret).await;
    let near = Shelf::new().await;
    near.image(&alpine(), "3.20", &Picture::new("a", &["one"]))
        .await;
    let export = bytes(near.keeper.export(all()).await.unwrap()).await;
    assert!(is_done(&import(&far, true, &export).await));
    // Its manifest is in the archive, or nothing of it.
    for with_manifest in [true, false] {
        for base in [sha("anything"), name_of(&export)] {
            let images = [listed("library/alpine", "thief", &secret.manifest)];
            let mut members = vec![index_json(&images, Some(&base))];
            members.extend(with_manifest.then(|| blob(&secret.manifest)));
            let said = refusal(import(&far, true, &tar(&members)).await);
            assert!(said.contains("no earlier export"), "{said}");
            for hidden in [&secret.manifest, &secret.config, &secret.layers[0]] {
                assert!(!far.is_proven(&alpine(), &sha(hidden)));
                assert!(far.has(&sha(hidden)));
            }
        }
    }
    let names = ["docker.io/library/alpine:3.20", "ghcr.io/org/secret:v1"];
    assert_eq!(far.names().await, names);
}

#[tokio::test]
async fn what_an_export_brought_goes_to_any_repository_for_as_long_as_its_image_is_here() {
    let near = Shelf::new().await;
    near.image(&alpine(), "3.20", &Picture::new("a", &["common"]))
        .await;
    let export = bytes(near.keeper.export(all()).await.unwrap()).await;
    let other = Picture::new("b", &["common"]);
    let images = [listed("library/other", "1", &other.manifest)];
    let index = index_json(&images, Some(&name_of(&export)));
    let more = tar(&[index, blob(&other.manifest), blob(&other.config)]);

    let far = Shelf::new().await;
    // Here in another way.
    far.image(&alpine(), "3.20", &Picture::new("a", &["common"]))
        .await;
    refusal(import(&far, true, &more).await);
    assert!(is_done(&import(&far, false, &export).await));
    let far = far.reopened().await;
    assert!(is_done(&import(&far, false, &more).await));
    let library = place("docker.io", "library/other");
    assert!(far.is_proven(&library, &sha("common")));

    let far = Shelf::new().await;
    assert!(is_done(&import(&far, false, &export).await));
    let own = far.keeper.remove("alpine:3.20", false).await;
    own.unwrap();
    far.image(
        &place("ghcr.io", "org/c"),
        "1",
        &Picture::new("c", &["common"]),
    )
    .await;
    refusal(import(&far, false, &more).await);
}

#[tokio::test]
async fn what_a_repository_has_anyway_need_not_have_come_with_an_export() {
    let far = Shelf::new().await;
    far.image(&alpine(), "3.20", &Picture::new("a", &["common"]))
        .await;
    let newer = Picture::new("b", &["common"]);
    let images = [listed("library/alpine", "3.21", &newer.manifest)];
    let index = index_json(&images, Some(&sha("anything")));
    let more = tar(&[index, blob(&newer.manifest), blob(&newer.config)]);
    assert!(is_done(&import(&far, true, &more).await));
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for order in orders(last) {
        for at in 0..=last {
            let mut order = order.clone();
            order.insert(at, last);
            all.push(order);
        }
    }
    all
}

#[tokio::test]
async fn members_come_in_any_order() {
    let picture = Picture::new("a", &["one"]);
    let many = index(&[("amd64", &picture)]);
    let members = [
        index_json(&[listed("library/alpine", "1", &many)], None),
        blob(&many),
        blob(&picture.manifest),
        blob(&picture.layers[0]),
    ];
    for order in orders(members.len()) {
        let mut ordered: Vec<_> = order.iter().map(|&at| members[at].clone()).collect();
        ordered.push(blob(&picture.config));
        let far = Shelf::new().await;
        let ended = import(&far, false, &tar(&ordered)).await;
        assert!(is_done(&ended), "{order:?}: {ended:?}");
        assert!(far.is_proven(&alpine(), &sha("one")), "{order:?}");
    }
}

#[tokio::test]
async fn a_tag_that_holds_a_digest_holds_the_images_own() {
    let picture = Picture::new("a", &["one"]);
    let far = Shelf::new().await;
    for (digest, is_own) in [(sha("other"), false), (picture.digest(), true)] {
        let tag = format!("1@{digest}");
        let members = [
            index_json(&[listed("library/alpine", &tag, &picture.manifest)], None),
            blob(&picture.manifest),
            blob(&picture.config),
            blob("one"),
        ];
        let ended = import(&far, false, &tar(&members)).await;
        assert_eq!(is_done(&ended), is_own, "{ended:?}");
    }
}

#[tokio::test]
async fn no_more_images_and_parts_than_there_is_memory_for() {
    let of = |picture: &Picture, tags: usize| {
        let image = |number| listed("library/alpine", &format!("v{number}"), &picture.manifest);
        let images: Vec<_> = (0..tags).map(image).collect();
        let layers: std::collections::BTreeSet<_> = picture.blobs().collect();
        let mut members = vec![index_json(&images, None), blob(&picture.manifest)];
        members.extend(layers.into_iter().map(|layer| blob(layer)));
        tar(&members)
    };
    let far = Shelf::new().await;
    let small = Picture::new("small", &["one"]);
    let said = refusal(import(&far, false, &of(&small, 10_001)).await);
    assert!(said.contains("10000 images"), "{said}");

    let layers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let large = Picture::new("large", &layers);
    let said = refusal(import(&far, false, &of(&large, 5000)).await);
    assert!(said.contains("1000000 parts"), "{said}");

    // A layer counts once, however often an image names it.
    let often: Vec<_> = std::iter::repeat_n("one", 10_000).collect();
    let same = Picture::new("same", &often);
    let ended = import(&far, false, &of(&same, 101)).await;
    assert!(is_done(&ended), "{ended:?}");
}

#[tokio::test]
async fn an_import_is_done_even_where_what_nobody_needs_cannot_be_removed() {
    let sick = Sick::new();
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::<Sick>::clone(&sick);
    let far = Shelf::open_over(dir, "", Clock::system(), files).await;
    let picture = Picture::new("a", &["one"]);
    sick.cannot_remove(&far.path(&sha("extra")));
    let members = [
        blob("extra"),
        index_json(&[listed("library/alpine", "1", &picture.manifest)], None),
        blob(&picture.manifest),
        blob(&picture.config),
        blob("one"),
    ];
    let ended = import(&far, true, &tar(&members)).await;
    assert!(is_done(&ended), "{ended:?}");
    assert!(far.has(&sha("extra")));
}

#[tokio::test]
async fn an_import_of_which_not_all_can_be_written_leaves_tags_proofs_and_pins_as_they_were() {
    let tags = ["0", "1", "2", "3"];
    let old = Picture::new("old", &["common"]);
    let new = Picture::new("new", &["common", "more"]);
    let members = [
        index_json(
            &tags.map(|tag| listed("library/alpine", tag, &new.manifest)),
            None,
        ),
        blob(&new.manifest),
        blob(&new.config),
        blob("common"),
        blob("more"),
    ];
    // With the first, the others are still on their way.
    for missing in ["0", "3"] {
        let far = Shelf::new().await;
        far.image(&alpine(), "1", &old).await;
        let before = far.record(&alpine(), "1");
        let refs = far.dir.path().join("data/refs/docker.io/library/alpine");
        // Its record cannot be put there.
        let in_the_way = refs.join(format!("_tags/{missing}.json"));
        std::fs::create_dir_all(in_the_way.join("x")).unwrap();
        let said = refusal(import(&far, true, &tar(&members)).await);
        assert!(said.contains(&format!("{missing}.json")), "{said}");
        assert!(!said.contains("taken back"), "{said}");
        std::fs::remove_dir_all(in_the_way).unwrap();
        // What was asked for before this is written by then.
        far.blob(&place("ghcr.io", "org/b"), "other").await;
        assert_eq!(far.record(&alpine(), "1"), before);
        assert_eq!(far.names().await, ["docker.io/library/alpine:1"]);
        for brought in [&new.manifest, &new.config, "more"].map(sha) {
            assert!(!far.has(&brought));
            assert!(!far.is_proven(&alpine(), &brought));
        }
        assert!(far.has(&sha("common")) && far.is_proven(&alpine(), &sha("common")));
        let pins = Administration::pins(&far.keeper).await.unwrap();
        assert_eq!(pins.command, Vec::<String>::new());

        assert!(is_done(&import(&far, true, &tar(&members)).await));
        for tag in tags {
            let record = far.record(&alpine(), tag).unwrap();
            assert_eq!(record.digest, new.digest());
        }
    }
}
