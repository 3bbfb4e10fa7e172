//! What every test stands on: registries with images, Layby before them, and nothing else to go to.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::host;
use super::images::{Family, Image, LARGE};
use super::layby::Layby;
use super::registry::Registry;
use super::trap::Trap;

/// Size of the largest layer of a small image.
const SMALL: usize = 300_000;

/// One test's machines. Everything ends when it is dropped, in this order.
pub(crate) struct Scene {
    pub(crate) layby: Layby,
    /// Open to everyone: `docker.io` to Layby.
    pub(crate) open: Registry,
    /// Open to Layby: `registry.test` to it.
    pub(crate) locked: Registry,
    pub(crate) trap: Trap,
    folder: TempDir,
    _turn: File,
}

/// Images that are pushed once, to storage that every test's registries then serve.
pub(crate) struct Stock {
    /// On Docker Hub, with Docker's media types.
    pub(crate) demo: Image,
    /// The same, for tests that pull it often.
    pub(crate) small: Image,
    /// On Docker Hub, with OCI media types.
    pub(crate) app: Image,
    /// In the registry that wants a login.
    pub(crate) private: Image,
    open: PathBuf,
    locked: PathBuf,
}

impl Scene {
    /// Waits for this test's turn and starts everything, Layby on any port.
    pub(crate) fn start() -> Self {
        Self::on(host::free_port())
    }

    /// The same, with Layby on `port`.
    pub(crate) fn on(port: u16) -> Self {
        let turn = turn();
        let stock = stock();
        // Not in the target directory: a path to a socket may have no more than 107 characters.
        let folder = TempDir::with_prefix("layby-clients-").unwrap();
        let path = folder.path();
        let trap = Trap::set();
        let open = Registry::start("open", &stock.open, true, path);
        let locked = Registry::start("locked", &stock.locked, false, path);
        let layby = Layby::start(port, &open.url(), &locked.url(), path);
        Self {
            layby,
            open,
            locked,
            trap,
            folder,
            _turn: turn,
        }
    }

    /// A new folder for a client.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Variables for clients.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let home = self.folder("home");
        self.trap.environment(&home.display().to_string())
    }

    /// A command of a client, with the variables for clients.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = host::command(program);
        command.envs(self.environment());
        command
    }
}

/// One test at a time, also where each has a process of its own.
fn turn() -> File {
    let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients.turn")).unwrap();
    file.lock().unwrap();
    file
}

/// The images, made by the first who asks.
pub(crate) fn stock() -> &'static Stock {
    static STOCK: OnceLock<Stock> = OnceLock::new();
    STOCK.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
        let _ = fs::remove_dir_all(&folder);
        let make = |repository, tag, family, size| {
            Image::make(repository, tag, family, size, &folder.join(repository))
        };
        let stock = Stock {
            demo: make("library/demo", "latest", Family::Docker, LARGE),
            small: make("library/small", "latest", Family::Docker, SMALL),
            app: make("org/app", "v1", Family::Oci, LARGE),
            private: make("private/app", "v1", Family::Oci, LARGE),
            open: folder.join("open"),
            locked: folder.join("locked"),
        };
        let open = Registry::start("stock-open", &stock.open, true, &folder);
        let locked = Registry::start("stock-locked", &stock.locked, false, &folder);
        for (registry, image) in [
            (&open, &stock.demo),
            (&open, &stock.small),
            (&open, &stock.app),
            (&locked, &stock.private),
        ] {
            registry.push(image, &folder.join(&image.repository));
        }
        stock
    })
}
