//! dockerd: `daemon.json`.

use super::json;
use super::mirror::{Mirror, Wish};
use super::piece::{Piece, Refusal};

/// Where dockerd looks.
pub(super) const FILE: &str = "/etc/docker/daemon.json";

/// What is to be known about it.
pub(super) fn notes(wish: &Wish) -> Vec<String> {
    let mirror = &wish.mirror;
    let mut notes = vec![format!(
        "dockerd asks mirrors for Docker Hub alone; other images are pulled as {}/ghcr.io/org/app",
        mirror.authority()
    )];
    if needs_insecure(mirror) {
        notes.push(format!(
            "insecure-registries is there for image names that begin with {}, since the mirror speaks plain HTTP and \
             dockerd would ask for HTTPS",
            mirror.authority()
        ));
    }
    notes
}

/// The files.
pub(super) fn pieces(wish: &Wish) -> Vec<Piece> {
    let mirror = wish.mirror.clone();
    let mut keys = format!("  \"registry-mirrors\": [\"{mirror}\"]");
    if needs_insecure(&mirror) {
        let insecure = format!(",\n  \"insecure-registries\": [\"{}\"]", mirror.authority());
        keys.push_str(&insecure);
    }
    let certificate = wish.authority.as_ref().map(|authority| {
        let path = format!("/etc/docker/certs.d/{}/ca.crt", mirror.authority());
        Piece::certificate(path, &authority.pem)
    });
    let text = format!("{{\n{keys}\n}}\n");
    let daemon = Piece::new(FILE, text, move |old| merge(&mirror, old));
    [daemon].into_iter().chain(certificate).collect()
}

fn merge(mirror: &Mirror, old: &str) -> Result<String, Refusal> {
    let url = mirror.to_string();
    let is_same = |item: &str| item.trim_end_matches('/') == url;
    let mut text = json::with_first(old, "registry-mirrors", &url, is_same)?;
    if needs_insecure(mirror) {
        let authority = mirror.authority();
        text = json::with_first(&text, "insecure-registries", authority, |item| {
            item == authority
        })?;
    }
    Ok(text)
}

/// Whether names that begin with the mirror's are asked for by HTTPS unless it is named here.
fn needs_insecure(mirror: &Mirror) -> bool {
    !mirror.is_tls() && !mirror.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::super::piece::check_merge;
    use super::super::tests::{authority, wish};
    use super::*;

    #[test]
    fn settings_that_are_there_stay_and_the_mirror_goes_first() {
        let old = "{\n    \"log-driver\": \"journald\",\n    \"registry-mirrors\": [\n        \"https://old.test\"\n    ]\n}\n";
        let [piece] = &pieces(&wish("http://127.0.0.1:5000"))[..] else {
            panic!("one file");
        };
        let new = check_merge(piece, old);
        assert_eq!(
            new,
            old.replace("\"https", "\"http://127.0.0.1:5000\",\n        \"https")
        );
        let same = r#"{"registry-mirrors": ["http://127.0.0.1:5000/"]}"#;
        assert_eq!(piece.merged(Some(same)).unwrap(), same);
    }

    #[test]
    fn a_mirror_in_plain_http_on_another_machine_is_named_insecure_with_a_reason() {
        let wish = wish("http://layby.lan:5000");
        let piece = &pieces(&wish)[0];
        assert!(
            piece
                .text
                .contains(r#""insecure-registries": ["layby.lan:5000"]"#)
        );
        let new = check_merge(piece, r#"{"debug": true}"#);
        assert!(new.contains("insecure-registries"), "{new}");
        assert!(notes(&wish).iter().any(|note| note.contains("plain HTTP")));
    }

    #[test]
    fn an_authority_goes_where_dockerd_looks_for_it() {
        let mut wish = wish("https://layby.lan");
        wish.authority = Some(authority());
        let pieces = pieces(&wish);
        assert_eq!(
            pieces[1].path.to_str(),
            Some("/etc/docker/certs.d/layby.lan/ca.crt")
        );
        assert!(!pieces[0].text.contains("insecure"));
    }
}
