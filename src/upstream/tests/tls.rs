//! TLS: whom we trust, what we show, what we speak.

use http::Version;

use super::fakes::{Answer, Authority, Fake, FakeTunnel};
use super::*;

const NAME: &str = "registry.example";

/// An upstream at `https://registry.example` that trusts the authority in `ca.pem` of the returned directory.
fn world(registry: &Fake, ca: &str) -> (World, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca).unwrap();
    let mut world = World::new(&["https://registry.example"]);
    world.network.host(NAME, "203.0.113.10", registry.address);
    world.upstream.ca_file = Some(ca_file);
    (world, dir)
}

#[tokio::test]
async fn http2_is_spoken_where_offered_and_one_connection_is_enough() {
    let authority = Authority::new();
    let config = authority.server(NAME, &["h2", "http/1.1"], None);
    let big = vec![42; 6 << 20];
    let registry = Fake::tls(config, move |_| Answer::ok(big.clone())).await;
    let (world, _dir) = world(&registry, &authority.pem);
    let upstream = world.upstream();
    assert_eq!(fetch(&upstream).await.unwrap().len(), 6 << 20);
    let (one, two) = tokio::join!(fetch(&upstream), fetch(&upstream));
    assert_eq!((one.unwrap().len(), two.unwrap().len()), (6 << 20, 6 << 20));
    assert_eq!(registry.connections(), 1);
    let seen = &registry.seen()[0];
    assert_eq!(seen.version, Version::HTTP_2);
    assert_eq!(seen.uri.authority().unwrap(), NAME);
}

#[tokio::test]
async fn http1_is_spoken_where_nothing_else_is_offered() {
    for alpn in [&["http/1.1"][..], &[]] {
        let authority = Authority::new();
        let registry = Fake::tls(authority.server(NAME, alpn, None), |_| Answer::ok(CONTENT)).await;
        let (world, _dir) = world(&registry, &authority.pem);
        assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
        assert_eq!(registry.seen()[0].version, Version::HTTP_11);
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused_with_the_key_that_would_trust_it() {
    let authority = Authority::new();
    let registry = Fake::tls(authority.server(NAME, &[], None), |_| Answer::ok(CONTENT)).await;
    let (world, _dir) = world(&registry, &Authority::new().pem);
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("ca_file"), "{error}");
    assert!(registry.seen().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let config = authority.server("other.example", &[], None);
    let registry = Fake::tls(config, |_| Answer::ok(CONTENT)).await;
    let (world, _dir) = world(&registry, &authority.pem);
    assert!(matches!(
        fetch(&world.upstream()).await,
        Err(Error::Unavailable { .. })
    ));
}

#[tokio::test]
async fn a_changed_ca_file_is_read_again_and_a_broken_one_changes_nothing() {
    let authority = Authority::new();
    // Closes after each answer, so that each request connects anew.
    let registry = Fake::tls(authority.server(NAME, &["http/1.1"], None), |_| {
        Answer::ok(CONTENT).with("connection", "close")
    })
    .await;
    let (world, dir) = world(&registry, &Authority::new().pem);
    let upstream = world.upstream();
    assert!(fetch(&upstream).await.is_err());
    let both = format!("{}{}", Authority::new().pem, authority.pem);
    std::fs::write(dir.path().join("ca.pem"), both).unwrap();
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    std::fs::write(dir.path().join("ca.pem"), "nonsense").unwrap();
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    assert_eq!(registry.connections(), 3);
}

#[tokio::test]
async fn a_missing_ca_file_is_named() {
    let authority = Authority::new();
    let registry = Fake::tls(authority.server(NAME, &[], None), |_| Answer::ok(CONTENT)).await;
    let (world, dir) = world(&registry, &authority.pem);
    std::fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
}

#[tokio::test]
async fn the_client_certificate_is_shown() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let config = authority.server(NAME, &["h2"], Some(&clients));
    let registry = Fake::tls(config, |_| Answer::ok(CONTENT)).await;
    let (mut world, dir) = world(&registry, &authority.pem);
    assert!(fetch(&world.upstream()).await.is_err());
    show_certificate(&mut world, dir.path(), &clients);
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
}

/// Lets `world` show a certificate of `clients`, whose files go into `dir`.
fn show_certificate(world: &mut World, dir: &std::path::Path, clients: &Authority) {
    let leaf = clients.leaf("layby");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, leaf.cert).unwrap();
    std::fs::write(&key, leaf.key).unwrap();
    world.upstream.client_cert = Some((cert, key));
}

