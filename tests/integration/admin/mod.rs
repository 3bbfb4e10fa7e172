//! Administration by command: against a running server and on a data directory at rest, with the same answers.

mod answers;
mod api;
mod changes;
mod collect;
mod damage;
mod migration;
mod refusals;
mod schema;
mod unreadable;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::fake::{Content, Fake};
use crate::support::{Image, KIB, Layby, Setup, UPSTREAM, eventually, soon};

/// Two images that share a layer, pulled through a Layby.
struct Scene {
    fake: Fake,
    layby: Layby,
    setup: Setup,
    app: Image,
    web: Image,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

const APP: &str = "org/app";
const WEB: &str = "org/web";

impl Scene {
    async fn new() -> Self {
        Self::with(|setup| setup).await
    }

    async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let fake = Fake::start().await;
        // The layer that both have comes first, whatever else is in them.
        let app = Image::of_layers("app", vec![common(), Content::random(71, 40 * KIB)]);
        let web = Image::of_layers("web", vec![common(), Content::random(72, 3 * KIB)]);
        app.push(&fake, APP, "latest");
        web.push(&fake, WEB, "v1");
        let setup = change(Setup::over(&fake).of(UPSTREAM, r#"tag_ttl = "1h""#));
        let layby = setup.clone().start().await;
        let scene = Self {
            fake,
            layby,
            setup,
            app,
            web,
        };
        scene.pull(APP, "latest", &scene.app).await;
        scene.pull(WEB, "v1", &scene.web).await;
        scene
    }

    /// Pulls an image whole; waits until it is on disk.
    async fn pull(&self, repository: &str, tag: &str, image: &Image) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let manifest = self.layby.get(&path).await.expect(200);
        assert_eq!(manifest.body, image.manifest.all());
        for blob in image.blobs() {
            self.layby.blob(repository, blob).await.expect(blob);
        }
        self.layby.has_committed(repository, image.blobs()).await;
        let refs = self
            .layby
            .data()
            .join("refs")
            .join(UPSTREAM)
            .join(repository);
        eventually("the tag's record", || async {
            let record = refs.join("_tags").join(format!("{tag}.json"));
            record.try_exists().unwrap_or(false).then_some(())
        })
        .await;
    }

    /// A configuration by which commands find this data directory, and its server where one runs.
    fn config(&self) -> PathBuf {
        let data = self.layby.data();
        let path = data.with_file_name("layby.toml");
        let setup = match self.layby.running_admin() {
            Some(address) => self
                .setup
                .clone()
                .set("admin", &format!("listen = \"{address}\"")),
            None => self.setup.clone(),
        };
        std::fs::write(&path, setup.toml(&data)).expect("the configuration");
        path
    }

    /// Runs a command on this data directory, or against its server.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let config = self.config();
        let config = config.to_str().expect("a path of characters");
        let (command, rest) = arguments.split_first().expect("a command");
        let all: Vec<&str> = [command, "--config", config]
            .into_iter()
            .chain(rest.iter().copied())
            .collect();
        let ran = run(&all).await;
        // What differs from one run to the next.
        let data = self.layby.data().display().to_string();
        let clean = |text: String| without_times(&text.replace(&data, "<data>"));
        Ran {
            status: ran.status,
            out: clean(ran.out),
            err: clean(ran.err),
        }
    }

    /// The JSON that a command prints, times left out.
    async fn json(&self, arguments: &[&str]) -> Value {
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let ran = self.run(&with_json).await;
        let mut value: Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error} in {ran:?}"));
        forget_last_use(&mut value);
        value
    }
}

/// Everything is done once through a running server and once on its directory.
const EACH: [bool; 2] = [true, false];

async fn scene(live: bool) -> Scene {
    let mut scene = Scene::new().await;
    if !live {
        scene.layby.stop().await;
    }
    scene
}

impl Scene {
    /// The file of a stored blob.
    fn file(&self, content: &Content) -> PathBuf {
        let encoded = content.digest().encoded();
        let blobs = self.layby.data().join("blobs/sha256");
        blobs.join(&encoded[..2]).join(encoded)
    }

    /// Has the server run, whether it did or not.
    async fn serving(mut self) -> Self {
        self.layby.restart().await;
        self
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }
}

/// The layer of both images.
fn common() -> Content {
    Content::random(70, 100 * KIB)
}

/// Runs the program.
pub(crate) async fn run(arguments: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_layby"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in [
        "LAYBY_CONFIG",
        "LAYBY_DATA_DIR",
        "LAYBY_LISTEN",
        "LAYBY_OFFLINE",
        "LAYBY_LOG",
    ] {
        command.env_remove(name);
    }
    let ended: Output = soon("the command", command.output())
        .await
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        status: ended.status.code().unwrap_or(-1),
        out: text(ended.stdout),
        err: text(ended.stderr),
    }
}

/// Last uses are kept on disk to the minute, so they may differ by that between a life and the next.
fn forget_last_use(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(used) = fields.get_mut("last_used") {
                assert!(used.is_string(), "{used}");
                *used = Value::Null;
            }
            fields.values_mut().for_each(forget_last_use);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_last_use),
        _ => {}
    }
}

/// Replaces what is written like `2026-11-21T08:14Z`.
fn without_times(text: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00Z";
    let is_time = |part: &[u8]| {
        part.iter().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
    };
    let mut bytes = text.as_bytes().to_vec();
    for start in 0..bytes.len().saturating_sub(SHAPE.len() - 1) {
        if is_time(&bytes[start..start + SHAPE.len()]) {
            bytes[start..start + SHAPE.len()].copy_from_slice(SHAPE);
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// Compares text with the file of this name; with `LAYBY_SNAPSHOTS=write`, writes it instead.
#[track_caller]
fn snapshot(name: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/admin/snapshots");
    let path = folder.join(format!("{name}.txt"));
    if std::env::var_os("LAYBY_SNAPSHOTS").is_some_and(|value| value == "write") {
        std::fs::write(&path, text).expect("the snapshot");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        expected,
        "differs from {}; LAYBY_SNAPSHOTS=write renews it",
        path.display()
    );
}
