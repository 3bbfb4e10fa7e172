//! Logins: refused ones, changed ones, `Basic` ones.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_identity_token_is_exchanged_by_post() {
    let bench = Bench::with(Some(testing::password("<token>", "refresh-me")), &[]);
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    let asked = bench.last();
    assert_eq!(asked.line, "POST https://r.example/token");
    assert!(asked.body.contains("refresh_token=refresh-me"));
    assert_eq!(asked.authorization, None);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_the_token_service_refuses_is_ours_and_not_tried_again_at_once() {
    let bench = Bench::jane();
    bench.script.answer(401, &[], "");
    assert!(is_ours(&bench.after(&unauthorized(BEARER), "a/b").await));
    advance(14).await;
    assert!(is_ours(&bench.after(&unauthorized(BEARER), "a/b").await));
    assert_eq!(bench.script.count(), 1);
    advance(2).await;
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_refused_is_not_tried_for_another_repository_and_ever_seldomer() {
    let bench = Bench::jane();
    let challenge = r#"Bearer realm="https://r.example/token""#;
    for (time, rest) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        bench.script.answer(401, &[], "");
        let repository = format!("r{time}");
        assert!(is_ours(
            &bench.after(&unauthorized(challenge), &repository).await
        ));
        advance(rest - 1).await;
        let outcome = bench.after(&unauthorized(challenge), "other").await;
        assert!(is_ours(&outcome));
        assert!(format!("{outcome:?}").contains("not tried for 1 s"));
        assert_eq!(bench.script.count(), time + 1);
        advance(1).await;
    }
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(challenge), "other").await,
        bearer("t1"),
        "a rest is over when it is over"
    );
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_forbidden_everything_rests_too() {
    let bench = Bench::jane();
    let challenge = r#"Bearer realm="https://r.example/token""#;
    for repository in ["a", "b", "c"] {
        bench.script.answer(403, &[], "");
        let outcome = bench.after(&unauthorized(challenge), repository).await;
        assert!(outcome.is_err() && !is_ours(&outcome));
    }
    assert!(is_ours(&bench.after(&unauthorized(challenge), "d").await));
    assert_eq!(bench.script.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn another_password_in_the_file_ends_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "wrong").unwrap();
    let source = CredentialSource::PasswordFile {
        username: "jane".to_owned(),
        path: path.clone(),
    };
    let bench = Bench::with(Some(source), &[]);
    bench.script.answer(401, &[], "");
    assert!(is_ours(&bench.after(&unauthorized(BEARER), "a/b").await));
    assert!(is_ours(&bench.after(&unauthorized(BEARER), "a/b").await));
    std::fs::write(&path, "the right one").unwrap();
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_basic_login_refused_for_several_repositories_rests_for_all_unless_it_worked() {
    for worked in [false, true] {
        let bench = Bench::jane();
        let sent = HeaderValue::from_static("Basic amFuZTpodW50ZXIy");
        assert_eq!(bench.after(&unauthorized(BASIC), "good").await, jane());
        if worked {
            bench.auth.accepted(&"good".parse().unwrap(), Some(&sent));
        }
        for repository in ["a", "b", "c"] {
            let refusal = unauthorized(BASIC).to("Basic amFuZTpodW50ZXIy");
            assert!(is_ours(&bench.after(&refusal, repository).await));
        }
        assert_eq!(bench.at_once("good").await.is_ok(), worked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_worked_rests_after_five_refusals_but_not_where_it_worked() {
    let bench = Bench::jane();
    let challenge = r#"Bearer realm="https://r.example/token""#;
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(challenge), "good").await,
        bearer("t1")
    );
    for repository in ["a", "b", "c", "d", "e"] {
        bench.script.answer(401, &[], "");
        assert!(is_ours(
            &bench.after(&unauthorized(challenge), repository).await
        ));
    }
    assert!(is_ours(
        &bench.after(&unauthorized(challenge), "other").await
    ));
    assert_eq!(bench.script.count(), 6);
    bench.script.give("t2", 300);
    let refusal = unauthorized(challenge).to("Bearer t1");
    assert_eq!(bench.after(&refusal, "good").await, bearer("t2"));
    bench.script.give("t3", 300);
    assert_eq!(
        bench.after(&unauthorized(challenge), "other").await,
        bearer("t3")
    );
}

#[tokio::test(start_paused = true)]
async fn a_basic_login_that_is_revoked_rests_after_it_was_refused_where_it_worked() {
    let bench = Bench::jane();
    let sent = HeaderValue::from_static("Basic amFuZTpodW50ZXIy");
    assert_eq!(bench.after(&unauthorized(BASIC), "r0").await, jane());
    let repositories: Vec<_> = (0..20).map(|n| format!("r{n}")).collect();
    for repository in &repositories {
        bench
            .auth
            .accepted(&repository.parse().unwrap(), Some(&sent));
    }
    let mut shown = 0;
    for repository in &repositories {
        if bench.at_once(repository).await.is_ok() {
            shown += 1;
            let refusal = unauthorized(BASIC).to("Basic amFuZTpodW50ZXIy");
            assert!(is_ours(&bench.after(&refusal, repository).await));
        }
    }
    assert_eq!(shown, 3);
}

#[tokio::test(start_paused = true)]
async fn a_password_changed_on_disk_is_used_when_the_old_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "old").unwrap();
    let source = CredentialSource::PasswordFile {
        username: "jane".to_owned(),
        path: path.clone(),
    };
    let bench = Bench::with(Some(source), &[]);
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    std::fs::write(&path, "renewed").unwrap();
    bench.script.answer(401, &[], "");
    bench.script.give("t2", 300);
    let other = r#"Bearer realm="https://r.example/token""#;
    assert_eq!(bench.after(&unauthorized(other), "c").await, bearer("t2"));
    let asked = bench.script.asked();
    assert_ne!(asked[1].authorization, asked[2].authorization);
}

