//! What the program writes to its log: every failure once, and never a secret.

use std::time::Duration;

use layby::runtime::Clock;

use crate::fake::{Content, Fake, Rule, TokenOffice};
use crate::support::{
    End, Image, KIB, Program, Request, Setup, UPSTREAM, blob_path, download, eventually, get,
};

const REPOSITORY: &str = "org/app";

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_verification_is_logged_with_its_digest_and_upstream() {
    let fake = Fake::start().await;
    let content = Content::random(90, 300 * KIB);
    let digest = fake.put_blob(REPOSITORY, &content);
    fake.script(Rule::digest(&digest).flip(9));
    let scratch = tempfile::tempdir().unwrap();
    let program = Program::start(&Setup::over(&fake), scratch.path()).await;
    let answer = download(program.address(), blob_path(REPOSITORY, &content)).await;
    // So small a blob may be known to be wrong before its status line is out.
    assert!(answer.end == End::Broken || answer.head.status == 502);
    let line = eventually("the line", || async {
        let mut lines = program.log().into_iter();
        lines.find(|line| line.contains(r#""level":"ERROR""#))
    })
    .await;
    for part in [digest.as_str(), UPSTREAM, "do not match"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_one_line_that_says_what_became_of_it() {
    let fake = Fake::start().await;
    let image = Image::new(91, &[3 * KIB]);
    image.push(&fake, REPOSITORY, "latest");
    let scratch = tempfile::tempdir().unwrap();
    let program = Program::start(&Setup::over(&fake), scratch.path()).await;
    let path = blob_path(REPOSITORY, &image.layers[0]);
    get(program.address(), &path).await.expect(200);
    let mut asked = 1;
    loop {
        asked += 1;
        let reply = get(program.address(), &path).await.expect(200);
        if reply.header("cache-status") == Some("layby; hit") {
            break;
        }
    }
    let lines = eventually("a line for each", || async {
        let mut lines = program.log();
        lines.retain(|line| line.contains(r#""message":"request""#));
        (lines.len() >= asked).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), asked, "{lines:#?}");
    let lines = [&lines[0], &lines[asked - 1]];
    for (line, outcome) in lines.into_iter().zip(["miss", "hit"]) {
        let fields = [UPSTREAM, REPOSITORY, outcome, "200", "3072", "request_id"];
        for field in fields {
            assert!(line.contains(field), "{field} is not in {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_however_much_is_logged() {
    let (fake, storage) = (Fake::start().await, Fake::start().await);
    fake.redirect_blobs_to(&storage);
    storage.refuse_authorization();
    let image = Image::new(92, &[3 * KIB, 4 * KIB]);
    image.push(&fake, REPOSITORY, "latest");
    let office =
        TokenOffice::with_login(&Clock::system(), Duration::from_secs(60), "robot:hunter2");
    fake.protect_with_tokens(&office, &fake);
    let setup = Setup::over(&fake)
        .of(UPSTREAM, r#"username = "robot""#)
        .of(UPSTREAM, r#"password = "hunter2""#)
        .set("log", r#"filter = "trace""#);
    let scratch = tempfile::tempdir().unwrap();
    let program = Program::start(&setup, scratch.path()).await;
    let ask = |path: &str| {
        Request::get(path)
            .header("Authorization", "Bearer secret-of-the-client")
            .header("Cookie", "secret-of-the-client")
    };
    // One blob comes, one is refused by the storage host.
    storage.script(Rule::digest(image.layers[1].digest()).error(403, "DENIED"));
    for (layer, status) in image.layers.iter().zip([200, 403]) {
        let request = ask(&blob_path(REPOSITORY, layer));
        assert_eq!(request.send_to(program.address()).await.status(), status);
    }
    let manifest = ask(&format!("/v2/{REPOSITORY}/manifests/latest"));
    manifest.send_to(program.address()).await.expect(200);

    let last = image.layers[1].digest().as_str();
    eventually("the last line", || async {
        program
            .log()
            .iter()
            .any(|line| line.contains(last))
            .then_some(())
    })
    .await;
    let secrets = [
        "hunter2",
        "cm9ib3Q6aHVudGVyMg",
        "token-0-",
        "X-Amz-Signature",
        "secret-of-the-client",
    ];
    assert!(program.log().iter().any(|line| line.contains("DEBUG")));
    for line in program.log() {
        for secret in secrets {
            assert!(!line.contains(secret), "{secret} is in {line}");
        }
    }
}
