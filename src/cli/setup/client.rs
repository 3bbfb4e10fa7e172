//! The clients that can be set up.

use std::path::{Path, PathBuf};

use super::mirror::Wish;
use super::piece::Piece;
use super::place::Failure;
use super::{buildkit, containerd, docker, k3s, kaniko, registries};

/// A client of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Client {
    /// dockerd: daemon.json
    Docker,
    /// containerd, also under kubelet: hosts.toml, and the line in config.toml that names its directory
    Containerd,
    /// podman, skopeo, buildah: a file in registries.conf.d
    Podman,
    /// CRI-O: the same file as podman's
    Crio,
    /// buildkitd and docker buildx: buildkitd.toml
    Buildkit,
    /// k3s and rke2: registries.yaml
    K3s,
    /// kaniko: flags
    Kaniko,
}

impl Client {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::Buildkit => "buildkit",
            Self::K3s => "k3s",
            Self::Kaniko => "kaniko",
        }
    }

    /// The programs by which it is known that the client is here.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["dockerd"],
            Self::Containerd => &["containerd"],
            Self::Podman => &["podman", "skopeo", "buildah"],
            Self::Crio => &["crio"],
            Self::Buildkit => &["buildkitd"],
            Self::K3s => &["k3s"],
            Self::Kaniko => &[],
        }
    }

    /// Whether one entry can stand for all registries.
    pub(super) fn has_catch_all(self) -> bool {
        matches!(self, Self::Containerd | Self::K3s)
    }

    /// The client's own configuration, which may say where others belong.
    pub(super) fn main_file(self) -> Option<&'static Path> {
        let file = match self {
            Self::Docker => docker::FILE,
            Self::Containerd => containerd::FILE,
            Self::Podman | Self::Crio => registries::FILE,
            Self::Buildkit => buildkit::FILE,
            Self::K3s => k3s::FILE,
            Self::Kaniko => return None,
        };
        Some(Path::new(file))
    }

    /// The files that fulfil the wish, where the main one holds `main` now; none for a client without files.
    pub(super) fn pieces(self, wish: &Wish, main: Option<&str>) -> Vec<Piece> {
        match self {
            Self::Docker => docker::pieces(wish),
            Self::Containerd => containerd::pieces(wish, main),
            Self::Podman | Self::Crio => registries::pieces(wish),
            Self::Buildkit => vec![buildkit::piece(wish)],
            Self::K3s => vec![k3s::piece(wish)],
            Self::Kaniko => Vec::new(),
        }
    }

    /// The same, but for what other files of the client say already; refused where they say something against it. `at`
    /// tells where a path is on this machine.
    pub(super) fn missing(
        self,
        wish: &Wish,
        main: Option<&str>,
        at: &dyn Fn(&Path) -> PathBuf,
    ) -> Result<Vec<Piece>, Failure> {
        match self {
            Self::Podman | Self::Crio => registries::missing(wish, at),
            _ => Ok(self.pieces(wish, main)),
        }
    }

    /// What a client without files is given instead.
    pub(super) fn flags(self, wish: &Wish) -> Option<String> {
        (self == Self::Kaniko).then(|| kaniko::flags(wish))
    }

    /// Whether it can be told of registries by name.
    pub(super) fn knows_registries(self) -> bool {
        self != Self::Docker
    }

    /// How the client takes up what changed.
    pub(super) fn reload(self) -> &'static str {
        match self {
            Self::Docker => "systemctl reload docker",
            Self::Containerd => {
                "systemctl restart containerd, if config.toml changed; hosts.toml files are read at each pull"
            }
            Self::Podman => "nothing, it is read at each pull",
            Self::Crio => "systemctl reload crio",
            Self::Buildkit => {
                "systemctl restart buildkit, or make the builder anew: docker buildx create --buildkitd-config FILE"
            }
            Self::K3s => "systemctl restart k3s, on agents k3s-agent",
            Self::Kaniko => "give the flags to the executor",
        }
    }

    /// What is to be known about the client.
    pub(super) fn notes(self, wish: &Wish) -> Vec<String> {
        match self {
            Self::Docker => docker::notes(wish),
            Self::Containerd => containerd::notes(wish),
            Self::Kaniko if wish.mirror.is_loopback() => vec![format!(
                "in a container {} is the container itself: name an address of the host with --mirror",
                wish.mirror.authority()
            )],
            Self::Podman => vec![
                "for one user: --file ~/.config/containers/registries.conf.d/050-layby.conf"
                    .to_owned(),
            ],
            Self::K3s => vec!["for rke2: --file /etc/rancher/rke2/registries.yaml".to_owned()],
            Self::Crio | Self::Buildkit | Self::Kaniko => Vec::new(),
        }
    }
}
