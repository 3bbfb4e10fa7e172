use std::os::unix::fs::PermissionsExt;

use super::*;

/// Every command, with what it needs.
const COMMANDS: &[&[&str]] = &[
    &["ls"],
    &["show", "org/app"],
    &["stats"],
    &["rm", "org/app"],
    &["pin"],
    &["pin", "org/app"],
    &["unpin", "org/app"],
    &["refresh", "org/app"],
    &["verify"],
];

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_say_what_is_right() {
    let mut scene = Scene::new().await;
    for live in [true, false] {
        if !live {
            scene.layby.stop().await;
        }
        for (arguments, said) in [
            (&["show", "a b"][..], "not the name of an image"),
            (&["show", "org/app@sha256:00"], "not the name of an image"),
            (&["rm", "al*"], "docker.io/library/alpine:*"),
            (&["ls", "[x"], "pattern"),
            (&["pin", "**@x"], "pattern"),
            (&["refresh", "UPPER"], "not the name of an image"),
            (&["rm"], "required"),
            (&["show"], "required"),
            (&["ls", "--colour"], "--colour"),
            (&["verify", "a", "b"], "unexpected"),
            (&["unpin", "**@x"], "pattern"),
            (&["unpin"], "required"),
            (&["refresh"], "required"),
            (&["stats", "org/app"], "unexpected"),
        ] {
            let ran = scene.run(arguments).await.expect(2);
            assert!(ran.err.contains(said), "{arguments:?}: {}", ran.err);
            assert_eq!(ran.out, "");
        }
        for arguments in [
            ["show", "org/none"],
            ["rm", "org/none"],
            ["refresh", "org/none"],
            ["verify", "org/none"],
        ] {
            let ran = scene.run(&arguments).await.expect(1);
            assert!(
                ran.err
                    .contains("registry.test/org/none:latest is not in the cache"),
                "{ran:?}"
            );
            assert!(ran.err.contains("layby ls"), "{ran:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_server_is_named_with_what_to_look_at() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address").port()
    };
    let scratch = tempfile::tempdir().expect("scratch");
    let token = scratch.path().join("token");
    std::fs::write(&token, "0123456789abcdef").expect("a token");
    let (url, token) = (
        format!("http://127.0.0.1:{port}"),
        token.display().to_string(),
    );
    for command in COMMANDS {
        let ran = run(&[*command, &["--admin", &url, "--token-file", &token][..]].concat())
            .await
            .expect(3);
        assert!(
            ran.err.contains(&url) && ran.err.contains("is running"),
            "{ran:?}"
        );
    }
    for wrong in [
        "https://127.0.0.1:1",
        "http://127.0.0.1:1/api",
        "127.0.0.1:5050",
    ] {
        let ran = run(&["ls", "--admin", wrong, "--token-file", &token])
            .await
            .expect(2);
        assert!(ran.err.contains("http://127.0.0.1:5050"), "{ran:?}");
    }
    let missing = scratch.path().join("none").display().to_string();
    let ran = run(&["ls", "--admin", &url, "--token-file", &missing])
        .await
        .expect(3);
    assert!(ran.err.contains(&missing), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_and_the_right_one_is_for_its_owner_alone() {
    let mut scene = Scene::new().await;
    let wrong = scene.layby.data().with_file_name("wrong");
    std::fs::write(&wrong, "0123456789abcdef0123456789abcdef").expect("a token");
    let wrong = ["--token-file", wrong.to_str().expect("a path")];
    for command in COMMANDS {
        let ran = scene.run(&[*command, &wrong[..]].concat()).await.expect(3);
        assert!(
            ran.err.contains("refuses the token") && ran.err.contains("--token-file"),
            "{ran:?}"
        );
    }
    let path = scene.layby.data().join("admin.token");
    let mode = std::fs::metadata(&path)
        .expect("a token")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).expect("a token");
    assert_eq!(token.len(), 64);
    scene.layby.restart().await;
    assert_eq!(std::fs::read_to_string(&path).expect("a token"), token);
    let by_url = format!("http://{}", scene.layby.admin());
    let path = path.display().to_string();
    run(&["ls", "--admin", &by_url, "--token-file", &path])
        .await
        .expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_directory_whose_server_does_not_answer_is_named() {
    let scene = Scene::new().await;
    let data = scene.layby.data().display().to_string();
    let file = scene.layby.data().with_file_name("other.toml");
    let path = file.display().to_string();
    for (admin, said) in [
        (
            "127.0.0.1:1",
            "its admin listener does not answer at http://127.0.0.1:1",
        ),
        ("none", "[admin] listen is \"none\""),
    ] {
        let toml = format!("data_dir = {data:?}\n[admin]\nlisten = {admin:?}\n");
        std::fs::write(&file, toml).expect("a configuration");
        for command in COMMANDS {
            let ran = run(&[*command, &["--config", &path][..]].concat())
                .await
                .expect(3);
            assert!(
                ran.err
                    .contains(&format!("{data} is locked by another process")),
                "{ran:?}"
            );
            assert!(
                ran.err.contains(said) && ran.err.contains("--admin"),
                "{ran:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_none_is_left_as_it_is() {
    let scratch = tempfile::tempdir().expect("scratch");
    let data = scratch.path().join("nothing").display().to_string();
    for command in COMMANDS {
        let ran = run(&[*command, &["--data-dir", &data][..]].concat())
            .await
            .expect(3);
        assert!(
            ran.err.contains(&data) && ran.err.contains("--data-dir"),
            "{ran:?}"
        );
    }
    assert!(!scratch.path().join("nothing").try_exists().expect("looked"));
    let file = scratch.path().join("wrong.toml");
    std::fs::write(&file, "lisen = 1").expect("a configuration");
    let path = file.display().to_string();
    let ran = run(&["stats", "--config", &path]).await.expect(2);
    assert!(ran.err.contains("did you mean listen"), "{ran:?}");
}
