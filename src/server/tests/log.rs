use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Site, digest_of};
use crate::proxy::{BrokenBody, CacheOutcome};
use crate::telemetry::json_lines::JsonLines;

/// What was logged on this thread, which is also the server's.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn capture() -> (Self, tracing::subscriber::DefaultGuard) {
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// The lines of requests so far.
    fn requests(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|fields| fields["message"] == "request")
            .collect()
    }

    /// The one line, once it is there.
    async fn request(&self) -> Value {
        loop {
            if let Some(line) = self.requests().pop() {
                return line;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn one_line_tells_what_a_request_came_to_and_no_secret() {
    let (lines, _guard) = Lines::capture();
    let site = Site::start();
    site.fake.manifest("v1", b"{}", CacheOutcome::Hit);
    let headers = [
        "Authorization: Basic c2VjcmV0",
        "X-Request-Id: r-1",
        "Cookie: secret",
    ];
    let path = "/v2/org/app/manifests/v1?ns=ghcr.io&token=secret";
    site.ask("GET", path, &headers).await;
    let line = lines.request().await;
    for (field, value) in [
        ("request_id", "r-1"),
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("path", "/v2/org/app/manifests/v1"),
        ("ns", "ghcr.io"),
        ("route", "manifest"),
        ("upstream", "ghcr.io"),
        ("repository", "org/app"),
        ("reference", "v1"),
        ("cache", "hit"),
        ("end", "complete"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["sent_bytes"], 2);
    assert!(line["first_byte_ms"].is_number() && line["elapsed_ms"].is_number());
    let text = line.to_string();
    assert!(
        !text.contains("secret") && !text.contains("c2VjcmV0"),
        "{text}"
    );
}

#[tokio::test]
async fn the_line_is_written_when_the_body_has_ended() {
    let (lines, _guard) = Lines::capture();
    let site = Site::start();
    let digest = digest_of(b"hello");
    let sender = site.fake.live_blob(&digest, Some(5));
    let mut wire = site.connect().await;
    wire.request("GET", &format!("/v2/a/blobs/{digest}"), &[])
        .await;
    wire.head().await.unwrap();
    assert!(lines.requests().is_empty());
    sender.send(Ok("hello".into())).await.unwrap();
    let line = lines.request().await;
    assert_eq!(
        (&line["end"], &line["sent_bytes"]),
        (&"complete".into(), &5.into())
    );
}

#[tokio::test]
async fn a_broken_body_says_why() {
    let (lines, _guard) = Lines::capture();
    let site = Site::start();
    let digest = digest_of(b"broken");
    let sender = site.fake.live_blob(&digest, Some(5));
    let error = BrokenBody {
        reason: "corrupt",
        message: "the bytes do not match".to_owned(),
    };
    sender.send(Err(error)).await.unwrap();
    site.get(&format!("/v2/a/blobs/{digest}")).await;
    let line = lines.request().await;
    assert_eq!(line["end"], "broken");
    assert_eq!(line["reason"], "corrupt");
    assert_eq!(line["error"], "the bytes do not match");
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_is_a_line_too() {
    let (lines, _guard) = Lines::capture();
    let site = Site::start();
    *site.fake.hangs.lock() = true;
    let mut wire = site.connect().await;
    wire.request("GET", "/v2/a/manifests/v1", &[]).await;
    while site.fake.call.lock().is_none() {
        tokio::task::yield_now().await;
    }
    drop(wire);
    let line = lines.request().await;
    assert_eq!(
        (&line["end"], &line["status"]),
        (&"client_left".into(), &499.into())
    );
}
