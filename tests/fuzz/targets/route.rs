//! Every method and URI has an answer, and what is routed can be written and routed again.

#![no_main]

use http::{Method, Uri};
use layby::oci::{Route, TagsQuery};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(uri) = text.parse::<Uri>() else { return };
    assert!(Route::parse(&Method::PUT, &uri).is_err());
    let target = match Route::parse(&Method::GET, &uri) {
        Ok(
            Route::Manifest { target, .. }
            | Route::Blob { target, .. }
            | Route::Tags { target, .. }
            | Route::Referrers { target, .. },
        ) => target,
        Ok(Route::Base | Route::Catalog { .. } | Route::Health) => return,
        Err(error) => {
            assert!(error.to_string().len() < 4096);
            return;
        }
    };
    let is_plain = |prefix: &String| {
        prefix
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.')
    };
    // A host with capitals is written small, and may then pass for a component.
    if target.registry.is_some() || !target.prefix.as_ref().is_none_or(is_plain) {
        return;
    }
    let again: Uri = format!("{}/tags/list", target.path())
        .parse()
        .expect("a path of names is a URI");
    let expected = layby::oci::Target { ns: None, ..target };
    assert_eq!(
        Route::parse(&Method::HEAD, &again),
        Ok(Route::Tags {
            target: expected,
            query: TagsQuery::default(),
        })
    );
});
