//! Who may log in, and where.

use super::*;

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
