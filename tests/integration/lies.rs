//! Upstreams that lie about content: nobody ever gets a complete body that is wrong, and nothing of it stays.

use std::time::Duration;

use crate::fake::{Content, Cut, Fake, Gate, Rule};
use crate::support::{
    Download, End, KIB, Layby, MIB, Request, Setup, UPSTREAM, Wire, blob_path, eventually,
};

const REPOSITORY: &str = "org/app";

fn content() -> Content {
    Content::random(40, 3 * MIB)
}

/// How a lie is told, and whether the digest gives it away: then it counts as a failed verification.
fn lies() -> Vec<(&'static str, Rule, bool)> {
    let all = content();
    let len = all.len();
    let get = || Rule::digest(all.digest());
    let whole_length = len.to_string();
    vec![
        ("an early byte flipped", get().flip(5), true),
        (
            "a byte of the last KiB flipped",
            get().flip(len - 100),
            true,
        ),
        ("the last byte flipped", get().flip(len - 1), true),
        ("too little, announced so", get().shorten(len - 10), true),
        ("too much, announced so", get().append("more"), true),
        (
            "too little, without a length",
            get().shorten(len - 10).chunked(),
            true,
        ),
        (
            "too much, without a length",
            get().append("more").chunked(),
            true,
        ),
        (
            "too little, announced as whole",
            get()
                .shorten(len - 10)
                .header("content-length", &whole_length),
            false,
        ),
        ("the connection closed", get().cut(2 * MIB, Cut::Fin), false),
        (
            "the connection reset",
            get().cut(2 * MIB, Cut::Reset),
            false,
        ),
        ("a web page", get().web_page(), false),
        (
            "a content coding",
            get().header("content-encoding", "gzip"),
            false,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_becomes_a_complete_body_and_none_stays_on_disk() {
    let content = content();
    for (lie, rule, shows_in_digest) in lies() {
        let fake = Fake::start().await;
        fake.put_blob(REPOSITORY, &content);
        let layby = Layby::over(&fake).await;
        fake.script(rule);
        let address = layby.address();
        let path = blob_path(REPOSITORY, &content);
        let range = Request::get(&path).range("0-");
        let (first, second, part) = tokio::join!(
            layby.blob(REPOSITORY, &content),
            layby.blob(REPOSITORY, &content),
            range.send_to(address),
        );
        for reply in [first, second] {
            assert!(!is_complete(&reply), "{lie}: {}", reply.head.raw);
        }
        let is_right = part.body == content.all();
        assert!(
            part.status() != 206 || part.end == End::Broken || is_right,
            "{lie}: ranged"
        );
        assert_eq!(layby.committed(), [], "{lie}");
        let failures = layby.metric("verify_failures_total", UPSTREAM).await;
        assert!(!shows_in_digest || failures >= 1.0, "{lie} was not counted");

        fake.mend();
        // For as long a source with wrong bytes is not asked again.
        layby.clock().advance(Duration::from_secs(11));
        eventually(lie, || async {
            let again = layby.blob(REPOSITORY, &content).await;
            assert!(!again.is_a_lie(content.digest()), "{lie}");
            again.is_whole(content.digest()).then_some(())
        })
        .await;
        layby.has_committed(REPOSITORY, [&content]).await;
        // What was thrown away is gone once nobody has it open any more.
        eventually("nothing left behind", || async {
            (partial(&layby) == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_the_announced_end_are_no_part_of_the_blob() {
    let content = content();
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, &content);
    let length = content.len().to_string();
    let more = Rule::digest(content.digest()).append("HTTP/1.1 200 OK\r\n\r\n");
    fake.script(more.header("content-length", &length));
    let layby = Layby::over(&fake).await;
    layby.blob(REPOSITORY, &content).await.expect(&content);
    let next = Content::random(44, KIB);
    fake.put_blob(REPOSITORY, &next);
    layby.blob(REPOSITORY, &next).await.expect(&next);
}

/// How many unfinished files there are.
fn partial(layby: &Layby) -> usize {
    std::fs::read_dir(layby.data().join("partial")).map_or(0, Iterator::count)
}

/// Whether a client takes this for a blob.
fn is_complete(reply: &Download) -> bool {
    reply.head.status == 200 && reply.end == End::Complete && reply.head.length() == Some(reply.len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_fetch_is_asked_for_anew_at_once() {
    let content = content();
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, &content);
    fake.script(Rule::digest(content.digest()).once().cut(MIB, Cut::Reset));
    let layby = Layby::over(&fake).await;
    let mut got = layby.blob(REPOSITORY, &content).await;
    if got.end == End::Broken {
        got = layby.blob(REPOSITORY, &content).await;
    }
    got.expect(&content);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upstreams_lie_does_not_disturb_another_with_the_same_digest() {
    let content = content();
    let (liar, honest) = (Fake::start().await, Fake::start().await);
    let (lying, telling) = (Gate::closed(), Gate::closed());
    let get = || Rule::digest(content.digest());
    liar.put_blob(REPOSITORY, &content);
    liar.script(get().flip(10).wait_at(MIB, &lying));
    honest.put_blob(REPOSITORY, &content);
    honest.script(get().wait_at(MIB, &telling));
    let layby = Setup::over(&liar)
        .upstream("honest.test", &honest)
        .start()
        .await;

    // Both are under way at once.
    let mut of_liar = Wire::connect(layby.address()).await;
    of_liar
        .send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    let head_of_liar = of_liar.head().await;
    let mut of_honest = Wire::connect(layby.address()).await;
    let elsewhere = format!("honest.test/{REPOSITORY}");
    of_honest
        .send(&Request::get(blob_path(&elsewhere, &content)))
        .await;
    let head_of_honest = of_honest.head().await;
    assert_eq!(of_honest.exactly(64 * KIB).await, content.read(0..64 * KIB));
    lying.reached().await;
    telling.reached().await;

    lying.open();
    assert_eq!(of_liar.rest(head_of_liar).await.end, End::Broken);
    assert_eq!(layby.committed(), []);
    telling.open();
    let rest = of_honest.rest(head_of_honest).await;
    assert_eq!(rest.end, End::Complete);
    assert!(rest.body == content.read(64 * KIB..content.len()));
    assert!(layby.metric("verify_failures_total", UPSTREAM).await >= 1.0);
    assert!(layby.metric("verify_failures_total", "honest.test").await < 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_no_bytes_is_verified_before_its_status_line() {
    let fake = Fake::start().await;
    let digest = Content::bytes("something").digest().clone();
    fake.put_blob(REPOSITORY, &Content::bytes("").under(digest.clone()));
    let layby = Layby::over(&fake).await;
    let reply = layby.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).await;
    assert!(reply.status() >= 500, "{}", reply.head.raw);
    assert_eq!(layby.committed(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_does_not_match_its_digest_is_never_served() {
    let image = crate::support::Image::new(41, &[10]);
    let other = crate::support::Image::new(42, &[10]);
    let fake = Fake::start().await;
    let digest = image.push(&fake, REPOSITORY, "latest");
    let layby = Layby::over(&fake).await;
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{digest}");
    let honest = Rule::path("/manifests/");
    let lies = [
        honest.clone().flip(30),
        honest
            .clone()
            .answer(200, crate::support::OCI_MANIFEST, other.manifest.all()),
        honest.clone().web_page(),
        honest
            .clone()
            .answer(200, crate::support::OCI_MANIFEST, "not JSON at all"),
        honest.header("content-encoding", "gzip"),
    ];
    for lie in lies {
        fake.mend();
        fake.script(lie.clone());
        let reply = layby.get(&by_digest).await;
        assert!(reply.status() >= 500, "{lie:?}: {}", reply.head.raw);
        assert_eq!(layby.committed(), [], "{lie:?}");
    }
    fake.mend();
    layby.clock().advance(Duration::from_secs(11));
    assert_eq!(
        layby.get(&by_digest).await.expect(200).body,
        image.manifest.all()
    );
}

/// Distribution's wording: both would be read differently by different clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_a_manifest_and_an_index_at_once_is_refused() {
    let fake = Fake::start().await;
    let both = r#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#;
    let digest = fake.put_manifest(REPOSITORY, crate::support::OCI_MANIFEST, both);
    fake.tag(REPOSITORY, "latest", &digest);
    let layby = Layby::over(&fake).await;
    for reference in ["latest", digest.as_str()] {
        let reply = layby
            .get(&format!("/v2/{REPOSITORY}/manifests/{reference}"))
            .await;
        assert!(reply.status() >= 400, "{}", reply.head.raw);
    }
    assert_eq!(layby.committed(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_over_4_mib_is_refused_and_one_of_3_9_is_served() {
    let fake = Fake::start().await;
    let layby = Layby::over(&fake).await;
    for (tag, padding, status) in [("large", 3_900_000, 200), ("larger", 4_300_000, 502)] {
        let body = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{}","size":2}},"layers":[],"annotations":{{"pad":"{}"}}}}"#,
            Content::bytes("{}").digest(),
            "x".repeat(padding),
        );
        let digest = fake.put_manifest(REPOSITORY, crate::support::OCI_MANIFEST, body.clone());
        fake.tag(REPOSITORY, tag, &digest);
        let reply = layby
            .get(&format!("/v2/{REPOSITORY}/manifests/{tag}"))
            .await;
        if status == 200 {
            assert!(reply.expect(200).body == body);
        } else {
            assert!(reply.status() >= 500, "{}", reply.head.raw);
        }
    }
}
