use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::*;

fn from(text: &str) -> Result<Config, Faults> {
    Config::from_toml(text, &Overrides::default())
}

fn good(text: &str) -> Config {
    match from(text) {
        Ok(config) => config,
        Err(faults) => panic!("not taken:\n{faults}"),
    }
}

/// The faults of a text, as they are shown.
fn faults(text: &str) -> Vec<String> {
    let faults = from(text).expect_err("taken as right");
    faults.to_string().lines().map(str::to_owned).collect()
}

fn upstream<'a>(config: &'a Config, name: &str) -> &'a Upstream {
    let found = config.upstreams.iter().find(|u| u.name.as_str() == name);
    found.unwrap_or_else(|| panic!("no upstream {name}"))
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

/// The file as it would be with every example turned into a key.
fn with_examples(reference: &str) -> String {
    reference.replace("#: ", "")
}

const REFERENCE: &str = include_str!("../../config/reference.toml");

#[test]
fn the_reference_holds_the_defaults() {
    let mut reference = good(REFERENCE);
    let defaults = good("");
    reference.data_dir.clone_from(&defaults.data_dir);
    assert_eq!(format!("{reference:#?}"), format!("{defaults:#?}"));
}

#[test]
fn the_reference_with_all_examples_is_right() {
    let config = good(&with_examples(REFERENCE));
    assert!(config.tls.is_some());
    assert_eq!(upstream(&config, "registry.example.com").urls.len(), 2);
}

/// What a list holds; what is none, itself.
fn items(value: &toml::Value) -> Vec<&toml::Value> {
    value
        .as_array()
        .map_or_else(|| vec![value], |array| array.iter().collect())
}

#[test]
fn the_reference_names_every_key() {
    let reference: toml::Table = with_examples(REFERENCE).parse().expect("TOML");
    let holds = |section: &str, key: &str| {
        let mut tables = vec![&reference];
        for part in section.split('.').filter(|part| !part.is_empty()) {
            tables = tables
                .into_iter()
                .flat_map(|table| match part {
                    "*" => table.values().flat_map(items).collect(),
                    part => table.get(part).into_iter().collect::<Vec<_>>(),
                })
                .filter_map(toml::Value::as_table)
                .collect();
        }
        tables.iter().any(|table| table.contains_key(key))
    };
    for (section, header) in [
        ("", ""),
        ("tls", "[tls]"),
        ("admin", "[admin]"),
        ("tags", "[tags]"),
        ("tags.*", "[[tags.rule]]"),
        ("cache", "[cache]"),
        ("limits", "[limits]"),
        ("log", "[log]"),
        ("upstreams.*", "[upstreams.x]"),
    ] {
        // The fault of a key that is like no other lists those that there are.
        let text = format!("{header}\nzzzzzzzz = 1");
        let unknown = faults(&text);
        let listed = unknown
            .iter()
            .find_map(|fault| fault.split_once("the keys here are "));
        let (_, keys) = listed.expect("the keys of the section");
        for key in keys.split(", ") {
            assert!(
                holds(section, key),
                "reference.toml lacks {key} in [{section}]"
            );
        }
    }
}

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
fn credentials_come_from_one_source_and_are_whole() {
    let at = |keys: &str| format!("[upstreams.x]\nurl = 'https://x'\n{keys}");
    for (keys, hint) in [
        ("username = 'u'", "write password_file or password too"),
        ("password = 'hunter2'", "write username too"),
        ("password_file = 'f'", "write username too"),
        (
            "username = 'u'\npassword = 'hunter2'\npassword_file = 'f'",
            "keep one source",
        ),
        ("username = 'u'\ndocker_config = 'f'", "remove it"),
        (
            "docker_config = 'f'\ncredential_helper = 'h'",
            "keep one source",
        ),
        ("credential_helper = '../sh'", "ecr-login"),
        ("username = 'a:b'\npassword = 'hunter2'", "without ':'"),
        ("client_cert = 'c'", "needs client_key"),
        (
            "[upstreams.x.credentials.'y']\nusername='u'\npassword='hunter2'",
            "none of the upstream's urls",
        ),
        ("[upstreams.x.credentials.'x']", "write username with"),
        (
            "username='u'\npassword='p'\n[upstreams.x.credentials.'x:443']\nusername='u'\npassword='p'",
            "keep one of the two",
        ),
    ] {
        let faults = faults(&at(keys));
        assert_eq!(faults.len(), 1, "{keys}: {faults:?}");
        assert!(faults[0].contains(hint), "{keys}: {faults:?}");
        assert!(!faults[0].contains("hunter2"), "{faults:?}");
    }
    let wrong_type = faults(&at("username = 'u'\npassword = 271828"));
    assert!(!wrong_type.concat().contains("271828"), "{wrong_type:?}");
}

