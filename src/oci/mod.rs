//! The registry protocol as values: names, digests, references, media types, ranges, routes.
//!
//! Everything here is pure: no I/O, no async, no clock. Text from the network or from a file becomes one of these
//! types once, at the edge, and is valid from then on. Imports nothing of this crate.

mod digest;
mod media_type;
mod name;
mod reference;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use media_type::MediaType;
pub use name::{NameError, RepoName};
pub use reference::{Reference, ReferenceError, Tag, TagError};
