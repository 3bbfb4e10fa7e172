//! Whatever text names images, reading it ends, and what it finds has no space in it.

#![no_main]

use layby::images::{Given, Kind, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let variable = |name: &str| (name.len() % 2 == 0).then(|| name.to_owned());
    let given = Given {
        environment: &variable,
        arguments: &variable,
    };
    for kind in [Kind::List, Kind::Compose, Kind::Kubernetes, Kind::Dockerfile] {
        for kind in [None, Some(kind)] {
            if let Ok(found) = read(text, "-", kind, &given) {
                assert!(found.images.iter().all(|image| !image.contains(char::is_whitespace)));
            }
        }
    }
});
