//! `[upstreams]`.

use super::*;

#[test]
fn a_name_belongs_to_one_upstream() {
    for (text, name) in [
        (
            "[upstreams.x]\nurl = 'https://x'\naliases = ['ghcr.io']",
            "ghcr.io",
        ),
        (
            "[upstreams.'registry-1.docker.io']\nurl = 'https://x'",
            "docker.io",
        ),
        ("[upstreams.'Quay.io']\n[upstreams.'quay.io']\n", "quay.io"),
        (
            "[upstreams.x]\nurl = 'https://x'\n[upstreams.y]\nurl = 'https://y'\nprefixes = ['x']",
            "\"x\"",
        ),
        (
            "[upstreams.'docker.io']\nhosts = ['h']\n[upstreams.'quay.io']\nhosts = ['H']",
            "\"h\"",
        ),
    ] {
        let faults = faults(text);
        assert!(
            faults.iter().any(|fault| fault.contains(name)),
            "{text}: {faults:?}"
        );
    }
    // One upstream may list its own name twice.
    good("[upstreams.'docker.io']\naliases = ['docker.io', 'hub.example.com']\nprefixes = ['hub']");
}

#[test]
fn an_unknown_default_upstream_is_refused() {
    let faults = faults("default_upstream = 'docker.oi'");
    assert!(faults[0].contains("did you mean docker.io?"), "{faults:?}");
}

#[test]
fn a_url_that_could_not_be_right_is_refused() {
    for (url, hint) in [
        ("registry.example.com", "https://registry.example.com"),
        ("localhost:5000", "https://"),
        ("ftp://x", "https://"),
        ("https://x/v2/", "leave that out"),
        ("https://x/?a=b", "query"),
        ("https://robot:hunter2@x", "username and password_file"),
    ] {
        let faults = faults(&format!("[upstreams.x]\nurl = '{url}'"));
        assert!(faults[0].contains(hint), "{url}: {faults:?}");
        assert!(!faults[0].contains("hunter2"), "{faults:?}");
    }
}

#[test]
fn a_server_in_place_of_a_built_in_one_may_not_pass_credentials_to_its_realm() {
    let config = good("[upstreams.'docker.io']\nurl = 'http://127.0.0.1:5001'");
    let hub = upstream(&config, "docker.io");
    assert!(hub.token_hosts.is_empty() && hub.library);
    let config = good(
        "[upstreams.'docker.io']\nurl = ['http://127.0.0.1:5001', 'https://registry-1.docker.io/']",
    );
    assert_eq!(upstream(&config, "docker.io").token_hosts.len(), 1);
}
