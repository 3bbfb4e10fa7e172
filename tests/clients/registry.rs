//! Debian's docker-registry, as the upstream of Layby.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::host::{self, Daemon};
use super::images::Image;

/// Who may use a registry that is not open.
pub(crate) const USER: &str = "robot";
/// The password of [`USER`].
pub(crate) const PASSWORD: &str = "only-layby-knows";

/// A registry on loopback. It ends when it is dropped.
pub(crate) struct Registry {
    daemon: Daemon,
    port: u16,
    log: PathBuf,
}

/// A request that a registry answered.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) agent: String,
    pub(crate) status: u64,
}

impl Registry {
    /// Serves what is in `storage` to everyone, or to [`USER`] alone; its own files go to `folder`.
    pub(crate) fn start(name: &str, storage: &Path, is_open: bool, folder: &Path) -> Self {
        let port = host::free_port();
        let config = folder.join(format!("{name}.yml"));
        let log = folder.join(format!("{name}.log"));
        let mut text = format!(
            "version: 0.1\nlog: {{ level: info, formatter: json, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: \"127.0.0.1:{port}\" }}\n",
            storage.display()
        );
        if !is_open {
            let users = folder.join(format!("{name}.htpasswd"));
            let mut htpasswd = host::command("htpasswd");
            let line = host::output(htpasswd.args(["-Bbn", USER, PASSWORD]));
            fs::write(&users, line.trim()).unwrap();
            let users = users.display();
            let auth = format!("auth: {{ htpasswd: {{ realm: test, path: {users} }} }}\n");
            text.push_str(&auth);
        }
        fs::write(&config, text).unwrap();
        let args = ["serve".as_ref(), config.as_os_str()];
        let mut daemon = Daemon::start("docker-registry", args, &[], &log);
        daemon.until(|| host::answers(port, "/v2/"));
        Self { daemon, port, log }
    }

    /// Pushes what [`Image::make`] made in `made`.
    pub(crate) fn push(&self, image: &Image, made: &Path) {
        let mut skopeo = host::command("skopeo");
        skopeo
            .args(["--insecure-policy", "copy", "--all", "--preserve-digests"])
            .args(["--dest-tls-verify=false", "--dest-creds"])
            .arg(format!("{USER}:{PASSWORD}"))
            .arg(format!("dir:{}", made.display()))
            .arg(format!("docker://127.0.0.1:{}/{}", self.port, image.name()));
        host::output(&mut skopeo);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it, so that its port refuses connections.
    pub(crate) fn kill(&mut self) {
        self.daemon.stop();
        assert!(!host::answers(self.port, "/v2/"));
    }

    /// All requests so far but those by which [`Registry::start`] saw that it is ready.
    pub(crate) fn served(&self) -> Vec<Served> {
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        host::read(&self.log)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["msg"] == "response completed")
            .map(|line| Served {
                method: text(&line, "http.request.method"),
                uri: text(&line, "http.request.uri"),
                agent: text(&line, "http.request.useragent"),
                status: line["http.response.status"].as_u64().unwrap_or_default(),
            })
            .filter(|served| !(served.uri == "/v2/" && served.agent.is_empty()))
            .collect()
    }
}
