//! Where redirects lead.

use super::fakes::{Answer, Fake};
use super::*;

const PUBLIC: &str = "203.0.113.10";

#[tokio::test]
async fn a_redirect_to_another_host_is_followed_with_the_range_and_never_kept() {
    let storage = Fake::plain(|_| {
        Answer::new(206, &CONTENT[5..9])
            .with("content-range", format!("bytes 5-8/{}", CONTENT.len()))
    })
    .await;
    let target = format!("{}/signed?X-Signature=s3cret", storage.url());
    let registry = Fake::plain(move |_| Answer::redirect(307, target.clone())).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    for _ in 0..2 {
        let part = upstream
            .get_blob(&repository(), &digest(), Some(5..9), &call())
            .await
            .unwrap();
        assert_eq!(part.start, 5);
    }
    assert_eq!(
        registry.seen().len(),
        2,
        "the registry is asked for each redirect"
    );
    let seen = &storage.seen()[0];
    assert_eq!(seen.uri, "/signed?X-Signature=s3cret");
    assert_eq!(seen.header("range"), Some("bytes=5-8"));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert_eq!(
        seen.header("host"),
        Some(storage.address.to_string().as_str())
    );
}

#[tokio::test]
async fn every_kind_of_redirect_is_followed_and_keeps_the_method() {
    for status in [301, 302, 303, 307, 308] {
        let registry = Fake::plain(move |seen| {
            if seen.path() == "/there" {
                Answer::ok(CONTENT)
            } else {
                Answer::redirect(status, "/there")
            }
        })
        .await;
        let upstream = World::new(&[&registry.url()]).upstream();
        let head = upstream
            .head_blob(&repository(), &digest(), &call())
            .await
            .unwrap();
        assert_eq!(head.len, CONTENT.len() as u64);
        assert!(
            registry.seen().iter().all(|seen| seen.method == "HEAD"),
            "{status}"
        );
        assert_eq!(
            registry.connections(),
            1,
            "the connection is used again after {status}"
        );
    }
}

#[tokio::test]
async fn ten_redirects_are_followed_and_no_more() {
    for (redirects, good) in [(10, true), (11, false)] {
        let registry = Fake::plain(move |seen| {
            let step: usize = seen.path().trim_start_matches('/').parse().unwrap_or(0);
            if step == redirects {
                Answer::ok(CONTENT)
            } else {
                Answer::redirect(302, format!("/{}", step + 1))
            }
        })
        .await;
        let result = fetch(&World::new(&[&registry.url()]).upstream()).await;
        if good {
            assert_eq!(result.unwrap(), CONTENT);
        } else {
            assert!(
                matches!(
                    result,
                    Err(Error::Refused {
                        key: "redirects",
                        ..
                    })
                ),
                "{result:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_signed_url_that_storage_refuses_is_asked_for_afresh_once() {
    for refused in [400, 401, 403] {
        let storage = Fake::plain(move |seen| match seen.uri.query() {
            Some("try=1") => Answer::ok(CONTENT),
            _ => Answer::new(refused, "<Error><Code>ExpiredToken</Code></Error>"),
        })
        .await;
        let target = storage.url();
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let registry = Fake::plain(move |_| {
            let time = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Answer::redirect(307, format!("{target}/blob?try={time}"))
        })
        .await;
        assert_eq!(
            fetch(&World::new(&[&registry.url()]).upstream())
                .await
                .unwrap(),
            CONTENT
        );
        assert_eq!(registry.seen().len(), 2);
    }
}

#[tokio::test]
async fn storage_that_keeps_refusing_is_an_error_that_hides_the_signature() {
    // As some servers do, it shows the whole address in its error.
    let storage = Fake::plain(|seen| Answer::new(403, format!("no {}", seen.uri))).await;
    let target = format!("{}/blob?X-Signature=s3cretsignature", storage.url());
    let registry = Fake::plain(move |_| Answer::redirect(307, target.clone())).await;
    let error = fetch(&World::new(&[&registry.url()]).upstream())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Denied { ours: false, .. }),
        "{error:?}"
    );
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert_eq!(storage.seen().len(), 2);
}

/// A public registry that redirects to `location`.
async fn public_registry(location: String) -> (Fake, World) {
    let registry = Fake::plain(move |_| Answer::redirect(307, location.clone())).await;
    let world = World::new(&["http://registry.example"]);
    world
        .network
        .host("registry.example", PUBLIC, registry.address);
    (registry, world)
}

#[tokio::test]
async fn a_public_registry_cannot_send_us_to_inner_addresses() {
    for location in [
        "http://127.0.0.1:5050/api",
        "http://localhost/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.1.2.3/",
        "http://inner.example/",
    ] {
        let (_registry, world) = public_registry(location.to_owned()).await;
        world.network.black_hole("inner.example", "192.168.7.7");
        world.network.black_hole("localhost", "127.0.0.1");
        let error = fetch(&world.upstream()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    key: "allow_private",
                    ..
                }
            ),
            "{location}: {error:?}"
        );
        assert!(
            error
                .to_string()
                .contains(r#"[upstreams."registry.example"]"#),
            "{error}"
        );
        assert_eq!(
            world.network.opened().len(),
            1,
            "{location}: only the registry was connected to"
        );
    }
}

