//! Taking a data directory into use.

use super::*;

#[tokio::test]
async fn a_start_removes_what_the_last_life_left_unfinished_and_nothing_else() {
    let fixture = Fixture::new().await;
    let partial = fixture.store.layout.partial_dir();
    let [bare, log, both] = [b"a", b"b", b"c"].map(|name| stage_key(name));
    for name in [
        "fedcba9876543210".to_owned(),
        bare.to_string(),
        format!("{log}.log"),
        both.to_string(),
        format!("{both}.log"),
    ] {
        fs::write(partial.join(name), "what a log never says").unwrap();
    }
    fs::write(partial.join("notes.txt"), "foreign").unwrap();
    fs::create_dir(partial.join("0123456789abcdef")).unwrap();
    let fixture = fixture.restart().await;
    assert_eq!(fixture.partial_files(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_directory_in_use_is_waited_for_and_then_refused() {
    let mut fixture = Fixture::new().await;
    let before = tokio::time::Instant::now();
    let error = error_of_open(fixture.dir.path()).await;
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("after 30s"), "{error}");
    assert!(before.elapsed() >= Duration::from_secs(30));
    // A rolling update: the old one stops while the new one waits.
    let (clock, metrics, tasks) = (Clock::system(), Arc::default(), Tasks::new());
    let dir = fixture.dir.path().to_owned();
    let next = open_in(&dir, None, &clock, &metrics, &tasks);
    let old_stops = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        fixture.stop().await;
    };
    let (next, ()) = futures_util::future::join(next, old_stops).await;
    next.unwrap();
}

#[tokio::test]
async fn a_directory_of_a_later_version_is_refused_and_left_as_it_is() {
    let mut fixture = Fixture::new().await;
    fixture.stop().await;
    let partial = fixture.store.layout.partial_dir().join("0123456789abcdef");
    fs::write(&partial, "theirs").unwrap();
    let identity = fixture.store.layout.identity();
    fs::write(&identity, r#"{"format": 2, "anything": []}"#).unwrap();
    let error = error_of_open(fixture.dir.path()).await;
    assert!(matches!(error, OpenError::NewerFormat { found: 2, .. }));
    assert!(error.to_string().contains(identity.to_str().unwrap()));
    assert!(partial.is_file());
}

#[tokio::test]
async fn a_damaged_identity_is_refused_and_the_message_says_what_to_do() {
    let mut fixture = Fixture::new().await;
    fixture.stop().await;
    let identity = fixture.store.layout.identity();
    for damage in [
        "",
        "{",
        "[]",
        r#"{"format": 1}"#,
        r#"{"format": 1, "instance": ""}"#,
        r#"{"format": 1, "instance": "a\r\nb"}"#,
    ] {
        fs::write(&identity, damage).unwrap();
        let error = error_of_open(fixture.dir.path()).await;
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("var"), "a file").unwrap();
    let error = error_of_open(dir.path()).await.to_string();
    assert!(error.contains("var/data"), "{error}");
}
