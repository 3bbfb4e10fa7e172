//! Real clients pull real images from a real registry through the real program: dockerd, containerd, skopeo and podman
//! from Debian's docker-registry, all on loopback with their own sockets and directories.
//!
//! The program is `$LAYBY_BIN`, or the one that cargo built. A test whose clients are not installed says so and passes,
//! unless `LAYBY_REQUIRE_CLIENTS` is set. Clients have a [`trap::Trap`] for a proxy, so that whatever does not go to
//! loopback is seen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod carry;
mod container;
mod containerd;
mod detour;
mod docker;
mod eviction;
mod faults;
mod gap;
mod guides;
mod host;
mod images;
mod layby;
mod podman;
mod registry;
mod scene;
mod setup;
mod skopeo;
mod story;
mod trap;
