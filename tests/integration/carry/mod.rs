//! Images carried from one Layby to another: export, import, and everything that can go wrong in between.

mod docker;
mod killed;
mod refused;
mod rounds;
mod since;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::admin::{Ran, run};
use crate::fake::{Content, Fake};
use crate::support::{
    Image, KIB, Layby, OCI_INDEX, OCI_MANIFEST, Setup, UPSTREAM, eventually, index_of,
};

/// A Layby that commands are run on, served or at rest.
struct Side {
    layby: Layby,
    setup: Setup,
}

/// What is carried: two images that share a layer, and one for two platforms of which one was pulled.
struct Cargo {
    app: Image,
    web: Image,
    /// The platform that was pulled.
    here: Image,
    index: Content,
}

const APP: &str = "org/app";
const WEB: &str = "org/web";
const MANY: &str = "org/many";

impl Side {
    async fn new(setup: Setup) -> Self {
        let layby = setup.clone().start().await;
        Self { layby, setup }
    }

    /// A side of the gap that reaches no registry.
    async fn offline(fake: &Fake) -> Self {
        Self::new(Setup::over(fake).set("", "offline = true")).await
    }

    async fn at_rest(mut self, is_at_rest: bool) -> Self {
        if is_at_rest {
            self.layby.stop().await;
        }
        self
    }

    async fn serving(mut self) -> Self {
        self.layby.restart().await;
        self
    }

    /// A file of this name beside the data directory.
    fn file(&self, name: &str) -> PathBuf {
        self.layby.data().with_file_name(name)
    }

    /// The configuration by which commands find this side.
    fn config(&self) -> PathBuf {
        let setup = match self.layby.running_admin() {
            Some(address) => {
                let line = format!("listen = \"{address}\"");
                self.setup.clone().set("admin", &line)
            }
            None => self.setup.clone(),
        };
        let path = self.file("layby.toml");
        std::fs::write(&path, setup.toml(&self.layby.data())).expect("the configuration");
        path
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        let config = self.config();
        let config = config.to_str().expect("text");
        let (command, rest) = arguments.split_first().expect("a command");
        let all: Vec<&str> = [command, "--config", config]
            .into_iter()
            .chain(rest.iter().copied())
            .collect();
        run(&all).await
    }

    /// Every file of the cache that content and names are in.
    fn listing(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let data = self.layby.data();
        let mut found = BTreeMap::new();
        for dir in ["blobs", "refs", "partial", "damaged"] {
            collect(&data.join(dir), &mut found);
        }
        for note in ["pins.json", "imports.json"] {
            if let Ok(bytes) = std::fs::read(data.join(note)) {
                found.insert(data.join(note), bytes);
            }
        }
        found
    }

    /// Its files, once nothing is being written.
    async fn settled(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let partial = self.layby.data().join("partial");
        eventually("nothing being written", || async {
            let listing = self.listing();
            let is_settled = !listing.keys().any(|path| path.starts_with(&partial));
            is_settled.then_some(listing)
        })
        .await
    }

    /// Waits until its files are these again: what was begun and thrown away goes behind the answer.
    async fn is_again(&self, listing: &BTreeMap<PathBuf, Vec<u8>>, after: &str) {
        eventually(&format!("the cache as it was before: {after}"), || async {
            (self.listing() == *listing).then_some(())
        })
        .await;
    }

    /// Pulls all of an image by its tag and by its digest.
    async fn pull(&self, repository: &str, tag: &str, image: &Image) {
        image.pull(self.layby.address(), repository, tag).await;
    }
}

fn collect(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            found.insert(path, bytes);
        }
    }
}

impl Cargo {
    fn new() -> Self {
        let common = || Content::random(70, 100 * KIB);
        let of =
            |name, seed| Image::of_layers(name, vec![common(), Content::random(seed, 40 * KIB)]);
        let (here, elsewhere) = (of("here", 73), of("elsewhere", 74));
        Self {
            app: of("app", 71),
            web: of("web", 72),
            index: index_of(&[&here, &elsewhere]),
            here,
        }
    }

    /// Puts it into a registry, and pulls it through a Layby.
    async fn pulled_by(&self, fake: &Fake) -> Side {
        self.app.push(fake, APP, "latest");
        self.web.push(fake, WEB, "v1");
        self.here.push(fake, MANY, "one");
        let digest = fake.put_manifest(MANY, OCI_INDEX, self.index.all());
        fake.tag(MANY, "latest", &digest);
        let side = Side::new(Setup::over(fake)).await;
        let address = side.layby.address();
        self.app.pull(address, APP, "latest").await;
        self.web.pull(address, WEB, "v1").await;
        let index = side
            .layby
            .get(&format!("/v2/{MANY}/manifests/latest"))
            .await;
        assert_eq!(index.expect(200).body, self.index.all());
        let child = self.here.manifest.digest();
        side.layby
            .get(&format!("/v2/{MANY}/manifests/{child}"))
            .await
            .expect(200);
        for blob in self.here.blobs() {
            side.layby.blob(MANY, blob).await.expect(blob);
        }
        for (repository, image) in [(APP, &self.app), (WEB, &self.web), (MANY, &self.here)] {
            side.layby.has_committed(repository, image.blobs()).await;
        }
        for (repository, tag) in [(APP, "latest"), (WEB, "v1"), (MANY, "latest")] {
            has_tag(&side.layby, repository, tag).await;
        }
        side
    }

    /// Pulls all of it from a side that has it.
    async fn pull_from(&self, side: &Side) {
        side.pull(APP, "latest", &self.app).await;
        side.pull(WEB, "v1", &self.web).await;
        for reference in ["latest", self.index.digest().as_str()] {
            let index = side
                .layby
                .get(&format!("/v2/{MANY}/manifests/{reference}"))
                .await;
            assert_eq!(index.expect(200).body, self.index.all());
        }
        let child = self.here.manifest.digest();
        let manifest = side
            .layby
            .get(&format!("/v2/{MANY}/manifests/{child}"))
            .await;
        let manifest = manifest.expect(200);
        assert_eq!(manifest.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(manifest.body, self.here.manifest.all());
        for blob in self.here.blobs() {
            side.layby.blob(MANY, blob).await.expect(blob);
        }
    }
}

async fn has_tag(layby: &Layby, repository: &str, tag: &str) {
    let refs = layby.data().join("refs").join(UPSTREAM).join(repository);
    let record = refs.join("_tags").join(format!("{tag}.json"));
    eventually("the tag's record", || async {
        record.try_exists().unwrap_or(false).then_some(())
    })
    .await;
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of characters")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a file")
}
