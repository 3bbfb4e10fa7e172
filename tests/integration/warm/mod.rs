//! Bringing images into the cache before they are asked for.

mod choice;
mod flaky;
mod progress;
mod rest;
mod scheduled;

use std::path::PathBuf;

use serde_json::Value;

use crate::admin::{Ran, run};
use crate::fake::{Content, Fake};
use crate::support::{Image, KIB, Layby, Setup, UPSTREAM};

const APP: &str = "org/app";

/// A registry, and a Layby over it.
struct Scene {
    fake: Fake,
    layby: Layby,
    setup: Setup,
}

/// What a command told, line by line.
#[derive(Debug)]
struct Told {
    status: i32,
    events: Vec<Value>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|setup| setup).await
    }

    async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let fake = Fake::start().await;
        let setup = change(Setup::over(&fake).of(UPSTREAM, r#"tag_ttl = "1h""#));
        let layby = setup.clone().start().await;
        Self { fake, layby, setup }
    }

    /// A configuration by which commands find the data directory, and its server where one runs.
    fn config(&self) -> PathBuf {
        let data = self.layby.data();
        let path = data.with_file_name("layby.toml");
        let setup = match self.layby.running_admin() {
            Some(address) => {
                let listen = format!("listen = \"{address}\"");
                self.setup.clone().set("admin", &listen)
            }
            None => self.setup.clone(),
        };
        std::fs::write(&path, setup.toml(&data)).expect("the configuration");
        path
    }

    /// Runs `layby warm`.
    async fn run(&self, arguments: &[&str]) -> Ran {
        let config = self.config();
        let config = config.to_str().expect("a path of characters");
        run(&[&["warm", "--config", config], arguments].concat()).await
    }

    /// The same, with its events.
    async fn warm(&self, arguments: &[&str]) -> Told {
        let ran = self.run(&[&["--json"], arguments].concat()).await;
        assert_eq!(ran.err, "", "{ran:#?}");
        let read = |line| serde_json::from_str(line).expect("a line of JSON");
        Told {
            status: ran.status,
            events: ran.out.lines().map(read).collect(),
        }
    }

    /// Fails unless the image can be pulled with the registry gone.
    async fn is_whole(&self, repository: &str, tag: &str, image: &Image) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let manifest = self.layby.get(&path).await.expect(200);
        assert_eq!(manifest.body, image.manifest.all());
        for blob in image.blobs() {
            self.layby.blob(repository, blob).await.expect(blob);
        }
    }
}

impl Told {
    #[track_caller]
    fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// The events of this name.
    fn of(&self, event: &str) -> Vec<&Value> {
        let of = |one: &&Value| one["event"] == event;
        self.events.iter().filter(of).collect()
    }

    /// The sum, which comes last.
    fn report(&self) -> &Value {
        let last = self.events.last().expect("an event");
        assert_eq!(last["event"], "done", "{self:#?}");
        last
    }

    /// What became of an image.
    fn ended(&self, image: &str) -> &Value {
        let ended = self.of("ended");
        let ended = ended.into_iter().find(|one| one["image"] == image);
        ended.unwrap_or_else(|| panic!("nothing of {image} in {self:#?}"))
    }
}

/// An image of one layer.
fn image(seed: u64) -> Image {
    Image::new(seed, &[30 * KIB])
}

/// Layers that are told from each other.
fn layer(seed: u64, kib: u64) -> Content {
    Content::random(9000 + seed, kib * KIB)
}
