//! `layby pin`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::admin::AdminArgs;
use crate::proxy::admin::model::{PinChange, PinList};

/// Keeps images, and all that they lead to, from being evicted. Without an image, lists the pins.
///
/// Of a tag that has moved on, the image before stays too until the new one is here for one platform and the tag is asked
/// for again: should the registry fail first, that is what is served.
#[derive(Debug, clap::Args)]
pub struct Pin {
    #[command(flatten)]
    admin: AdminArgs,
    /// Images, or patterns: alpine:3.20, 'docker.io/library/*:*', ghcr.io/org/app@sha256:…; of an image without a tag,
    /// latest
    #[arg(value_name = "IMAGE|PATTERN")]
    images: Vec<String>,
}

impl Pin {
    /// Exits with 0, also where it was pinned before.
    pub fn run(self) -> ExitCode {
        let Self { admin, images } = self;
        admin.run(async |administration, output| {
            if images.is_empty() {
                output.answer(&administration.pins().await?, listed)?;
            }
            for name in &images {
                output.answer(&administration.pin(name).await?, changed)?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn listed(pins: &PinList) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for pin in &pins.config {
        let _ = writeln!(text, "{pin} (configuration)");
    }
    for pin in &pins.command {
        let _ = writeln!(text, "{pin}");
    }
    if text.is_empty() {
        text.push_str("nothing is pinned\n");
    }
    text
}

fn changed(change: &PinChange) -> String {
    let word = if change.changed {
        "pinned"
    } else {
        "was pinned before:"
    };
    format!("{word} {}\n", change.pin)
}
