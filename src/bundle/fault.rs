//! Why a file is no image archive that can be used.

use std::io;

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The disk, or whoever sends it.
    #[error("it cannot be read: {0}")]
    Io(#[source] io::Error),
    /// Nothing at all.
    #[error("there is nothing in it")]
    Empty,
    /// It ends where more should follow.
    #[error("it ends in the middle: copy it again, and compare the sizes")]
    Cut,
    /// It is something else.
    #[error("it is no tar: {0}; give an image layout, or what docker save has written")]
    NotTar(&'static str),
    /// A compression that is not read here.
    #[error(
        "it is compressed with {0}, which is not read here: decompress it first, or use zstd or gzip"
    )]
    Compression(&'static str),
    /// A name that leads elsewhere.
    #[error("it holds {0:?}, a name that leads out of it")]
    Path(String),
    /// A link, a device, or whatever else no image needs.
    #[error("it holds {name:?}, which is {what}; an image has only files")]
    Kind {
        /// Its name.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A link that cannot be followed.
    #[error("it holds a link {name:?} to {target:?}, where there is no file of an image")]
    Link {
        /// Its name.
        name: String,
        /// What it points to.
        target: String,
    },
    /// One of two could be checked and the other used.
    #[error("it holds {0:?} twice")]
    Twice(String),
    /// More than any image has.
    #[error("{name:?} in it has {len} bytes, and {most} are the most for that")]
    TooLarge {
        /// Its name.
        name: String,
        /// Its bytes.
        len: u64,
        /// Most bytes.
        most: u64,
    },
    /// It never ends.
    #[error("it holds more than {0}, which belongs to no image")]
    TooMuch(&'static str),
    /// A document cannot be understood.
    #[error("{name} in it cannot be understood: {why}")]
    Document {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// It lists no image.
    #[error(
        "there is neither an index.json nor a manifest.json in it: it is no image layout, and docker save has not written it"
    )]
    NoImages,
    /// A blob is not what its name says.
    #[error("{name} in it is damaged: {found}; copy or export it again")]
    Damaged {
        /// Its name.
        name: String,
        /// What was found.
        found: String,
    },
    /// Something is not in it.
    #[error("{0}")]
    Missing(String),
}

impl Fault {
    /// A document that cannot be understood.
    pub(super) fn document(name: &str, why: &dyn std::fmt::Display) -> Self {
        Self::Document {
            name: name.to_owned(),
            why: why.to_string(),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Io(error),
        }
    }
}
