//! Where a redirect leads, and whether we go there (RFC 9110, section 15.4; PROTOCOL.md has what registries do).

use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::Error;
use super::net::{Origin, without_secrets};

/// Most redirects that one request follows.
pub(super) const MAX_REDIRECTS: usize = 10;

/// Whether a status sends us elsewhere with the same method. Only `GET` and `HEAD` are ever sent, so `303` is one.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The URL that the answer from `from` sends us to, with its origin. Never plain HTTP unless the upstream, at `home`, is; user
/// information in it is dropped.
pub(super) fn target(
    from: &Url,
    home: &Origin,
    headers: &HeaderMap,
) -> Result<(Url, Origin), Error> {
    let shown = without_secrets(from);
    let location = headers
        .get(LOCATION)
        .ok_or_else(|| Error::invalid(format!("{shown} redirects without saying where")))?;
    let mut url = std::str::from_utf8(location.as_bytes())
        .ok()
        .and_then(|text| from.join(text.trim()).ok())
        .ok_or_else(|| Error::invalid(format!("{shown} redirects to what is no URL")))?;
    let origin = Origin::of(&url).ok_or_else(|| {
        Error::invalid(format!(
            "{shown} redirects to neither http nor https, but {}",
            url.scheme()
        ))
    })?;
    if home.is_https() && !origin.is_https() {
        return Err(Error::refused(
            "https",
            format!(
                "{shown} redirects to {origin}, which is not encrypted; that is only followed where the \
                upstream's own url starts with http://"
            ),
        ));
    }
    // Neither can fail on a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    Ok((url, origin))
}

/// The error for a chain of redirects that does not end.
pub(super) fn too_many(first: &Url) -> Error {
    let shown = without_secrets(first);
    Error::refused(
        "redirects",
        format!("{shown} redirects more than {MAX_REDIRECTS} times; no key lifts this limit"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target_of(from: &str, home: &str, location: &[u8]) -> Result<String, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, http::HeaderValue::from_bytes(location).unwrap());
        let home = Origin::of(&home.parse().unwrap()).unwrap();
        target(&from.parse().unwrap(), &home, &headers).map(|(url, _)| url.into())
    }

    #[test]
    fn relative_and_absolute_targets_are_understood() {
        let home = "https://r.example";
        let go = |location: &[u8]| target_of("https://r.example/v2/a/blobs/x", home, location);
        assert_eq!(go(b"/b?x=1").as_deref(), Ok("https://r.example/b?x=1"));
        assert_eq!(
            go(b"//cdn.example/b").as_deref(),
            Ok("https://cdn.example/b")
        );
        assert_eq!(
            go(b"https://u:p@cdn.example/b#f").as_deref(),
            Ok("https://cdn.example/b")
        );
    }

    #[test]
    fn an_encrypted_upstream_never_leads_to_plain_http() {
        let refused = target_of(
            "https://r.example/a",
            "https://r.example",
            b"http://cdn.example/b?sig=1",
        );
        let Err(Error::Refused {
            key: "https",
            message,
        }) = refused
        else {
            panic!("{refused:?}");
        };
        assert!(!message.contains("sig"), "{message}");
        // Not even after a detour.
        assert!(
            target_of(
                "https://c.example/a",
                "https://r.example",
                b"http://r.example/"
            )
            .is_err()
        );
        assert!(
            target_of(
                "http://r.example/a",
                "http://r.example",
                b"http://c.example/"
            )
            .is_ok()
        );
        assert!(
            target_of(
                "https://c.example/a",
                "http://r.example",
                b"http://r.example/"
            )
            .is_ok()
        );
    }

    #[test]
    fn targets_that_are_no_web_addresses_are_refused() {
        for location in [
            &b"ftp://x.example/"[..],
            b"file:///etc/passwd",
            b"http://",
            b"https://\xff/",
        ] {
            let result = target_of("http://r.example/a", "http://r.example", location);
            assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
        }
        let nowhere = target(
            &"https://r.example/a".parse().unwrap(),
            &Origin::of(&"https://r.example".parse().unwrap()).unwrap(),
            &HeaderMap::new(),
        );
        assert!(matches!(nowhere, Err(Error::Invalid { .. })));
    }
}
