//! What the upstream no longer has, or no longer shows us, stays served; or not, where the operator says so.

use std::time::Duration;

use crate::fake::{Fake, Rule};
use crate::support::{
    Image, KIB, Layby, Program, Reply, Setup, UPSTREAM, blob_path, eventually, get, metric,
};

const REPOSITORY: &str = "org/app";
const LATEST: &str = "/v2/org/app/manifests/latest";
const TAGS: &str = "/v2/org/app/tags/list";

/// How an upstream takes an image from us, and what Layby calls that.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// The repository is deleted.
    Deleted,
    /// Every request below it is answered with this.
    Refused(u16, &'static str),
}

const ALL: [(Taken, &str); 4] = [
    (Taken::Deleted, "gone"),
    (Taken::Refused(404, "MANIFEST_UNKNOWN"), "gone"),
    (Taken::Refused(401, "UNAUTHORIZED"), "denied"),
    (Taken::Refused(403, "DENIED"), "denied"),
];

impl Taken {
    fn by(self, fake: &Fake) {
        match self {
            Self::Deleted => fake.remove(REPOSITORY),
            Self::Refused(status, code) => {
                fake.script(Rule::path("/v2/").method("*").error(status, code));
            }
        }
    }
}

/// A registry with an image that nobody has pulled yet.
async fn registry(seed: u64) -> (Fake, Image) {
    let fake = Fake::start().await;
    let image = Image::new(seed, &[100 * KIB, 3]);
    image.push(&fake, REPOSITORY, "latest");
    (fake, image)
}

/// Layby, which has the image and its tag list, and which serves stale what `policy` lets it. A tag holds no time.
async fn pulled(fake: &Fake, image: &Image, policy: &[&str]) -> Layby {
    let setup = policy
        .iter()
        .fold(Setup::over(fake), |setup, line| setup.of(UPSTREAM, line));
    let layby = setup.start().await;
    image.pull(layby.address(), REPOSITORY, "latest").await;
    layby.get(TAGS).await.expect(200);
    layby.has_committed(REPOSITORY, image.blobs()).await;
    layby
}

#[track_caller]
fn assert_warned(reply: &Reply, reason: &str) {
    let warning = reply.header("warning").expect("a warning");
    assert!(
        warning.starts_with("299 - ") && warning.contains(reason),
        "{warning}"
    );
    assert_eq!(reply.header("cache-status"), Some("layby; fwd=stale"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_or_denied_is_served_with_a_warning_and_counted() {
    for (taken, reason) in ALL {
        let (fake, image) = registry(300).await;
        let mut layby = pulled(&fake, &image, &[]).await;
        taken.by(&fake);
        for restarted in [false, true] {
            let label = format!(r#"reason="{reason}""#);
            let before = layby.metric("stale_served_total", &label).await;
            for path in [LATEST, TAGS] {
                let reply = layby.get(path).await.expect(200);
                assert_warned(&reply, reason);
            }
            let counted = layby.metric("stale_served_total", &label).await - before;
            assert!((1.9..2.1).contains(&counted), "{taken:?}: {counted}");
            image.pull(layby.address(), REPOSITORY, "latest").await;
            if !restarted {
                layby.restart().await;
                layby.clock().advance(Duration::from_secs(365 * 24 * 3600));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_of_each_stale_answer_why_it_is_one() {
    let scratch = tempfile::tempdir().unwrap();
    let (fake, image) = registry(301).await;
    let setup = Setup::over(&fake).of(UPSTREAM, r#"negative_ttl = "1ms""#);
    let program = Program::start(&setup, scratch.path()).await;
    image.pull(program.address(), REPOSITORY, "latest").await;
    for (taken, reason) in &ALL[1..] {
        taken.by(&fake);
        get(program.address(), LATEST).await.expect(200);
        eventually("the request in the log", || async {
            let detail = format!(r#""cache_detail":"{reason}""#);
            let is_it = |line: &String| line.contains(&detail) && line.contains(REPOSITORY);
            program.log().iter().any(is_it).then_some(())
        })
        .await;
        let label = format!(r#"reason="{reason}""#);
        let counted = metric(program.admin(), "stale_served_total", &label).await;
        assert!(counted > 0.9, "{reason}: {counted}");
        let why = "a tag could not be revalidated";
        assert!(program.log().iter().any(|line| line.contains(why)));
        fake.mend();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_and_digests_of_a_deleted_image_are_served_without_asking() {
    for (taken, _) in ALL {
        let (fake, image) = registry(302).await;
        let mut layby = pulled(&fake, &image, &[]).await;
        taken.by(&fake);
        layby.restart().await;
        fake.record().clear();
        for blob in image.blobs() {
            layby.blob(REPOSITORY, blob).await.expect(blob);
            let head = layby.head(&blob_path(REPOSITORY, blob)).await.expect(200);
            assert_eq!(head.head.length(), Some(blob.len()));
        }
        let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", image.manifest.digest());
        let manifest = layby.get(&by_digest).await.expect(200);
        assert_eq!(manifest.body, image.manifest.all());
        assert_eq!(manifest.header("warning"), None);
        assert_eq!(fake.record().all().len(), 0, "{taken:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_down_works_where_stale_is_off_and_ends_when_the_image_is_back() {
    for (taken, reason) in ALL {
        let (fake, image) = registry(303).await;
        let off = format!(r#"stale_if_{reason} = "0s""#);
        let layby = pulled(&fake, &image, &[&off]).await;
        taken.by(&fake);
        let (status, code) = match reason {
            "gone" => (404, "MANIFEST_UNKNOWN"),
            _ => (403, "DENIED"),
        };
        assert_eq!(layby.get(LATEST).await.expect(status).code(), code);
        assert_eq!(layby.head(LATEST).await.status(), status, "{taken:?}");
        if reason == "denied" {
            assert_eq!(layby.get(TAGS).await.expect(403).code(), "DENIED");
        }
        let stale = layby.metric("stale_served_total", "").await;
        assert!(stale < 0.1, "{taken:?}: {stale}");

        fake.mend();
        image.push(&fake, REPOSITORY, "latest");
        layby.clock().advance(Duration::from_secs(11));
        let back = layby.get(LATEST).await.expect(200);
        assert_eq!(back.header("warning"), None);
        image.pull(layby.address(), REPOSITORY, "latest").await;
    }
}

/// An outage is no reason to bring back what was taken down.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_taken_down_stays_down_when_the_upstream_dies_after() {
    let (fake, image) = registry(304).await;
    let mut layby = pulled(&fake, &image, &[r#"stale_if_gone = "0s""#]).await;
    fake.remove(REPOSITORY);
    layby.get(LATEST).await.expect(404);
    fake.go_down().await;
    for _ in 0..2 {
        layby.clock().advance(Duration::from_secs(11));
        let reply = layby.get(LATEST).await;
        assert!(matches!(reply.status(), 404 | 503), "{}", reply.head.raw);
        layby.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_a_day_is_a_day() {
    let (fake, image) = registry(305).await;
    let layby = pulled(&fake, &image, &[r#"stale_if_gone = "1d""#]).await;
    fake.remove(REPOSITORY);
    layby.clock().advance(Duration::from_secs(23 * 3600));
    assert_warned(&layby.get(LATEST).await.expect(200), "gone");
    layby.clock().advance(Duration::from_secs(2 * 3600));
    layby.get(LATEST).await.expect(404);
}
