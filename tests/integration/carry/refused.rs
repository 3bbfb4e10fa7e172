use std::io::Write as _;

use layby::bundle::{END, header, padding};
use serde_json::Value;

use super::*;

/// What is done to an archive, and what is said of it.
type Case = (&'static str, fn(Vec<u8>) -> Vec<u8>, &'static str);

const CASES: &[Case] = &[
    ("a flipped byte of a layer", flip_layer, "damaged"),
    (
        "a cut in the middle",
        |tar| cut(tar, 2),
        "ends in the middle",
    ),
    (
        "a cut near the end",
        |tar| cut(tar, 60_000),
        "ends in the middle",
    ),
    (
        "a name that leads out",
        |tar| before(&tar, &file("../evil", b"x")),
        "leads out",
    ),
    (
        "an absolute name",
        |tar| before(&tar, &file("/etc/evil", b"x")),
        "leads out",
    ),
    (
        "a link",
        |tar| before(&tar, &odd(b'2', "blobs", "/etc")),
        "leads out",
    ),
    (
        "a link within",
        |tar| before(&tar, &odd(b'2', "x.tar", "blobs")),
        "a link",
    ),
    (
        "a device",
        |tar| before(&tar, &odd(b'3', "index.json", "")),
        "a device",
    ),
    (
        "an image list that is there twice",
        |tar| {
            before(
                &tar,
                &file("index.json", br#"{"schemaVersion":2,"manifests":[]}"#),
            )
        },
        "twice",
    ),
    ("a blob that is there twice", |tar| twice(&tar), "twice"),
    (
        "a size beyond all bounds",
        |tar| before(&tar, &header("index.json", 1 << 40)),
        "the most for that|ends in the middle",
    ),
    (
        "a list that cannot be understood",
        |_| whole(&file("index.json", b"{]")),
        "cannot be understood",
    ),
    (
        "no list at all",
        |_| whole(&file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)),
        "neither an index.json",
    ),
    (
        "an empty list",
        |_| {
            whole(&file(
                "index.json",
                br#"{"schemaVersion":2,"manifests":[]}"#,
            ))
        },
        "lists no image",
    ),
    ("no tar", |_| vec![b'x'; 5000], "no tar"),
    ("an image without a layer", without_layer, "needs sha256:"),
    (
        "an upstream that is not configured",
        |tar| foreign(&tar),
        "not configured",
    ),
    (
        "bytes that are not what a name says",
        |tar| renamed(&tar),
        "damaged",
    ),
];

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let len = content.len() as u64;
    let mut member = header(name, len);
    member.extend_from_slice(content);
    member.resize(member.len() + padding(len), 0);
    member
}

fn whole(members: &[u8]) -> Vec<u8> {
    [members, &END].concat()
}

fn before(tar: &[u8], member: &[u8]) -> Vec<u8> {
    [member, tar].concat()
}

/// A member without content, as another tool may write it.
fn odd(kind: u8, name: &str, link: &str) -> Vec<u8> {
    let mut head = tar::Header::new_ustar();
    head.set_entry_type(tar::EntryType::new(kind));
    head.set_size(0);
    let old = head.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    head.set_cksum();
    head.as_bytes().to_vec()
}

fn layer() -> Content {
    Content::random(70, 100 * KIB)
}

fn at(tar: &[u8], needle: &[u8]) -> usize {
    let found = tar
        .windows(needle.len())
        .position(|window| window == needle);
    found.expect("it is in the archive")
}

fn flip_layer(mut tar: Vec<u8>) -> Vec<u8> {
    let start = at(&tar, &layer().read(0..64));
    tar[start + 50_000] ^= 1;
    tar
}

fn cut(mut tar: Vec<u8>, by: usize) -> Vec<u8> {
    let len = if by == 2 {
        tar.len() / 2
    } else {
        tar.len() - by
    };
    tar.truncate(len);
    tar
}

/// Where the member of this name begins.
fn member(tar: &[u8], name: &str) -> usize {
    let is_it = |block: &[u8]| block.starts_with(name.as_bytes());
    let found = tar.chunks(512).position(is_it);
    found.expect("it is in the archive") * 512
}

/// Where the member of the layer begins, and its bytes.
fn member_of_layer(tar: &[u8]) -> (usize, usize) {
    let start = member(tar, &format!("blobs/sha256/{}", layer().digest().encoded()));
    let len = usize::try_from(layer().len()).expect("it fits");
    (start, 512 + len.next_multiple_of(512))
}

/// Blobs first, and then what lists the images.
fn index_last(tar: &[u8]) -> Vec<u8> {
    let start = member(tar, "index.json");
    let next = member(tar, "blobs/");
    let (members, end) = tar.split_at(tar.len() - END.len());
    [
        &members[..start],
        &members[next..],
        &members[start..next],
        end,
    ]
    .concat()
}

fn without_layer(mut tar: Vec<u8>) -> Vec<u8> {
    let (start, len) = member_of_layer(&tar);
    tar.drain(start..start + len);
    tar
}

fn twice(tar: &[u8]) -> Vec<u8> {
    let (start, len) = member_of_layer(tar);
    [&tar[..start + len], &tar[start..]].concat()
}

