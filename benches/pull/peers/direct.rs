//! No cache at all: the client asks the origin.

use super::{Contender, Setting};
use crate::bed::Bed;
use crate::client::Target;

/// The origin itself, as what the machine and its network can do.
pub(crate) fn direct(bed: &Bed) -> Contender {
    Contender {
        name: "direct",
        process: None,
        settings: vec![Setting {
            what: String::new(),
            target: Target {
                address: bed.origin.address(),
                tls: None,
            },
        }],
        chosen: 0,
        _folder: None,
    }
}