#[tokio::test]
async fn of_a_hosts_addresses_only_the_public_ones_are_used() {
    let storage = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let (_registry, world) = public_registry("http://mixed.example/".to_owned()).await;
    world.network.black_hole("mixed.example", "10.0.0.1");
    world
        .network
        .host("mixed.example", "203.0.113.20", storage.address);
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    assert!(
        world
            .network
            .opened()
            .iter()
            .all(|address| !address.ip().to_string().starts_with("10."))
    );
}

#[tokio::test]
async fn the_operator_may_allow_inner_addresses() {
    let storage = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let (_registry, mut world) = public_registry("http://inner.example/".to_owned()).await;
    world
        .network
        .host("inner.example", "192.168.7.7", storage.address);
    world.upstream.allow_private = true;
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn an_inner_registry_may_use_inner_storage_but_not_this_machine() {
    let storage = Fake::plain(|_| Answer::ok(CONTENT)).await;
    for (ip, good) in [("192.168.7.7", true), ("127.0.0.9", false)] {
        let registry = Fake::plain(|_| Answer::redirect(307, "http://minio.example/b")).await;
        let world = World::new(&["http://registry.example"]);
        world
            .network
            .host("registry.example", "10.0.0.5", registry.address);
        world.network.host("minio.example", ip, storage.address);
        let result = fetch(&world.upstream()).await;
        assert_eq!(result.is_ok(), good, "{ip}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_that_hang_hold_up_others_that_we_are_sent_to_for_a_moment_only() {
    let digests: Vec<_> = (0..5_u8).map(|n| Digest::sha256(&[n])).collect();
    let asked = digests.clone();
    let registry = Fake::plain(move |seen| {
        let name = asked.iter().position(|d| seen.path().contains(d.encoded()));
        Answer::redirect(307, format!("http://cdn-{}.example/", name.unwrap()))
    })
    .await;
    let world = World::new(&[&registry.url()]);
    for n in 0..4 {
        world.network.hang(&format!("cdn-{n}.example"));
    }
    let upstream = world.upstream();
    let ask = async |n: usize| {
        let (repository, call) = (repository(), call());
        let answer = upstream.get_blob(&repository, &digests[n], None, &call);
        answer.await.map(drop).unwrap_err().to_string()
    };
    let last = async {
        while world.network.stuck() < 4 {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        let error = ask(4).await;
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(error.contains("seems to hang"), "{error}");
    };
    let (error, ..) = tokio::join!(ask(0), ask(1), ask(2), ask(3), last);
    assert!(error.contains("5s"), "{error}");
}
