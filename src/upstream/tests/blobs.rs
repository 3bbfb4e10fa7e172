//! Blobs: lengths, ranges, stalls.

use super::fakes::{Answer, Fake};
use super::*;

const LEN: u64 = CONTENT.len() as u64;

async fn registry(answer: Answer) -> (Fake, Arc<Upstream>) {
    let registry = Fake::plain(move |_| answer.clone()).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    (registry, upstream)
}

fn partial(content_range: &str, body: &[u8]) -> Answer {
    Answer::new(206, body).with("content-range", content_range)
}

#[tokio::test]
async fn a_whole_blob_starts_at_0_and_tells_its_length() {
    let (registry, upstream) = registry(Answer::ok(CONTENT)).await;
    let answer = upstream
        .get_blob(&repository(), &digest(), None, &call())
        .await
        .unwrap();
    assert_eq!((answer.start, answer.total), (0, Some(LEN)));
    assert_eq!(registry.seen()[0].header("range"), None);
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn a_part_is_asked_for_and_answered_as_a_range() {
    let range = format!("bytes 5-8/{LEN}");
    let (registry, upstream) = registry(partial(&range, &CONTENT[5..9])).await;
    let mut answer = upstream
        .get_blob(&repository(), &digest(), Some(5..9), &call())
        .await
        .unwrap();
    assert_eq!((answer.start, answer.total), (5, Some(LEN)));
    assert_eq!(answer.body.next().await.unwrap().unwrap(), &CONTENT[5..9]);
    assert_eq!(answer.body.next().await, None);
    assert_eq!(registry.seen()[0].header("range"), Some("bytes=5-8"));
}

#[tokio::test]
async fn an_open_range_is_asked_for_without_an_end() {
    let range = format!("bytes 5-{}/{LEN}", LEN - 1);
    let (registry, upstream) = registry(partial(&range, &CONTENT[5..])).await;
    let range = Some(5..u64::MAX);
    assert!(
        upstream
            .get_blob(&repository(), &digest(), range, &call())
            .await
            .is_ok()
    );
    assert_eq!(registry.seen()[0].header("range"), Some("bytes=5-"));
}

#[tokio::test]
async fn an_ignored_range_gives_the_whole_blob() {
    let (_registry, upstream) = registry(Answer::ok(CONTENT)).await;
    let answer = upstream
        .get_blob(&repository(), &digest(), Some(5..9), &call())
        .await
        .unwrap();
    assert_eq!((answer.start, answer.total), (0, Some(LEN)));
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_is_refused() {
    let answers = [
        partial("bytes 6-9/19", &CONTENT[6..10]),
        partial("bytes 5-9/19", &CONTENT[5..10]),
        partial("bytes 5-8/*", &CONTENT[5..9]),
        partial("bytes 5-8/19", &CONTENT[5..8]),
        partial("bytes 8-5/19", &CONTENT[5..9]),
        partial("nonsense", &CONTENT[5..9]),
        Answer::new(206, &CONTENT[5..9]),
        Answer::new(206, "--x").with("content-type", "multipart/byteranges; boundary=x"),
        Answer::new(204, "").with("no-length", ""),
        Answer::new(416, "").with("content-range", "bytes */3"),
        Answer::ok("<html>").with("content-type", "text/html"),
        Answer::ok(CONTENT).with("content-encoding", "gzip"),
    ];
    for answer in answers {
        let shown = format!("{answer:?}");
        let (_registry, upstream) = registry(answer).await;
        let result = upstream
            .get_blob(&repository(), &digest(), Some(5..9), &call())
            .await;
        assert!(
            matches!(result, Err(Error::Invalid { .. })),
            "{shown}: {result:?}"
        );
    }
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_refused() {
    let (_registry, upstream) = registry(partial("bytes 0-18/19", CONTENT)).await;
    let result = upstream
        .get_blob(&repository(), &digest(), None, &call())
        .await;
    assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
}

#[tokio::test]
async fn an_empty_or_backward_range_is_never_sent() {
    let (registry, upstream) = registry(Answer::ok(CONTENT)).await;
    #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
    for range in [5..5, 9..5] {
        let result = upstream
            .get_blob(&repository(), &digest(), Some(range), &call())
            .await;
        assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    }
    assert!(registry.seen().is_empty());
}

#[tokio::test]
async fn a_body_that_breaks_off_is_unavailable_after_what_came() {
    let half = Answer::ok(&CONTENT[..9])
        .with("content-length", LEN.to_string())
        .then_break();
    let (_registry, upstream) = registry(half).await;
    let mut answer = upstream
        .get_blob(&repository(), &digest(), None, &call())
        .await
        .unwrap();
    assert_eq!(answer.total, Some(LEN));
    assert_eq!(answer.body.next().await.unwrap().unwrap(), &CONTENT[..9]);
    let end = answer.body.next().await;
    assert!(
        matches!(end, Some(Err(Error::Unavailable { .. }))),
        "{end:?}"
    );
}

#[tokio::test]
async fn a_part_without_length_must_be_as_long_as_its_range() {
    for (body, reason) in [
        (&CONTENT[5..7], "unavailable"),
        (&CONTENT[5..12], "invalid"),
    ] {
        let (_registry, upstream) =
            registry(partial("bytes 5-8/19", body).with("no-length", "")).await;
        let mut answer = upstream
            .get_blob(&repository(), &digest(), Some(5..9), &call())
            .await
            .unwrap();
        let error = loop {
            match answer.body.next().await.expect("the lie is noticed") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), reason);
    }
}

#[tokio::test]
async fn a_blob_without_length_is_taken_as_it_comes() {
    let (_registry, upstream) = registry(Answer::ok(CONTENT).with("no-length", "")).await;
    let answer = upstream
        .get_blob(&repository(), &digest(), None, &call())
        .await
        .unwrap();
    assert_eq!(answer.total, None);
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_unavailable_after_stall_timeout() {
    let stalling = Answer::ok(&CONTENT[..9])
        .with("content-length", LEN.to_string())
        .then_hang();
    let (_registry, upstream) = registry(stalling).await;
    let mut answer = upstream
        .get_blob(&repository(), &digest(), None, &call())
        .await
        .unwrap();
    answer.body.next().await.unwrap().unwrap();
    let began = Instant::now();
    let stalled = loop {
        // Waits in steps, as a reader with other things to do: they add up.
        let step = tokio::time::timeout(Duration::from_secs(7), answer.body.next());
        if let Ok(next) = step.await {
            break next;
        }
    };
    assert!(
        matches!(stalled, Some(Err(Error::Unavailable { .. }))),
        "{stalled:?}"
    );
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn received_bytes_are_counted() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let world = World::new(&[&registry.url()]);
    fetch(&world.upstream()).await.unwrap();
    let line = format!(r#"layby_upstream_bytes_total{{upstream="registry.example"}} {LEN}"#);
    assert!(world.metrics.render().contains(&line));
}

#[tokio::test]
async fn a_head_tells_the_length() {
    let (registry, upstream) = registry(Answer::ok(CONTENT)).await;
    let head = upstream
        .head_blob(&repository(), &digest(), &call())
        .await
        .unwrap();
    assert_eq!(head.len, LEN);
    assert_eq!(registry.seen()[0].method, "HEAD");
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test]
async fn where_head_is_refused_or_mute_the_first_byte_is_asked_for() {
    let heads = [
        Answer::new(405, ""),
        Answer::new(403, ""),
        Answer::new(400, ""),
        Answer::ok("")
            .with("no-length", "")
            .with("transfer-encoding", "chunked"),
        Answer::ok("").with("content-length", "0"),
    ];
    for refused in heads {
        let registry = Fake::plain(move |seen| {
            if seen.method == "HEAD" {
                refused.clone()
            } else {
                partial(&format!("bytes 0-0/{LEN}"), &CONTENT[..1])
            }
        })
        .await;
        let upstream = World::new(&[&registry.url()]).upstream();
        let head = upstream
            .head_blob(&repository(), &digest(), &call())
            .await
            .unwrap();
        assert_eq!(head.len, LEN);
        assert_eq!(registry.seen()[1].header("range"), Some("bytes=0-0"));
    }
}

#[tokio::test]
async fn an_empty_blob_has_no_first_byte_and_length_0() {
    let registry = Fake::plain(|seen| {
        if seen.method == "HEAD" {
            Answer::new(405, "")
        } else {
            Answer::new(416, "").with("content-range", "bytes */0")
        }
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    assert_eq!(
        upstream
            .head_blob(&repository(), &digest(), &call())
            .await
            .unwrap()
            .len,
        0
    );
}

#[tokio::test]
async fn a_head_without_bytes_is_believed_of_the_empty_blob() {
    let (registry, upstream) = registry(Answer::ok("")).await;
    let empty = Digest::sha256(b"");
    let head = upstream.head_blob(&repository(), &empty, &call()).await;
    assert_eq!(head.unwrap().len, 0);
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test]
async fn an_absent_blob_costs_no_second_request() {
    let (registry, upstream) = registry(Answer::new(404, "")).await;
    let result = upstream.head_blob(&repository(), &digest(), &call()).await;
    assert!(matches!(result, Err(Error::NotFound { .. })), "{result:?}");
    assert_eq!(registry.seen().len(), 1);
}