#[test]
fn credentials_are_for_the_host_that_they_were_written_for() {
    let config = good(
        "[upstreams.x]
        url = ['https://a/one', 'https://b:8443', 'http://a', 'https://a/two', 'https://c']
        credential_helper = 'first'
        [upstreams.x.credentials.'b:8443']
        credential_helper = 'second'
        [upstreams.x.credentials.'c']
        credential_helper = 'third'",
    );
    let helpers: Vec<_> = upstream(&config, "x")
        .urls
        .iter()
        .map(|url| match &url.credentials {
            Some(CredentialSource::CredentialHelper(name)) => name.as_str(),
            _ => "-",
        })
        .collect();
    assert_eq!(helpers, ["first", "second", "-", "first", "third"]);
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

#[test]
fn credentials_are_not_offered_beyond_loopback_unless_that_is_meant() {
    let with = "[upstreams.'docker.io']\nusername = 'u'\npassword = 'p'";
    for listen in [
        "'0.0.0.0:5000'",
        "['127.0.0.1:1', '[::]:5000']",
        "'192.0.2.1:5000'",
    ] {
        let text = format!("listen = {listen}\n{with}");
        let faults = faults(&text);
        assert!(faults[0].contains("clients = "), "{faults:?}");
        good(&format!("public = true\n{text}"));
        good(&format!("clients = ['10.0.0.0/8']\n{text}"));
        good(&format!("listen = {listen}"));
    }
    good(&format!(
        "listen = ['127.0.0.2:1', '[::1]:2', '[::ffff:127.0.0.1]:3']\n{with}"
    ));
    let tls = "[tls]\nlisten = '0.0.0.0:1'\ncert_file = 'c'\nkey_file = 'k'\n";
    assert!(faults(&format!("{tls}{with}"))[0].contains("docker.io"));
    let certificate = "[upstreams.'quay.io']\nclient_cert = 'c'\nclient_key = 'k'";
    let faults = faults(&format!("listen = '0.0.0.0:5000'\n{certificate}"));
    assert!(faults[0].contains("quay.io"), "{faults:?}");
}

#[test]
fn an_address_is_listened_on_once_and_there_is_one() {
    assert!(faults("listen = ['127.0.0.1:1', '127.0.0.1:1']")[0].contains("twice"));
    assert!(faults("listen = '127.0.0.1:5050'")[0].contains("admin.listen"));
    assert!(faults("listen = []")[0].contains("no address"));
    good("listen = []\n[tls]\nlisten = '127.0.0.1:0'\ncert_file = 'c'\nkey_file = 'k'");
    good("listen = ['127.0.0.1:0', '127.0.0.1:0']");
}

#[test]
fn a_tls_section_says_what_it_lacks() {
    let faults = faults("[tls]\ncert_file = 'c'");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("tls.listen") && faults[1].contains("tls.key_file"));
}

#[test]
fn flags_win_over_the_environment_and_it_over_the_file() {
    let environment = Overrides::from_environment(|name| match name {
        "LAYBY_LISTEN" => Some("127.0.0.1:1,[::1]:2".into()),
        "LAYBY_DATA_DIR" => Some("/env".into()),
        "LAYBY_OFFLINE" => Some("1".into()),
        "LAYBY_LOG" => Some("".into()),
        _ => None,
    });
    let flags = Overrides {
        data_dir: Some(Given {
            value: "/flag".into(),
            by: "--data-dir",
        }),
        ..Overrides::default()
    };
    let text = "listen = '127.0.0.1:9'\ndata_dir = '/file'\n[log]\nfilter = 'warn'";
    let config = Config::from_toml(text, &flags.or(environment)).expect("right");
    assert_eq!(config.listen, addresses(&["127.0.0.1:1", "[::1]:2"]));
    assert_eq!(config.data_dir, Path::new("/flag"));
    assert!(config.offline);
    assert_eq!(config.log.filter, "warn");
}

