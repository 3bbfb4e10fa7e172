use std::process::Stdio;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::*;
use crate::support::{MIB, Program, soon, verify_committed};

/// An image that takes a while to be written.
fn large() -> Image {
    Image::new(77, &[3 * MIB, 10, 5 * MIB, 200 * KIB, 2 * MIB])
}

async fn exported(fake: &Fake, image: &Image) -> (Side, PathBuf) {
    image.push(fake, APP, "latest");
    let near = Side::new(Setup::over(fake)).await;
    image.pull(near.layby.address(), APP, "latest").await;
    near.layby.has_committed(APP, image.blobs()).await;
    has_tag(&near.layby, APP, "latest").await;
    let export = near.file("images.tar");
    near.run(&["export", "-o", text(&export), "org/app"])
        .await
        .expect(0);
    (near, export)
}

/// A command that reads its standard input from this test.
fn fed(config: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_layby"))
        .arg(arguments[0])
        .arg("--config")
        .arg(config)
        .args(&arguments[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts")
}

/// Where an archive is cut short by a kill.
const MOMENTS: [usize; 5] = [0, 1000, 1_000_000, 4_000_000, 9_000_000];

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_killed_goes_on_where_it_stood() {
    let fake = Fake::start().await;
    let image = large();
    let (_near, export) = exported(&fake, &image).await;
    let bytes = read(&export);
    let far = Side::offline(&fake).await.at_rest(true).await;
    for moment in MOMENTS {
        let mut import = fed(&far.config(), &["import", "-"]);
        let mut input = import.stdin.take().expect("its input");
        soon("input", input.write_all(&bytes[..moment]))
            .await
            .expect("it is read");
        soon("death", import.kill())
            .await
            .expect("it can be killed");
        drop(input);
        verify_committed(&far.layby.data());
        let listed = far.run(&["ls", "--json"]).await.expect(0);
        assert!(listed.out.contains(r#""images":[]"#), "{}", listed.out);
    }
    let told = far.run(&["import", text(&export)]).await.expect(0);
    assert!(!told.out.contains("; 0 blobs here before"), "{}", told.out);
    let far = far.serving().await;
    far.pull(APP, "latest", &image).await;
    assert_eq!(far.layby.committed().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_in_an_import_takes_the_rest_in_the_next() {
    let fake = Fake::start().await;
    let image = large();
    let (_near, export) = exported(&fake, &image).await;
    let bytes = read(&export);
    let scratch = Arc::new(tempfile::tempdir().expect("a directory"));
    let setup = Setup::over(&fake).set("", "offline = true");
    for (moment, kills_server) in [(1_000_000, true), (6_000_000, true), (6_000_000, false)] {
        let server = Program::start(&setup, scratch.path()).await;
        let config = scratch.path().join("command.toml");
        let of_server = setup
            .clone()
            .set("admin", &format!("listen = \"{}\"", server.admin()));
        std::fs::write(&config, of_server.toml(&scratch.path().join("data"))).expect("a file");
        let mut import = fed(&config, &["import", "-"]);
        let mut input = import.stdin.take().expect("its input");
        soon("input", input.write_all(&bytes[..moment]))
            .await
            .expect("it is read");
        if kills_server {
            server.kill().await;
        } else {
            soon("death", import.kill())
                .await
                .expect("it can be killed");
            // The server goes on, and takes the next at once.
            let again = eventually("the next import", || async {
                let arguments = ["import", "--config", text(&config), text(&export)];
                Some(run(&arguments).await).filter(|ran| ran.status == 0)
            })
            .await;
            assert!(
                again.out.contains("imported registry.test/org/app:latest"),
                "{again:?}"
            );
            image.pull(server.address(), APP, "latest").await;
            server.stop().await;
        }
    }
    assert_eq!(verify_committed(&scratch.path().join("data")), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_in_an_import_keeps_what_came() {
    let fake = Fake::start().await;
    let image = large();
    let (_near, export) = exported(&fake, &image).await;
    let bytes = read(&export);
    let mut far = Side::offline(&fake).await;
    let mut import = fed(&far.config(), &["import", "-"]);
    let mut input = import.stdin.take().expect("its input");
    soon("input", input.write_all(&bytes[..6_000_000]))
        .await
        .expect("it is read");
    let came = eventually("a blob", || async {
        Some(far.layby.committed().len()).filter(|blobs| *blobs > 0)
    })
    .await;
    far.layby.stop().await;
    assert!(verify_committed(&far.layby.data()) >= came);
    drop(input);
    let status = soon("the end", import.wait()).await.expect("a status");
    assert!(!status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_was_killed_leaves_nothing_that_could_be_taken_for_one() {
    let fake = Fake::start().await;
    let image = large();
    let (near, export) = exported(&fake, &image).await;
    let near = near.at_rest(true).await;
    for name in ["killed.tar", "killed.tar.zst"] {
        let target = near.file(name);
        let partial = near.file(&format!("{name}.partial"));
        let mut command = fed(&near.config(), &["export", "-o", text(&target), "org/app"]);
        eventually("a beginning", || async {
            let is_there =
                partial.try_exists().unwrap_or(false) || target.try_exists().unwrap_or(false);
            is_there.then_some(())
        })
        .await;
        soon("death", command.kill())
            .await
            .expect("it can be killed");
        let is_whole = target.try_exists().expect("a look");
        let whole = is_whole.then(|| read(&target));
        near.run(&["export", "-o", text(&target), "org/app"])
            .await
            .expect(0);
        assert!(whole.is_none_or(|whole| whole == read(&target)));
        assert!(!partial.try_exists().expect("a look"));
        if name == "killed.tar" {
            assert!(read(&target) == read(&export));
        }
    }
    let dir = near.file("killed/");
    let mut command = fed(&near.config(), &["export", "-o", text(&dir), "org/app"]);
    let blobs = dir.join("blobs/sha256");
    eventually("a beginning", || async {
        blobs.try_exists().unwrap_or(false).then_some(())
    })
    .await;
    soon("death", command.kill())
        .await
        .expect("it can be killed");
    // Somebody wrote rubbish over a blob meanwhile.
    let damaged = blobs.join(image.config.digest().encoded());
    std::fs::write(&damaged, "rubbish").expect("a file");
    near.run(&["export", "-o", text(&dir), "org/app"])
        .await
        .expect(0);
    let far = Side::offline(&fake).await;
    far.run(&["import", text(&dir)]).await.expect(0);
    far.pull(APP, "latest", &image).await;
}
