use tokio::sync::mpsc;

use super::administrator::TOKEN;
use super::wire::Reply;
use super::{Site, Wire};
use crate::proxy::admin::model::{VerifyEvent, VerifyReport};

async fn ask(site: &Site, method: &str, path: &str) -> Reply {
    let bearer = format!("Authorization: Bearer {TOKEN}");
    ask_as(site, method, path, &[&bearer]).await
}

async fn ask_as(site: &Site, method: &str, path: &str, headers: &[&str]) -> Reply {
    let address = site.server.admin_address().unwrap();
    let mut wire = Wire::connect(address).await;
    wire.exchange(method, path, headers).await
}

/// Status, and the code of the error.
fn refusal(reply: &Reply) -> (u16, String) {
    let body: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    assert!(
        body["error"]["message"]
            .as_str()
            .is_some_and(|m| !m.is_empty())
    );
    (reply.status, code.to_owned())
}

#[tokio::test]
async fn without_the_token_nothing_is_told_and_nothing_done() {
    let site = Site::start();
    for headers in [
        &[][..],
        &["Authorization: Bearer wrong-but-long-enough"],
        &["Authorization: Basic eA=="],
    ] {
        for (method, path) in [
            ("GET", "/api/v1/images"),
            ("DELETE", "/api/v1/images?name=a"),
            ("GET", "/api/v1/openapi.json"),
            ("GET", "/api/v1/nothing"),
            ("GET", "/api"),
        ] {
            let reply = ask_as(&site, method, path, headers).await;
            assert_eq!(
                refusal(&reply),
                (401, "denied".to_owned()),
                "{method} {path}"
            );
            assert_eq!(
                reply.header("www-authenticate"),
                Some("Bearer realm=\"layby\"")
            );
        }
    }
    assert!(site.administration.asked.lock().is_empty());
}

