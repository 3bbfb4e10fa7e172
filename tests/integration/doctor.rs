//! `layby setup --check`: what is wrong, in plain words, and never a secret.

use std::path::Path;

use serde_json::Value;

use crate::admin::{Ran, run};
use crate::fake::{Fake, Rule};
use crate::support::{Program, Setup};

/// Built-in registries, which are turned off here, since nobody is to be asked but the fakes.
const BUILT_IN: [&str; 15] = [
    "cgr.dev",
    "docker.elastic.co",
    "gcr.io",
    "ghcr.io",
    "k8s.gcr.io",
    "lscr.io",
    "mcr.microsoft.com",
    "mirror.gcr.io",
    "nvcr.io",
    "public.ecr.aws",
    "quay.io",
    "registry.access.redhat.com",
    "registry.gitlab.com",
    "registry.k8s.io",
    "registry.redhat.io",
];

/// Checks with Docker Hub at `url`, on a machine that has no client.
async fn check(scratch: &Path, head: &str, url: &str, tail: &str, more: &[&str]) -> Ran {
    let data = scratch.join("data");
    std::fs::create_dir_all(&data).expect("a folder");
    let off: Vec<String> = BUILT_IN
        .iter()
        .map(|name| format!("[upstreams.\"{name}\"]\nallow = []\n"))
        .collect();
    let text = format!(
        "data_dir = \"{}\"\n{head}\n[cache]\nmin_free = \"0B\"\n{}[upstreams.\"docker.io\"]\nurl = \"{url}\"\n{tail}",
        data.display(),
        off.concat()
    );
    let config = scratch.join("check.toml");
    std::fs::write(&config, text).expect("written");
    let root = scratch.join("root");
    std::fs::create_dir_all(&root).expect("a folder");
    let (config, root) = (config.display().to_string(), root.display().to_string());
    let mut arguments = vec!["setup", "--check", "--config", &config, "--root", &root];
    arguments.extend(more);
    run(&arguments).await
}

/// Nobody listens there.
const NOWHERE: &str = "listen = \"127.0.0.1:1\"\n[admin]\nlisten = \"none\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_layby_that_serves_and_pulls_is_well() {
    let fake = Fake::start().await;
    let scratch = tempfile::tempdir().expect("a folder");
    let program = Program::start(&Setup::over(&fake), scratch.path()).await;
    let head = format!(
        "listen = \"{}\"\n[admin]\nlisten = \"{}\"",
        program.address(),
        program.admin()
    );
    let ran = check(scratch.path(), &head, &fake.origin(), "", &[])
        .await
        .expect(0);
    for line in [
        format!(
            "ok    mirror: http://{} answers, and is a Layby\n",
            program.address()
        ),
        format!(
            "ok    readiness: http://{}/readyz says ready\n",
            program.admin()
        ),
        format!(
            "ok    upstream docker.io: {}/v2/ answers, and wants no login there\n",
            fake.origin()
        ),
    ] {
        assert!(ran.out.contains(&line), "{line} in {}", ran.out);
    }
    assert!(!ran.out.contains("FAIL"), "{}", ran.out);
    assert!(!ran.out.contains("quay.io"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_with_what_to_do_and_without_the_password() {
    let fake = Fake::start().await;
    let wall = Rule::path("/v2/").error(401, "UNAUTHORIZED");
    fake.script(wall.header("www-authenticate", "Basic realm=\"r\""));
    let scratch = tempfile::tempdir().expect("a folder");
    let tail = "username = \"robot\"\npassword = \"s3cr3t-w0rd\"\n\
                [upstreams.\"gone.test\"]\nurl = \"http://127.0.0.1:1\"\n";
    let ran = check(scratch.path(), NOWHERE, &fake.origin(), tail, &["--json"])
        .await
        .expect(1);
    assert!(
        !ran.out.contains("s3cr3t") && !ran.err.contains("s3cr3t"),
        "{ran:#?}"
    );
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let finding = |what: &str| {
        let findings = report["findings"].as_array().expect("findings");
        let found = findings.iter().find(|finding| finding["what"] == what);
        found
            .unwrap_or_else(|| panic!("{what} in {report}"))
            .clone()
    };
    for (what, found, advice) in [
        ("mirror", "does not answer", "layby serve"),
        ("upstream docker.io", "refuse", "user and password"),
        ("upstream gone.test", "cannot be reached", "firewall"),
    ] {
        let finding = finding(what);
        assert_eq!(finding["verdict"], "fail", "{finding}");
        let says = |key: &str, word: &str| {
            finding[key]
                .as_str()
                .is_some_and(|text| text.contains(word))
        };
        assert!(says("found", found) && says("advice", advice), "{finding}");
    }
    assert_eq!(finding("configuration")["verdict"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_at_the_mirrors_address_is_told_apart() {
    let fake = Fake::start().await;
    let scratch = tempfile::tempdir().expect("a folder");
    let more = ["--mirror", &fake.origin()];
    let ran = check(scratch.path(), NOWHERE, &fake.origin(), "", &more)
        .await
        .expect(1);
    assert!(ran.out.contains("not like a Layby"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_no_upstream_is_asked() {
    let fake = Fake::start().await;
    let scratch = tempfile::tempdir().expect("a folder");
    let head = format!("offline = true\n{NOWHERE}");
    let ran = check(scratch.path(), &head, &fake.origin(), "", &[])
        .await
        .expect(1);
    assert!(
        ran.out.contains("warn  upstreams: offline is set"),
        "{}",
        ran.out
    );
    assert!(fake.record().all().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_is_all_that_is_told() {
    let fake = Fake::start().await;
    let scratch = tempfile::tempdir().expect("a folder");
    let ran = check(scratch.path(), "lisen = 1", &fake.origin(), "", &[])
        .await
        .expect(1);
    assert!(ran.out.starts_with("FAIL  configuration: "), "{}", ran.out);
    assert!(
        ran.out.contains("did you mean listen?") || ran.out.contains("listen"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("upstream docker.io"), "{}", ran.out);
}
