//! Everything at once.

use super::*;

#[test]
fn without_a_file_the_public_registries_are_mirrored_on_loopback() {
    let config = good("");
    assert_eq!(config.listen, addresses(&["127.0.0.1:5000"]));
    assert_eq!(config.admin.listen, Some(addresses(&["127.0.0.1:5050"])[0]));
    assert_eq!(config.default_upstream.as_str(), "docker.io");
    assert!(config.catalog && !config.offline && config.tls.is_none());
    assert_eq!(config.cache.min_free, MinFree::Share(0.1));
    assert_eq!(config.limits.header_timeout, Duration::from_secs(20));
    let hub = upstream(&config, "docker.io");
    assert_eq!(hub.urls[0].url.as_str(), "https://registry-1.docker.io/");
    assert!(hub.library);
    assert_eq!(hub.tags.ttl, Duration::from_mins(1));
    assert_eq!(hub.tags.stale_if_error, Duration::MAX);
    assert_eq!(hub.token_hosts[0].host, "auth.docker.io");
    assert!(!upstream(&config, "ghcr.io").library);
    let names: Vec<_> = config.upstreams.iter().map(|u| u.name.clone()).collect();
    assert!(names.is_sorted() && names.len() > 10);
}

#[test]
fn every_value_arrives() {
    let config = good(
        r#"
        listen = ["127.0.0.1:0", "[::1]:5001"]
        data_dir = "/srv/layby"
        default_upstream = "Mirror"
        clients = ["10.0.0.0/8", "fd00::1"]
        server_names = ["Cache.Example.com"]
        catalog = false
        [tls]
        listen = "127.0.0.1:5443"
        cert_file = "c.pem"
        key_file = "k.pem"
        [admin]
        listen = "none"
        [tags]
        ttl = "5m"
        [cache]
        max_size = "200GiB"
        min_free = "20 GiB"
        max_age = "30d"
        max_blob_size = "1.5TiB"
        [limits]
        shutdown_grace = "0s"
        [log]
        format = "json"
        filter = "warn,layby=debug"
        [upstreams.mirror]
        url = ["https://a.example/project/", "http://[::1]:5000"]
        prefixes = ["hub"]
        hosts = ["Hub.Example.com:5000"]
        allow = ["team/*"]
        deny = ["team/secret"]
        token_hosts = ["auth.example:8443", "[fd00::1]:1"]
        stale_if_gone = "1h"
        negative_ttl = "0s"
        proxy = "http://u:p@proxy:3128"
        client_cert = "cc.pem"
        client_key = "ck.pem"
        send_ns = true
        parallel = 4
        allow_private = true
        "#,
    );
    assert_eq!(config.listen, addresses(&["127.0.0.1:0", "[::1]:5001"]));
    assert_eq!(config.data_dir, Path::new("/srv/layby"));
    assert_eq!(config.clients[1].to_string(), "fd00::1/128");
    assert_eq!(config.server_names, ["cache.example.com"]);
    assert!(!config.catalog && config.admin.listen.is_none());
    assert_eq!(config.cache.max_size, Some(200 << 30));
    assert_eq!(config.cache.min_free, MinFree::Bytes(20 << 30));
    assert_eq!(config.cache.max_age, Some(Duration::from_hours(30 * 24)));
    assert_eq!(config.limits.shutdown_grace, Duration::ZERO);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(
        upstream(&config, "quay.io").tags.ttl,
        Duration::from_mins(5)
    );

    let mirror = upstream(&config, "mirror");
    assert_eq!(config.default_upstream, mirror.name);
    assert_eq!(mirror.urls[0].url.as_str(), "https://a.example/project");
    assert_eq!(mirror.hosts, ["hub.example.com:5000"]);
    assert_eq!(mirror.tags.ttl, Duration::ZERO);
    assert_eq!(mirror.tags.stale_if_gone, Duration::from_hours(1));
    assert_eq!(mirror.token_hosts[1].host, "[fd00::1]");
    assert_eq!(mirror.token_hosts[1].port, Some(1));
    assert!(mirror.send_ns && mirror.allow_private && mirror.parallel == 4);
    assert!(matches!(&mirror.proxy, ProxyChoice::Via(url) if url.port() == Some(3128)));
    let may = |name: &str| mirror.repositories.permits(&name.parse().expect(name));
    assert!(may("team/app") && !may("team/a/b") && !may("team/secret") && !may("other"));
}

#[test]
fn every_fault_is_reported_with_its_line_and_key_and_what_to_write() {
    let text = r#"listen = ":5000"
clients = ["10.0.0.0/8", "everyone"]
lissten = "x"
public = "yes"
[cache]
max_size = 200
min_free = "110%"
[limits]
connect_timeout = 5
header_timeout = "forever"
stall_timeout = "0s"
[upstreams."docker.io"]
tag_ttl = "1 fortnight"
parallel = 99
[upstreams."ghrc.io"]
[upstreams."a/b"]
url = "https://x"
"#;
    let faults = faults(text);
    let expected = [
        ("line 1: listen: ", "127.0.0.1:5000"),
        ("line 2: clients: \"everyone\"", "10.0.0.0/8"),
        ("line 3: lissten: ", "did you mean listen?"),
        ("line 4: public: ", "write true or false"),
        ("line 6: cache.max_size: is a number", "double quotes"),
        ("line 7: cache.min_free: ", "10%"),
        ("line 9: limits.connect_timeout: ", "60s"),
        ("line 10: limits.header_timeout: ", "60s"),
        ("line 11: limits.stall_timeout: ", "20s"),
        ("line 13: upstreams.\"docker.io\".tag_ttl: ", "forever"),
        ("line 14: upstreams.\"docker.io\".parallel: ", "from 1 to 8"),
        ("line 15: upstreams.\"ghrc.io\".url: ", "built-in ghcr.io"),
        ("line 16: upstreams.\"a/b\": ", "such as ghcr.io"),
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, (start, hint)) in faults.iter().zip(expected) {
        assert!(fault.starts_with(start) && fault.contains(hint), "{fault}");
    }
}

#[test]
fn broken_toml_is_reported_with_its_line_alone() {
    let faults = faults("listen = \"127.0.0.1:5000\"\n[cache\nmax_size = 1\n");
    assert!(faults[0].starts_with("line 2: "), "{faults:?}");
    assert!(
        !faults.iter().any(|fault| fault.contains("max_size")),
        "{faults:?}"
    );
}