#[tokio::test]
async fn the_clients_listener_has_no_administration() {
    let site = Site::start();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let reply = site.ask("GET", "/api/v1/images", &[&bearer]).await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn parameters_reach_administration_decoded() {
    let site = Site::start();
    for (method, path, asked) in [
        (
            "GET",
            "/api/v1/images?n=5&last=a%2Fb%3Ac&match=a%2F*",
            "ImageQuery { n: Some(5), last: Some(\"a/b:c\"), matching: Some(\"a/*\") }",
        ),
        (
            "DELETE",
            "/api/v1/images?name=a%2Fb&dry_run=true",
            "remove a/b true",
        ),
        ("DELETE", "/api/v1/images?name=a", "remove a false"),
        ("POST", "/api/v1/pins?name=alpine", "pin alpine"),
        (
            "POST",
            "/api/v1/verify?name=alpine",
            "verify Some(\"alpine\")",
        ),
        ("POST", "/api/v1/verify", "verify None"),
    ] {
        ask(&site, method, path).await;
        assert_eq!(
            site.administration.asked.lock().pop().as_deref(),
            Some(asked)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_what_can() {
    let site = Site::start();
    for (method, path, status, code) in [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api/v2/images", 404, "not_found"),
        ("PUT", "/api/v1/images", 405, "invalid"),
        ("HEAD", "/api/v1/refresh", 405, ""),
        ("GET", "/api/v1/image", 400, "invalid"),
        ("GET", "/api/v1/images?limit=5", 400, "invalid"),
        ("GET", "/api/v1/images?n=-1", 400, "invalid"),
        ("GET", "/api/v1/images?n=1&n=2", 400, "invalid"),
        (
            "DELETE",
            "/api/v1/images?name=a&dry_run=yes",
            400,
            "invalid",
        ),
        ("GET", "/api/v1/image?name=a", 404, "not_found"),
        ("POST", "/api/v1/pins?name=a", 400, "invalid"),
        ("DELETE", "/api/v1/pins?name=a", 500, "failed"),
        ("POST", "/api/v1/refresh?name=a", 409, "busy"),
        ("POST", "/api/v1/verify", 409, "busy"),
    ] {
        let reply = ask(&site, method, path).await;
        if method == "HEAD" {
            assert_eq!(
                (reply.status, reply.header("allow")),
                (status, Some("POST"))
            );
            continue;
        }
        assert_eq!(
            refusal(&reply),
            (status, code.to_owned()),
            "{method} {path}"
        );
    }
    let reply = ask(&site, "PUT", "/api/v1/pins").await;
    assert_eq!(reply.header("allow"), Some("GET, POST, DELETE"));
    let reply = ask(&site, "GET", "/api/v1/statistics").await;
    assert_eq!(
        (reply.status, reply.header("cache-control")),
        (200, Some("no-store"))
    );
}

#[tokio::test]
async fn a_verification_tells_each_event_as_a_line_when_it_happens() {
    let site = Site::start();
    let (sender, receiver) = mpsc::channel(1);
    *site.administration.events.lock() = Some(receiver);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let mut wire = Wire::connect(site.server.admin_address().unwrap()).await;
    let headers = [&*bearer];
    let telling = async {
        let progress = VerifyEvent::Progress {
            blobs: 1,
            bytes: 2,
            of_blobs: 3,
        };
        sender.send(progress).await.unwrap();
        sender
            .send(VerifyEvent::Done(VerifyReport::default()))
            .await
            .unwrap();
        drop(sender);
    };
    let (reply, ()) = tokio::join!(wire.exchange("POST", "/api/v1/verify", &headers), telling);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let events: Vec<VerifyEvent> = reply
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 2);
    assert!(matches!(events[1], VerifyEvent::Done(_)));
    assert!(reply.whole);
}

#[tokio::test]
async fn a_verification_ends_when_its_client_leaves() {
    let site = Site::start();
    let (sender, receiver) = mpsc::channel(1);
    *site.administration.events.lock() = Some(receiver);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let mut wire = Wire::connect(site.server.admin_address().unwrap()).await;
    wire.request("POST", "/api/v1/verify", &[&bearer]).await;
    let progress = VerifyEvent::Progress {
        blobs: 1,
        bytes: 2,
        of_blobs: 3,
    };
    sender.send(progress).await.unwrap();
    drop(wire);
    sender.closed().await;
}

/// Asks with a body that has this `Content-Length`.
async fn send(site: &Site, path: &str, len: usize, body: &[u8]) -> Reply {
    let mut wire = Wire::connect(site.server.admin_address().unwrap()).await;
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let length = format!("Content-Length: {len}");
    wire.request("POST", path, &[&bearer, &length]).await;
    wire.try_write(body).await;
    wire.reply("POST").await
}

#[tokio::test]
async fn a_list_comes_as_json_and_images_go_as_a_file_of_known_length() {
    let site = Site::start();
    let body = br#"{"images":["alpine"]}"#;
    let reply = send(&site, "/api/v1/export", body.len(), body).await;
    assert_eq!(reply.header("content-type"), Some("application/x-tar"));
    assert_eq!(reply.header("content-length"), Some("5"));
    assert_eq!(reply.text(), "a tar");
    let plan = send(&site, "/api/v1/export?dry_run=true", body.len(), body).await;
    assert_eq!(refusal(&plan), (404, "not_found".to_owned()));
    let asked = std::mem::take(&mut *site.administration.asked.lock());
    assert_eq!(asked, ["export [\"alpine\"]", "plan [\"alpine\"]"]);
}

#[tokio::test]
async fn a_body_that_is_not_what_it_should_be_is_refused_before_it_is_read_to_its_end() {
    let site = Site::start();
    for (len, body) in [
        (2, &b"no"[..]),
        (9, br#"{"all":1}"#),
        (12, br#"{"every":1} "#),
        (0, b""),
        (1 << 40, b"{"),
    ] {
        let reply = send(&site, "/api/v1/export", len, body).await;
        assert_eq!(refusal(&reply), (400, "invalid".to_owned()), "{len}");
    }
    assert!(site.administration.asked.lock().is_empty());
}

#[tokio::test]
async fn an_archive_is_read_as_it_comes() {
    let site = Site::start();
    let body = vec![7; 1 << 20];
    let reply = send(&site, "/api/v1/import?name=a&pin=false", body.len(), &body).await;
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    assert!(reply.text().contains("ended"), "{}", reply.text());
    assert_eq!(
        site.administration.asked.lock().pop().as_deref(),
        Some("import ImportRequest { name: Some(\"a\"), pin: false } Some(1048576) 1048576")
    );
}
