//! What is shown while it goes on, and where the images may be named.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::*;
use crate::fake::{Gate, Rule};
use crate::support::{beside, done, eventually, soon};

/// A terminal: the end that a program writes to, and the one where somebody looks.
fn terminal() -> (File, File) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&screen).expect("it is ours");
    unlockpt(&screen).expect("it can be used");
    let path = ptsname(&screen, Vec::new()).expect("its name");
    let path = path.into_string().expect("a path of characters");
    let device = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("its device");
    let size = Winsize {
        ws_row: 40,
        ws_col: 140,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&device, size).expect("its size");
    (device, File::from(screen))
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_are_shown_on_a_terminal_while_images_come() {
    let scene = Scene::new().await;
    let image = image(1);
    image.push(&scene.fake, APP, "v1");
    let gate = Gate::closed();
    let held = Rule::digest(image.layers[0].digest()).wait_at(15 * KIB, &gate);
    scene.fake.script(held);
    let (device, mut screen) = terminal();
    let mut command = Command::new(env!("CARGO_BIN_EXE_layby"));
    let config = scene.config();
    command
        .args(["warm", "org/app:v1", "--config"])
        .arg(&config)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(device))
        .kill_on_drop(true);
    let child = command.spawn().expect("it runs");
    // The device is the program's alone from here on.
    drop(command);
    let shown = Arc::<Mutex<String>>::default();
    let seen = Arc::clone(&shown);
    let looking = beside(async move {
        let look = move || {
            let mut buffer = [0; 4096];
            // It ends with an error when the last who could write has gone.
            while let Ok(count) = screen.read(&mut buffer) {
                seen.lock()
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        };
        tokio::task::spawn_blocking(look).await.expect("it is seen");
    });
    eventually("a bar", || async {
        let shown = shown.lock();
        let has = |text: &str| shown.contains(text);
        let bars = has("org/app:v1") && has("0 of 1 images") && has("KiB/") && has("[");
        bars.then_some(())
    })
    .await;
    gate.open();
    let ended = soon("its end", child.wait_with_output())
        .await
        .expect("it ends");
    done(looking).await;
    assert!(ended.status.success());
    assert!(
        shown.lock().contains("org/app:v1: fetched 3"),
        "{}",
        shown.lock()
    );
    let out = String::from_utf8(ended.stdout).expect("text");
    assert!(out.starts_with("1 image: 1 fetched, "), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_gets_a_line_for_each_image_and_no_bar() {
    let scene = Scene::new().await;
    image(1).push(&scene.fake, APP, "v1");
    let ran = scene.run(&["org/app:v1"]).await.expect(0);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:#?}");
    assert_eq!(lines[0], "org/app:v1: begun");
    assert!(lines[1].starts_with("org/app:v1: fetched 3"), "{ran:#?}");
    assert!(!ran.err.contains('\x1b'), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_named_by_files_and_by_stdin() {
    let scene = Scene::new().await;
    for (seed, tag) in [(1, "compose"), (2, "pods"), (3, "stage"), (4, "listed")] {
        image(seed).push(&scene.fake, APP, tag);
    }
    let folder = scene.config().with_file_name("work");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("characters").to_owned()
    };
    let compose = file(
        "compose.yaml",
        "services:\n  a:\n    image: org/app:${APP_TAG_OF_TEST}\n  b:\n    build: .\n",
    );
    file(".env", "APP_TAG_OF_TEST=compose\n");
    let pods = file(
        "all.yml",
        "kind: Pod\nspec:\n  containers:\n  - image: org/app:pods\n",
    );
    let build = file("Dockerfile", "ARG TAG\nFROM org/app:$TAG AS a\nFROM a\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_layby"));
    command
        .args(["warm", "--config"])
        .arg(scene.config())
        .args([
            "-f",
            &compose,
            "-f",
            &pods,
            "-f",
            &build,
            "--build-arg",
            "TAG=stage",
            "-f",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"# more\norg/app:listed\norg/app:pods\n")
        .await
        .expect("it reads");
    drop(stdin);
    let ended = soon("its end", child.wait_with_output())
        .await
        .expect("it ends");
    let (out, err) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(out.starts_with("4 images: 4 fetched, "), "{out}{err}");
    assert!(err.contains("b is built from ./Dockerfile"), "{err}");
    let wrong = file("images.txt", "org/app:v1\nwhat is this\n");
    let ran = scene.run(&["-f", &wrong]).await.expect(2);
    assert!(ran.err.contains("images.txt: line 2: "), "{ran:#?}");
    let ran = scene
        .run(&["-f", &file("values.yaml", "a: 1\n")])
        .await
        .expect(2);
    assert!(ran.err.contains("no image is named in it"), "{ran:#?}");
    scene.run(&[]).await.expect(2);
}
