//! Flags, environment and files.

use super::*;

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
