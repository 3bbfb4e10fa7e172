//! Layby in this process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use layby::app::{App, Environment};
use layby::config::{Config, Overrides};
use layby::oci::Digest;
use layby::runtime::Clock;
use layby::store::{Disk, Files};
use tempfile::TempDir;

use super::{Download, Reply, Request, committed, download, eventually, get, soon};
use crate::fake::{Content, Fake};

/// The upstream of tests that need only one; also the default.
pub(crate) const UPSTREAM: &str = "registry.test";

/// A configuration that is being written.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Keys by section; the empty one comes first.
    sections: BTreeMap<String, Vec<String>>,
}

impl Setup {
    /// Loopback, ports of the system's choice, no upstream but those built in.
    pub(crate) fn new() -> Self {
        let setup = Self {
            sections: BTreeMap::new(),
        };
        setup
            .set("", r#"listen = "127.0.0.1:0""#)
            .set("admin", r#"listen = "127.0.0.1:0""#)
            // However full the machine's disk is.
            .set("cache", r#"min_free = "1MiB""#)
            .set("limits", r#"shutdown_grace = "5s""#)
    }

    /// One upstream, [`UPSTREAM`], which is the default too.
    pub(crate) fn over(fake: &Fake) -> Self {
        Self::new()
            .upstream(UPSTREAM, fake)
            .set("", &format!(r#"default_upstream = "{UPSTREAM}""#))
    }

    /// One more upstream.
    pub(crate) fn upstream(self, name: &str, fake: &Fake) -> Self {
        self.upstream_at(name, &fake.origin())
    }

    /// One more upstream, by its address.
    pub(crate) fn upstream_at(self, name: &str, url: &str) -> Self {
        self.of(name, &format!(r#"url = "{url}""#))
    }

    /// A key of an upstream.
    pub(crate) fn of(self, upstream: &str, line: &str) -> Self {
        self.set(&format!(r#"upstreams."{upstream}""#), line)
    }

    /// A key of a section; it replaces one of the same name.
    pub(crate) fn set(mut self, section: &str, line: &str) -> Self {
        let key = |line: &str| line.split(" = ").next().map(str::to_owned);
        let lines = self.sections.entry(section.into()).or_default();
        lines.retain(|old| key(old) != key(line));
        lines.push(line.into());
        self
    }

    /// The file, for this data directory.
    pub(crate) fn toml(&self, data: &Path) -> String {
        let mut text = format!("data_dir = {:?}\n", data.display().to_string());
        for (section, lines) in &self.sections {
            if !section.is_empty() {
                let _ = writeln!(text, "[{section}]");
            }
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// Starts Layby with this configuration and an empty data directory.
    pub(crate) async fn start(self) -> Layby {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        self.start_in(Arc::new(scratch), Arc::new(Disk)).await
    }

    /// Starts Layby with `data` in this directory, over this file layer.
    pub(crate) async fn start_in(self, scratch: Arc<TempDir>, files: Arc<dyn Files>) -> Layby {
        let clock = Clock::system();
        let app = launch(&self, scratch.path(), &clock, Arc::clone(&files)).await;
        Layby {
            app: Some(app),
            setup: self,
            scratch,
            clock,
            files,
        }
    }
}

async fn launch(setup: &Setup, scratch: &Path, clock: &Clock, files: Arc<dyn Files>) -> App {
    let text = setup.toml(&scratch.join("data"));
    let config = Config::from_toml(&text, &Overrides::default());
    let config = config.unwrap_or_else(|faults| panic!("{faults:?} in\n{text}"));
    let environment = Environment {
        clock: clock.clone(),
        files,
        ..Environment::default()
    };
    soon("start", App::start(config, environment))
        .await
        .expect("layby starts")
}

/// A running Layby.
#[derive(Debug)]
pub(crate) struct Layby {
    app: Option<App>,
    setup: Setup,
    scratch: Arc<TempDir>,
    clock: Clock,
    files: Arc<dyn Files>,
}

impl Layby {
    /// Layby over one upstream.
    pub(crate) async fn over(fake: &Fake) -> Self {
        Setup::over(fake).start().await
    }

    /// Where clients go.
    pub(crate) fn address(&self) -> SocketAddr {
        self.app().addresses()[0]
    }

    /// Where clients go with TLS.
    pub(crate) fn tls_address(&self) -> SocketAddr {
        self.app().tls_addresses()[0]
    }

    /// Where the operator goes.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.app().admin_address().expect("an admin listener")
    }

    /// The same, if it runs.
    pub(crate) fn running_admin(&self) -> Option<SocketAddr> {
        self.app.as_ref().and_then(App::admin_address)
    }

    fn app(&self) -> &App {
        self.app.as_ref().expect("layby runs")
    }

    /// The clock that freshness is measured by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Has so much time passed, by every clock. For tests on a single thread.
    pub(crate) async fn later(&self, by: Duration) {
        self.clock.advance(by);
        tokio::time::pause();
        tokio::time::advance(by).await;
        tokio::time::resume();
    }

    /// Waits until these blobs are on disk, with the proof that a repository of [`UPSTREAM`] has them: a moment after
    /// their readers have them.
    pub(crate) async fn has_committed<'a>(
        &self,
        repository: &str,
        blobs: impl IntoIterator<Item = &'a Content>,
    ) {
        let proofs = self
            .data()
            .join("refs")
            .join(UPSTREAM)
            .join(repository)
            .join("_blobs");
        for blob in blobs {
            eventually("the commit", || async {
                let proof = proofs.join(blob.digest().as_str());
                let is_proven = proof.try_exists().unwrap_or(false);
                (is_proven && self.committed().contains(blob.digest())).then_some(())
            })
            .await;
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// The digests that are on disk.
    pub(crate) fn committed(&self) -> Vec<Digest> {
        committed(&self.data())
    }

    /// `GET`.
    pub(crate) async fn get(&self, target: &str) -> Reply {
        get(self.address(), target).await
    }

    /// `HEAD`.
    pub(crate) async fn head(&self, target: &str) -> Reply {
        Request::head(target).send_to(self.address()).await
    }

    /// `GET` of a blob of the default upstream, hashed.
    pub(crate) async fn blob(&self, repository: &str, content: &Content) -> Download {
        download(self.address(), blob_path(repository, content)).await
    }

    /// The sum of a metric over all label sets that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        metric(self.admin(), name, labels).await
    }

    /// Stops Layby.
    pub(crate) async fn stop(&mut self) {
        if let Some(app) = self.app.take() {
            soon("stop", app.stop()).await;
        }
    }

    /// Stops Layby and starts it again on the same directory.
    pub(crate) async fn restart(&mut self) {
        self.restart_with(|setup| setup).await;
    }

    /// The same, with a changed configuration.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.stop().await;
        self.setup = change(self.setup.clone());
        let files = Arc::clone(&self.files);
        let app = launch(&self.setup, self.scratch.path(), &self.clock, files).await;
        self.app = Some(app);
    }
}

/// The sum of a metric over all label sets that contain `labels`.
pub(crate) async fn metric(admin: SocketAddr, name: &str, labels: &str) -> f64 {
    let text = get(admin, "/metrics").await.expect(200).text();
    text.lines()
        .filter(|line| {
            let rest = line
                .strip_prefix("layby_")
                .and_then(|l| l.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Where a blob is.
pub(crate) fn blob_path(repository: &str, content: &Content) -> String {
    format!("/v2/{repository}/blobs/{}", content.digest())
}