#[test]
fn a_wrong_override_is_a_fault_of_who_gave_it() {
    let environment = Overrides::from_environment(|name| match name {
        "LAYBY_LISTEN" => Some("5000".into()),
        "LAYBY_OFFLINE" => Some("maybe".into()),
        "LAYBY_LOG" => Some("layby=loud".into()),
        _ => None,
    });
    let faults = Config::from_toml("", &environment).expect_err("wrong");
    let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["LAYBY_LISTEN", "LAYBY_OFFLINE", "LAYBY_LOG"]);
}

#[test]
fn files_that_are_not_there_are_faults() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("there");
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new([]).expect("params");
    let cert = params.self_signed(&key).expect("certificate");
    std::fs::write(&file, cert.pem()).expect("written");
    let config = good(&format!(
        "[tls]\nlisten = '127.0.0.1:0'\ncert_file = '{0}'\nkey_file = '{1}'
        [upstreams.'quay.io']\nca_file = '{0}/no'\nusername = 'u'\npassword_file = '{0}'",
        file.display(),
        dir.path().display(),
    ));
    let faults = config.check_files().expect_err("missing");
    let keys: Vec<_> = faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["tls.key_file", "upstreams.\"quay.io\".ca_file"]);
}

#[test]
fn a_fault_in_a_file_says_which_file() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("layby.toml");
    std::fs::write(&file, "\nofline = true\n").expect("written");
    let shown = |path: &Path| match Config::load(Some(path), &Overrides::default()) {
        Ok(_) => panic!("taken"),
        Err(faults) => faults.to_string(),
    };
    let expected = format!(
        "{}:2: ofline: is not a key of Layby; did you mean offline?",
        file.display()
    );
    assert_eq!(shown(&file), expected);
    assert!(shown(&dir.path().join("none")).contains("cannot be read"));
}

#[test]
fn secrets_are_not_in_debug_output() {
    let config = good(
        "[upstreams.x]\nurl = 'http://x'\nusername = 'u'\npassword = 'hunter2'\nproxy = 'http://me:hunter2@p:1'",
    );
    assert!(!format!("{config:?}").contains("hunter2"));
    let warnings = config.warnings();
    assert!(
        warnings[0].contains("unencrypted to http://x/"),
        "{warnings:?}"
    );
    assert!(!warnings[0].contains("hunter2"));
}

#[test]
fn client_files_are_in_their_format() {
    for toml in [
        include_str!("../../config/clients/buildkit/buildkitd.toml"),
        include_str!("../../config/clients/containerd/docker.io/hosts.toml"),
        include_str!("../../config/clients/containerd/_default/hosts.toml"),
        include_str!("../../config/clients/podman/registries.conf"),
    ] {
        toml.parse::<toml::Table>().expect(toml);
        assert!(toml.contains("127.0.0.1:5000"));
    }
    let json = include_str!("../../config/clients/docker/daemon.json");
    let json: serde_json::Value = serde_json::from_str(json).expect(json);
    assert_eq!(json["registry-mirrors"][0], "http://127.0.0.1:5000");
}

#[test]
fn pins_are_patterns_or_digests_of_known_upstreams() {
    let app =
        "ghcr.io/org/app@sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let config = good(&format!(
        "[cache]\npin = ['docker.io/library/*:*', '{app}']"
    ));
    let pins: Vec<String> = config.cache.pins.iter().map(ToString::to_string).collect();
    assert_eq!(pins, ["docker.io/library/*:*", app]);
    assert_eq!(good("[cache]\npin = 'docker.io/**'").cache.pins.len(), 1);
    for (pin, said) in [
        ("alpine", "names no upstream and repository"),
        ("dokcer.io/library/*", "did you mean docker.io?"),
        ("docker.io/alpine", "write docker.io/library/alpine"),
        (
            "docker.io/library/a@sha256:00",
            "names no image by its digest",
        ),
        (
            &app.replace("ghcr.io", "ghcr.oi"),
            "is not an upstream's key",
        ),
    ] {
        let found = faults(&format!("[cache]\npin = ['{pin}']"));
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{pin}: {found:?}"
        );
        assert!(found[0].starts_with("line 2: cache.pin: "), "{found:?}");
    }
}
