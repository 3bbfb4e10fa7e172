//! The registry protocol as values: names, digests, references, media types, ranges, routes.
//!
//! Everything here is pure: no I/O, no async, no clock. Text from the network or from a file becomes one of these
//! types once, at the edge, and is valid from then on. Imports nothing of this crate.

pub mod range;

mod digest;
mod digest_set;
mod error;
mod link;
mod manifest;
mod media_type;
mod name;
mod platform;
mod reference;
mod referrers;
mod route;
mod tag_list;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use digest_set::{DigestMap, DigestSet, ShortDigest, Unhashed};
pub use error::{ErrorBody, ErrorCode, ErrorEntry};
pub use link::{next_link, next_query};
pub use manifest::{Descriptor, ManifestError, ManifestInfo, ManifestKind, Platform};
pub use media_type::MediaType;
pub use name::{NameError, RepoName};
pub use platform::{Choice, PlatformError, PlatformName, Platforms};
pub use range::{ContentRange, ContentRangeError, Multipart, RangeSpec, Ranges};
pub use reference::{Reference, ReferenceError, Tag, TagError, split_image};
pub use referrers::ReferrersIndex;
pub use route::{Route, RouteError, TagsQuery, Target};
pub use tag_list::{TagList, page};
