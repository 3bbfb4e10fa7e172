//! Everything that an upstream can do instead of answering: what is cached is served, and what is not is the right
//! error in time.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::fake::{Cut, Fake, Gate, Rule};
use crate::support::{
    Image, KIB, Layby, MIB, Reply, Request, Setup, UPSTREAM, blob_path, eventually,
};

const REPOSITORY: &str = "org/app";
const PULL_LIMIT: &str = "You have reached your unauthenticated pull rate limit. \
                          https://www.docker.com/increase-rate-limit";

/// A name that is guaranteed to stand for nothing (RFC 6761, section 6.4).
const NOWHERE: &str = "http://registry.invalid";

/// What has become of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    HangsUp,
    Hanging,
    Nowhere,
    Refusing(u16),
    Failing(u16),
    /// Docker Hub's limit of pulls.
    PullLimit,
    /// Docker Hub's limit of requests of any kind, and everybody else's.
    AbuseLimit,
}

const ALL: [Fault; 11] = [
    Fault::Killed,
    Fault::HangsUp,
    Fault::Hanging,
    Fault::Nowhere,
    Fault::Refusing(401),
    Fault::Refusing(403),
    Fault::Failing(500),
    Fault::Failing(502),
    Fault::Failing(503),
    Fault::PullLimit,
    Fault::AbuseLimit,
];

impl Fault {
    async fn befall(self, fake: &Fake, layby: &mut Layby) {
        let all = Rule::path("/").method("*");
        match self {
            Self::Killed => fake.go_down().await,
            Self::HangsUp => fake.script(all.hang_up(Cut::Fin)),
            Self::Hanging => fake.script(all.hold(&Gate::closed())),
            Self::Nowhere => {
                layby
                    .restart_with(|setup| setup.upstream_at(UPSTREAM, NOWHERE))
                    .await;
            }
            Self::Refusing(401) => fake.script(all.error(401, "UNAUTHORIZED")),
            Self::Refusing(status) => fake.script(all.error(status, "DENIED")),
            Self::Failing(status) => fake.script(all.error(status, "UNKNOWN")),
            Self::PullLimit => fake.script(pull_limit()),
            Self::AbuseLimit => {
                let body = "Too Many Requests (HAP429).\n";
                fake.script(all.answer(429, "text/plain", body));
            }
        }
    }

    /// Status and code of the answer for something that is not cached.
    fn answer(self) -> (u16, &'static str) {
        match self {
            Self::Refusing(_) => (403, "DENIED"),
            Self::PullLimit | Self::AbuseLimit => (429, "TOOMANYREQUESTS"),
            _ => (503, "UNAVAILABLE"),
        }
    }

    /// Why what is cached is served without being asked about.
    fn stale_reason(self) -> &'static str {
        match self {
            Self::Refusing(_) => "denied",
            Self::AbuseLimit => "rate_limited",
            _ => "unreachable",
        }
    }
}