#[tokio::test(start_paused = true)]
async fn an_anonymous_refusal_at_the_token_service_is_not_ours() {
    let bench = Bench::anonymous();
    for status in [401, 403] {
        bench.script.answer(status, &[], "");
        assert!(!is_ours(&bench.after(&unauthorized(BEARER), "a/b").await));
        advance(6).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_basic_challenge_is_answered_with_the_login_and_then_it_is_sent_at_once() {
    let bench = Bench::jane();
    assert_eq!(bench.after(&unauthorized(BASIC), "a/b").await, jane());
    assert_eq!(bench.at_once("a/b").await, jane());
    assert_eq!(bench.at_once("c").await, jane());
    assert_eq!(bench.script.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_basic_challenge_without_a_login_is_a_denial_that_says_what_to_set() {
    let bench = Bench::anonymous();
    let outcome = bench.after(&unauthorized(BASIC), "a/b").await;
    assert!(!is_ours(&outcome));
    assert!(format!("{outcome:?}").contains("credentials"));
    assert_eq!(bench.at_once("a/b").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_basic_login_that_is_refused_is_ours_and_rests_for_that_repository() {
    let bench = Bench::jane();
    assert_eq!(bench.after(&unauthorized(BASIC), "a/b").await, jane());
    let refusal = unauthorized(BASIC).to("Basic amFuZTpodW50ZXIy");
    assert!(is_ours(&bench.after(&refusal, "a/b").await));
    assert!(is_ours(&bench.at_once("a/b").await));
    assert_eq!(bench.at_once("c").await, jane());
    advance(31).await;
    assert_eq!(bench.at_once("a/b").await, jane());
}

#[tokio::test(start_paused = true)]
async fn an_expired_basic_login_is_read_again_and_denied_if_it_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "old").unwrap();
    let source = CredentialSource::PasswordFile {
        username: "AWS".to_owned(),
        path: path.clone(),
    };
    let bench = Bench::with(Some(source), &[]);
    let old = bench
        .after(&unauthorized(BASIC), "a/b")
        .await
        .unwrap()
        .unwrap();
    let refusal = refused(403, HeaderMap::new(), EXPIRED).to(&old);
    std::fs::write(&path, "next day").unwrap();
    let new = bench.after(&refusal, "a/b").await.unwrap().unwrap();
    assert_ne!(new, old);
    let refusal = refused(403, HeaderMap::new(), EXPIRED).to(&new);
    assert!(is_ours(&bench.after(&refusal, "a/b").await));
}

#[tokio::test(start_paused = true)]
async fn the_last_word_says_whether_our_login_was_refused() {
    let bench = Bench::jane();
    let repository = "a/b".parse().unwrap();
    let last = |refusal: &Refusal| match bench.auth.denied(
        &refusal.answer(),
        &repository,
        refusal.sent.as_ref(),
    ) {
        Error::Denied { ours, message } => (ours, message),
        other => panic!("{other:?}"),
    };
    assert_eq!(bench.after(&unauthorized(BASIC), "a/b").await, jane());
    let (ours, _) = last(&refused(403, HeaderMap::new(), "").to("Basic amFuZTpodW50ZXIy"));
    assert!(!ours);
    assert_eq!(bench.at_once("a/b").await, jane());
    let (ours, _) = last(&unauthorized(BASIC).to("Basic amFuZTpodW50ZXIy"));
    assert!(ours);
    assert!(
        is_ours(&bench.at_once("a/b").await),
        "the login does not rest"
    );
    let body = r#"{"errors":[{"message":"requested access is denied"}]}"#;
    let (ours, message) = last(&refused(401, HeaderMap::new(), body).to("Bearer t0ken"));
    assert!(!ours && message.contains("requested access is denied"));
}

#[tokio::test(start_paused = true)]
async fn a_403_without_words_is_tried_again_only_if_the_login_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "old").unwrap();
    let source = CredentialSource::PasswordFile {
        username: "AWS".to_owned(),
        path: path.clone(),
    };
    let bench = Bench::with(Some(source), &[]);
    let first = bench.after(&unauthorized(BASIC), "a/b").await;
    let refusal = refused(403, HeaderMap::new(), "").to(&first.unwrap().unwrap());
    assert_eq!(bench.after(&refusal, "a/b").await, Ok(None));
    assert!(bench.at_once("a/b").await.unwrap().is_some());
    std::fs::write(&path, "next day").unwrap();
    assert!(bench.after(&refusal, "a/b").await.unwrap().is_some());
}