fn renamed(tar: &[u8]) -> Vec<u8> {
    let (start, _) = member_of_layer(tar);
    let len = layer().len();
    let bytes = vec![1; usize::try_from(len).expect("it fits")];
    let name = format!("blobs/sha256/{}", layer().digest().encoded());
    let changed = file(&name, &bytes);
    [&tar[..start], &changed, &tar[start + changed.len()..]].concat()
}

fn foreign(tar: &[u8]) -> Vec<u8> {
    let start = member(tar, "index.json");
    let text = String::from_utf8_lossy(&tar[start + 512..]);
    let json = text.split('\0').next().expect("it ends").to_owned();
    let other = json.replace(UPSTREAM, "other.test");
    let old = 512 + json.len().next_multiple_of(512);
    let changed = file("index.json", other.as_bytes());
    [&tar[..start], &changed, &tar[start + old..]].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

async fn names(side: &Side) -> Value {
    let listed = side.run(&["ls", "--json"]).await.expect(0).out;
    let mut listed: Value = serde_json::from_str(&listed).expect("JSON");
    for image in listed["images"].as_array_mut().expect("images") {
        image["last_used"] = Value::Null;
    }
    listed
}

/// An archive is refused, in any order and as it comes, by a side that has some of it and one that has nothing.
async fn each_case(is_at_rest: bool) {
    let fake = Fake::start().await;
    let cargo = Cargo::new();
    let near = cargo.pulled_by(&fake).await;
    let export = near.file("images.tar");
    near.run(&["export", "-o", text(&export), "org/app"])
        .await
        .expect(0);
    let sound = read(&export);
    let far = Side::offline(&fake).await;
    let other = near.file("other.tar");
    near.run(&["export", "-o", text(&other), "org/many"])
        .await
        .expect(0);
    let far = far.at_rest(is_at_rest).await;
    let file = far.file("bad");
    for round in ["empty", "with another image"] {
        if round != "empty" {
            far.run(&["import", text(&other)]).await.expect(0);
        }
        let (listing, ls) = (far.settled().await, names(&far).await);
        for (what, change, said) in CASES {
            let changed = change(sound.clone());
            for bytes in [changed.clone(), zstd(&changed)] {
                std::fs::write(&file, bytes).expect("a file");
                let ran = far.run(&["import", text(&file)]).await;
                assert_ne!(ran.status, 0, "{what}, {round}: {ran:?}");
                let is_said = said.split('|').any(|said| ran.err.contains(said));
                assert!(is_said, "{what}, {round}: {ran:?}");
                far.is_again(&listing, &format!("{what}, {round}")).await;
            }
        }
        assert_eq!(names(&far).await, ls, "{round}");
    }
    // Nothing that was refused is in the way of what is not.
    far.run(&["import", text(&export)]).await.expect(0);
    let far = if is_at_rest { far.serving().await } else { far };
    far.pull(APP, "latest", &cargo.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_an_archive_leaves_a_server_as_it_was() {
    each_case(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_an_archive_leaves_a_directory_as_it_was() {
    each_case(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_before_it_fills_anything() {
    let fake = Fake::start().await;
    let far = Side::offline(&fake).await.at_rest(true).await;
    let before = far.settled().await;
    let bomb = far.file("bomb.tar.zst");
    let huge = 1_u64 << 40;
    for (name, said) in [
        (
            format!("blobs/sha256/{}", layer().digest().encoded()),
            "missing",
        ),
        ("zeros".to_owned(), "belongs to no image"),
        ("index.json".to_owned(), "the most for that"),
    ] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
        encoder.write_all(&header(&name, huge)).expect("memory");
        let zeros = vec![0; 1 << 20];
        for _ in 0..64 {
            encoder.write_all(&zeros).expect("memory");
        }
        std::fs::write(&bomb, encoder.finish().expect("memory")).expect("a file");
        let refused = far.run(&["import", text(&bomb)]).await.expect(1);
        assert!(refused.err.contains(said), "{name}: {}", refused.err);
        far.is_again(&before, "refused").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_it_says_how_much_is_missing_before_anything_is_written() {
    let fake = Fake::start().await;
    let near = Cargo::new().pulled_by(&fake).await;
    let export = near.file("images.tar");
    near.run(&["export", "-o", text(&export), "org/app"])
        .await
        .expect(0);
    // As others write it, and not to be read in another order.
    let last = near.file("last.tar.zst");
    std::fs::write(&last, zstd(&index_last(&read(&export)))).expect("a file");
    let archives = [(&export, 40 * KIB), (&last, KIB)];
    for (is_at_rest, (export, least)) in [false, true]
        .into_iter()
        .flat_map(|is_at_rest| archives.map(|archive| (is_at_rest, archive)))
    {
        let setup = Setup::over(&fake)
            .set("", "offline = true")
            .set("cache", r#"max_size = "100KiB""#);
        let far = Side::new(setup).await.at_rest(is_at_rest).await;
        let before = far.settled().await;
        let refused = far.run(&["import", text(export)]).await.expect(1);
        let missing = refused.err.split(' ').next().expect("a number");
        let missing: u64 = missing.parse().unwrap_or_else(|_| panic!("{refused:?}"));
        assert!((least..42 * KIB).contains(&missing), "{refused:?}");
        assert!(refused.err.contains("are missing for it"), "{refused:?}");
        far.is_again(&before, "refused").await;
    }
}