#[tokio::test]
async fn a_redirects_target_is_not_shown_the_client_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let config = |name| authority.server(name, &["h2"], Some(&clients));
    let storage = Fake::tls(config("storage.example"), |_| Answer::ok(CONTENT)).await;
    let registry = Fake::tls(config(NAME), |_| {
        Answer::redirect(307, "https://storage.example/blob")
    })
    .await;
    let (mut world, dir) = world(&registry, &authority.pem);
    show_certificate(&mut world, dir.path(), &clients);
    world
        .network
        .host("storage.example", "203.0.113.20", storage.address);
    assert!(fetch(&world.upstream()).await.is_err());
    assert_eq!(registry.seen().len(), 1);
    assert_eq!(storage.connections(), 1);
    assert!(storage.seen().is_empty());
}

#[tokio::test]
async fn only_the_first_url_is_shown_the_client_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let config = |name| authority.server(name, &["h2"], Some(&clients));
    let first = Fake::tls(config(NAME), |_| Answer::new(503, "")).await;
    let second = Fake::tls(config("second.example"), |_| Answer::ok(CONTENT)).await;
    let (mut world, dir) = world(&first, &authority.pem);
    show_certificate(&mut world, dir.path(), &clients);
    world
        .network
        .host("second.example", "203.0.113.20", second.address);
    world.upstream.urls.push(UpstreamUrl {
        url: "https://second.example".parse().unwrap(),
        credentials: None,
    });
    assert!(fetch(&world.upstream()).await.is_err());
    assert_eq!((first.seen().len(), second.connections()), (1, 1));
    assert!(second.seen().is_empty());
}

#[tokio::test]
async fn a_tunnel_through_the_proxy_carries_tls_end_to_end() {
    let authority = Authority::new();
    let config = authority.server(NAME, &["h2", "http/1.1"], None);
    let registry = Fake::tls(config, |_| Answer::ok(CONTENT)).await;
    let tunnel = FakeTunnel::to(registry.address, "200 Connection established").await;
    let (mut world, _dir) = world(&registry, &authority.pem);
    world.environment = vec![(
        "HTTPS_PROXY",
        format!("http://user:pass@{}", tunnel.address),
    )];
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    let head = &tunnel.heads()[0];
    assert!(
        head.starts_with("CONNECT registry.example:443 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n"),
        "{head}"
    );
    assert_eq!(registry.seen()[0].header("proxy-authorization"), None);
    assert_eq!(world.network.opened(), [tunnel.address]);
}

#[tokio::test]
async fn an_encrypted_registry_cannot_send_us_to_plain_http() {
    let authority = Authority::new();
    let storage = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let registry = Fake::tls(authority.server(NAME, &["h2"], None), |_| {
        Answer::redirect(307, "http://storage.example/blob?sig=s3cret")
    })
    .await;
    let (world, _dir) = world(&registry, &authority.pem);
    world
        .network
        .host("storage.example", "203.0.113.20", storage.address);
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(
        matches!(error, Error::Refused { key: "https", .. }),
        "{error:?}"
    );
    assert!(!error.to_string().contains("s3cret"), "{error}");
    assert!(storage.seen().is_empty());
}

#[tokio::test]
async fn plain_http_behind_an_https_url_is_explained() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let (world, _dir) = world(&registry, &Authority::new().pem);
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(error.to_string().contains("http://"), "{error}");
}