/// `GET`s of manifests alone are limited.
fn pull_limit() -> Rule {
    let body = format!(r#"{{"errors":[{{"code":"TOOMANYREQUESTS","message":"{PULL_LIMIT}"}}]}}"#);
    Rule::path("/manifests/").answer(429, "application/json", body)
}

/// A registry, and Layby which has an image of it. Nothing but `header_timeout` ends what hangs, within the patience of a
/// test.
async fn pulled() -> (Fake, Layby, Image) {
    let fake = Fake::start().await;
    let image = Image::new(340, &[MIB, 10 * KIB, 3]);
    image.push(&fake, REPOSITORY, "latest");
    let layby = Setup::over(&fake)
        .set("limits", r#"header_timeout = "2s""#)
        .set("limits", r#"revalidate_timeout = "200ms""#)
        .set("limits", r#"connect_timeout = "10m""#)
        .set("limits", r#"stall_timeout = "10m""#)
        .start()
        .await;
    image.pull(layby.address(), REPOSITORY, "latest").await;
    layby.has_committed(REPOSITORY, image.blobs()).await;
    (fake, layby, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_served_whatever_the_upstream_does() {
    for fault in ALL {
        let (fake, mut layby, image) = pulled().await;
        fault.befall(&fake, &mut layby).await;
        image.pull(layby.address(), REPOSITORY, "latest").await;
        let tag = format!("/v2/{REPOSITORY}/manifests/latest");
        let reply = layby.get(&tag).await.expect(200);
        // HEADs of manifests are free where pulls are limited: the tag is known to be right.
        if fault == Fault::PullLimit {
            assert_eq!(reply.header("warning"), None);
            continue;
        }
        let warning = reply.header("warning").expect("a warning");
        assert!(
            warning.contains(fault.stale_reason()),
            "{fault:?}: {warning}"
        );
    }
}

/// Every kind of question about what is not here.
fn misses(image: &Image) -> Vec<Request> {
    let below = |rest: &str| format!("/v2/{REPOSITORY}/{rest}");
    let by_digest = below(&format!("manifests/{}", image.manifest.digest()));
    let blob = blob_path(REPOSITORY, &image.layers[0]);
    vec![
        Request::get(below("manifests/missing")),
        Request::head(below("manifests/missing")),
        Request::get(by_digest),
        Request::get(&blob),
        Request::head(&blob),
        Request::get(&blob).range("5-9"),
        Request::get(below("tags/list")),
        Request::get(below(&format!("referrers/{}", image.manifest.digest()))),
    ]
}

async fn ask_all(layby: &Layby, requests: Vec<Request>) -> Vec<(Request, Reply)> {
    let (address, mut asking) = (layby.address(), JoinSet::new());
    for request in requests {
        asking.spawn(async move {
            let reply = request.send_to(address).await;
            (request, reply)
        });
    }
    asking.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_cached_is_the_right_error_within_header_timeout() {
    let mut outages = JoinSet::new();
    for fault in ALL {
        // Pulls alone are limited, which is a test of its own.
        if fault == Fault::PullLimit {
            continue;
        }
        outages.spawn(async move {
            let (fake, mut layby, _) = pulled().await;
            fault.befall(&fake, &mut layby).await;
            let missing = Image::new(341, &[200 * KIB]);
            let (status, code) = fault.answer();
            for (request, reply) in ask_all(&layby, misses(&missing)).await {
                let said = format!("{fault:?} {request:?}: {}", reply.text());
                assert_eq!(reply.status(), status, "{said}");
                if !request.is_head() {
                    assert_eq!(reply.code(), code, "{said}");
                    let names = [UPSTREAM, NOWHERE, &fake.host()];
                    assert!(names.iter().any(|name| said.contains(name)), "{said}");
                }
                if status == 429 {
                    let after = reply.header("retry-after").expect("Retry-After");
                    assert!(after.parse::<u64>().is_ok_and(|after| after > 0), "{after}");
                }
            }
        });
    }
    outages.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_pulls_are_limited_blobs_and_questions_about_tags_go_on() {
    let (fake, layby, image) = pulled().await;
    let cold = Image::new(342, &[300 * KIB, 5]);
    cold.push(&fake, REPOSITORY, "cold");
    let cold_tag = format!("/v2/{REPOSITORY}/manifests/cold");
    let seen = layby.get(&cold_tag).await.expect(200);
    assert_eq!(seen.body, cold.manifest.all());
    fake.script(pull_limit().header("retry-after", "3600"));

    let unseen = Image::new(343, &[5]);
    unseen.push(&fake, REPOSITORY, "unseen");
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", unseen.manifest.digest());
    for path in [format!("/v2/{REPOSITORY}/manifests/unseen"), by_digest] {
        let reply = layby.get(&path).await.expect(429);
        assert_eq!(reply.code(), "TOOMANYREQUESTS");
        assert!(reply.text().contains(PULL_LIMIT), "{}", reply.text());
    }
    // An image whose manifest is here and whose blobs are not, and one that is here.
    cold.pull(layby.address(), REPOSITORY, "cold").await;
    image.pull(layby.address(), REPOSITORY, "latest").await;
    for tag in ["cold", "latest"] {
        let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
        let reply = layby.get(&path).await.expect(200);
        assert_eq!(reply.header("warning"), None, "{tag}");
    }
    // Blobs of images that are not here at all flow too.
    for blob in unseen.blobs() {
        layby.blob(REPOSITORY, blob).await.expect(blob);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_upstream_is_right_again_so_is_every_answer() {
    let mut outages = JoinSet::new();
    for fault in ALL {
        // Its address stays wrong.
        if fault == Fault::Nowhere {
            continue;
        }
        outages.spawn(async move {
            let (fake, mut layby, image) = pulled().await;
            fault.befall(&fake, &mut layby).await;
            let newer = Image::new(344, &[200 * KIB, 7]);
            ask_all(&layby, misses(&newer)).await;
            image.pull(layby.address(), REPOSITORY, "latest").await;
            fake.mend();
            if fault == Fault::Killed {
                fake.come_back().await;
            }
            newer.push(&fake, REPOSITORY, "latest");
            // Holds, breakers and remembered failures have their time, some by the wall clock, some not.
            eventually("the new image", || async {
                layby.clock().advance(Duration::from_secs(11));
                let tag = format!("/v2/{REPOSITORY}/manifests/latest");
                let reply = layby.get(&tag).await;
                (reply.body == newer.manifest.all()).then_some(())
            })
            .await;
            for blob in newer.blobs() {
                eventually("a blob that could not be had", || async {
                    let got = layby.blob(REPOSITORY, blob).await;
                    got.is_whole(blob.digest()).then_some(())
                })
                .await;
            }
        });
    }
    outages.join_all().await;
}
