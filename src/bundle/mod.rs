//! Images in a file: OCI image layouts (image-spec, image-layout.md) as a directory or a tar, and what `docker save`
//! writes.
//!
//! Owns the format: which bytes are written, always the same for the same content, and what is believed of bytes that
//! somebody else wrote. It never unpacks anything, to nowhere, and trusts no name, number or order in what it reads. It
//! knows no store, no server and no upstream; whoever reads says where blobs go. Blocks. Imports `oci`.

mod compression;
mod docker;
mod fault;
mod header;
mod index;
mod list;
mod member;
mod members;
mod shelf;
#[cfg(test)]
mod tests;
mod write;

pub use docker::{DockerImage, DockerLayer, docker_manifest, read_docker, write_docker};
pub use fault::Fault;
pub use index::{Index, IndexImage, Named};
pub use list::List;
pub use member::Member;
pub use members::{Entry, Found, Members, Stream};
pub use shelf::{Shelf, Telling, since};
pub use write::{END, Layout, header, padding};

/// What says that this is an image layout, and of which version.
pub const OCI_LAYOUT: &str = "oci-layout";
/// Its content.
pub const OCI_LAYOUT_JSON: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// What lists the images.
pub const INDEX: &str = "index.json";
/// What lists them for `docker load`.
pub const DOCKER_MANIFEST: &str = "manifest.json";

/// Most bytes of a document that lists images: a hundred thousand of them.
pub const MOST_DOCUMENT: u64 = 64 * 1024 * 1024;
/// Most bytes of a manifest.
pub const MOST_MANIFEST: u64 = 4 * 1024 * 1024;
/// Links from one to the next, up to a file.
pub const MOST_HOPS: usize = 16;
