//! What is measured, one file for each kind.

mod cold;
mod herd;
mod image;
mod manifests;
mod memory;
mod parallel;
mod small;
mod start;
mod warm;

use crate::Result;
use crate::bed::Bed;
use crate::peers::Contender;
use crate::report::Report;

/// Something that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Bed, &mut Report) -> Result<()>,
}

/// All, in the order in which they run.
const ALL: [Scenario; 10] = [
    Scenario {
        name: "warm_blob",
        what: "one large blob that is cached",
        run: warm::plain,
    },
    Scenario {
        name: "warm_tls",
        what: "the same over TLS",
        run: warm::tls,
    },
    Scenario {
        name: "manifests",
        what: "a manifest that is cached, by tag and by digest, alone and beside large blobs",
        run: manifests::run,
    },
    Scenario {
        name: "cold_blob",
        what: "one large blob that nobody had before",
        run: cold::run,
    },
    Scenario {
        name: "herd",
        what: "many clients at once for one blob that nobody had before",
        run: herd::run,
    },
    Scenario {
        name: "small_blobs",
        what: "many small blobs that nobody had before",
        run: small::run,
    },
    Scenario {
        name: "image_pull",
        what: "an image by skopeo, cold and warm",
        run: image::run,
    },
    Scenario {
        name: "memory",
        what: "memory under slow readers of random ranges",
        run: memory::run,
    },
    Scenario {
        name: "start",
        what: "from nothing to a blob and a tag, with a full cache",
        run: start::run,
    },
    Scenario {
        name: "parallel",
        what: "an upstream that limits each connection",
        run: parallel::run,
    },
];

/// Those of these names, or all.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<Scenario>> {
    let unknown = names
        .iter()
        .find(|name| !ALL.iter().any(|scenario| scenario.name == **name));
    if let Some(unknown) = unknown {
        let all = ALL.map(|scenario| scenario.name).join(", ");
        return Err(format!("no scenario is called {unknown}; there are {all}").into());
    }
    let is_chosen =
        |scenario: &Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(ALL.into_iter().filter(is_chosen).collect())
}

/// Those that this machine has.
fn present(contenders: impl IntoIterator<Item = Option<Contender>>) -> Vec<Contender> {
    contenders.into_iter().flatten().collect()
}
