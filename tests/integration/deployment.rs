//! The files in `config/` that run Layby: each is read, and what it says is held against what the program takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Parser as _;
use layby::cli::Cli;
use layby::config::{Config, Overrides};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(name)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The one document of a YAML file.
fn yaml(path: &Path) -> Value {
    let text = text(path);
    let mut events = Parser::new_from_str(&text).map(|event| event.expect("valid YAML").0);
    let mut documents = Vec::new();
    while let Some(event) = events.next() {
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event => documents.push(value(event, &mut events)),
        }
    }
    assert_eq!(documents.len(), 1, "{}", path.display());
    documents.remove(0)
}

fn value<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() => Value::Null,
        Event::Scalar(text, ScalarStyle::Plain, ..) => match serde_json::from_str(&text) {
            Ok(number @ (Value::Number(_) | Value::Bool(_))) => number,
            _ => text.into(),
        },
        Event::Scalar(text, ..) => text.into(),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next().expect("an end") {
                    Event::SequenceEnd => return items.into(),
                    event => items.push(value(event, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Map::new();
            loop {
                match events.next().expect("an end") {
                    Event::MappingEnd => return entries.into(),
                    Event::Scalar(key, ..) => {
                        let event = events.next().expect("a value");
                        let old = entries.insert(key.to_string(), value(event, events));
                        assert_eq!(old, None, "{key} twice");
                    }
                    other => panic!("{other:?} for a key"),
                }
            }
        }
        other => panic!("{other:?}"),
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn strings(value: &Value) -> Vec<&str> {
    array(value).iter().filter_map(Value::as_str).collect()
}

/// The element of an array that has this name.
fn named<'a>(value: &'a Value, name: &str) -> &'a Value {
    let found = array(value).iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("{name} in {value}"))
}

fn config(path: &Path) -> Config {
    Config::from_toml(&text(path), &Overrides::default())
        .unwrap_or_else(|faults| panic!("{}: {faults}", path.display()))
}

/// A call of the program, which must be one that it takes; the file that it names as configuration.
fn configured_by(arguments: &[&str]) -> PathBuf {
    let call = ["layby"].iter().chain(arguments);
    Cli::try_parse_from(call).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    let at = arguments
        .iter()
        .position(|argument| *argument == "--config");
    arguments[at.expect("--config") + 1].into()
}

/// What is needed to end in good order: answers, then what is written after them.
fn to_stop(config: &Config) -> Duration {
    config.limits.shutdown_grace + Duration::from_secs(20)
}

#[test]
fn the_compose_file_starts_what_its_configuration_describes() {
    let folder = folder("compose");
    let service = &yaml(&folder.join("compose.yaml"))["services"]["layby"];
    let config = config(&folder.join("layby.toml"));
    let inside = configured_by(&strings(&service["command"]));
    let volumes = strings(&service["volumes"]);
    assert!(
        volumes.contains(&&*format!("./layby.toml:{}:ro", inside.display())),
        "{volumes:?}"
    );
    assert!(
        volumes.contains(&&*format!("cache:{}", config.data_dir.display())),
        "{volumes:?}"
    );
    let port = config.listen[0].port();
    assert_eq!(
        strings(&service["ports"]),
        [format!("127.0.0.1:{port}:{port}")]
    );
    assert!(config.listen[0].ip().is_unspecified());
    let grace = service["stop_grace_period"].as_str().unwrap_or_default();
    let grace: u64 = grace.trim_end_matches('s').parse().expect("seconds");
    assert!(Duration::from_secs(grace) >= to_stop(&config));
    let context = folder.join(service["build"].as_str().unwrap_or_default());
    assert!(context.join("Dockerfile").is_file());
    let dockerfile = text(&context.join("Dockerfile"));
    assert!(dockerfile.contains(&format!("VOLUME {}", config.data_dir.display())));
}

#[test]
fn kustomizations_name_the_files_that_are_there() {
    for variant in ["base", "daemonset", "statefulset"] {
        let folder = folder("kubernetes").join(variant);
        let kustomization = yaml(&folder.join("kustomization.yaml"));
        let mut named: Vec<String> = vec!["kustomization.yaml".to_owned()];
        for resource in strings(&kustomization["resources"]) {
            let path = folder.join(resource);
            assert!(path.exists_as(resource), "{variant}: {resource}");
            named.push(resource.to_owned());
        }
        for map in array(&kustomization["configMapGenerator"]) {
            named.extend(strings(&map["files"]).into_iter().map(str::to_owned));
        }
        for entry in fs::read_dir(&folder).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            let name = name.to_string_lossy().into_owned();
            assert!(named.contains(&name), "{variant}: nobody names {name}");
        }
        for image in array(&kustomization["images"]) {
            assert_eq!(image["newTag"], env!("CARGO_PKG_VERSION"));
        }
    }
}

/// A folder with a kustomization, or a file.
trait Resource {
    fn exists_as(&self, written: &str) -> bool;
}

impl Resource for PathBuf {
    fn exists_as(&self, written: &str) -> bool {
        if Path::new(written)
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            self.is_file()
        } else {
            self.join("kustomization.yaml").is_file()
        }
    }
}

#[test]
fn pods_run_what_their_configuration_describes() {
    let kubernetes = folder("kubernetes");
    let base = yaml(&kubernetes.join("base/kustomization.yaml"));
    let map = named(&base["configMapGenerator"], "layby");
    let file = strings(&map["files"])[0];
    let config = config(&kubernetes.join("base").join(file));
    for variant in ["daemonset", "statefulset"] {
        let folder = kubernetes.join(variant);
        let workload = yaml(&folder.join(format!("{variant}.yaml")));
        let spec = &workload["spec"];
        let pod = &spec["template"]["spec"];
        let container = named(&pod["containers"], "layby");
        let labels = &spec["template"]["metadata"]["labels"];
        assert_eq!(&spec["selector"]["matchLabels"], labels, "{variant}");

        let inside = configured_by(&strings(&container["args"]));
        let mounts = &container["volumeMounts"];
        let mounted = named(mounts, "config")["mountPath"]
            .as_str()
            .expect("a path");
        assert_eq!(inside, Path::new(mounted).join(file), "{variant}");
        assert_eq!(
            named(&pod["volumes"], "config")["configMap"]["name"],
            map["name"]
        );
        let data = named(mounts, "data")["mountPath"].as_str().expect("a path");
        assert_eq!(Path::new(data), config.data_dir, "{variant}");

        let port = |name: &str| named(&container["ports"], name)["containerPort"].as_u64();
        assert_eq!(port("registry"), Some(config.listen[0].port().into()));
        let admin = config.admin.listen.expect("an admin listener");
        assert_eq!(port("admin"), Some(admin.port().into()));
        assert!(admin.ip().is_unspecified() && config.listen[0].ip().is_unspecified());
        for (probe, path) in [
            ("livenessProbe", "/healthz"),
            ("readinessProbe", "/readyz"),
            ("startupProbe", "/healthz"),
        ] {
            let get = &container[probe]["httpGet"];
            assert_eq!(
                (&get["path"], &get["port"]),
                (&path.into(), &"admin".into()),
                "{variant}"
            );
        }
        let grace = pod["terminationGracePeriodSeconds"]
            .as_u64()
            .expect("seconds");
        assert!(Duration::from_secs(grace) >= to_stop(&config), "{variant}");
        let context = &container["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
        let kustomization = yaml(&folder.join("kustomization.yaml"));
        named(
            &kustomization["images"],
            container["image"].as_str().expect("an image"),
        );
    }
}

#[test]
fn the_daemonsets_port_is_the_nodes_alone_and_its_cache_outlives_the_pod() {
    let workload = yaml(&folder("kubernetes/daemonset/daemonset.yaml"));
    let pod = &workload["spec"]["template"]["spec"];
    let port = named(&named(&pod["containers"], "layby")["ports"], "registry");
    assert_eq!(
        (&port["hostPort"], &port["hostIP"]),
        (&5000.into(), &"127.0.0.1".into())
    );
    let data = named(&pod["volumes"], "data");
    assert_eq!(data["hostPath"]["type"], "DirectoryOrCreate");
}

#[test]
fn the_statefulset_is_found_by_its_service_and_has_a_volume_that_is_large_enough() {
    let folder = folder("kubernetes/statefulset");
    let workload = yaml(&folder.join("statefulset.yaml"));
    let (spec, service) = (&workload["spec"], yaml(&folder.join("service.yaml")));
    let policy = yaml(&folder.join("networkpolicy.yaml"));
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(spec["serviceName"], service["metadata"]["name"]);
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels);
    let container = named(&spec["template"]["spec"]["containers"], "layby");
    let ingress = array(&policy["spec"]["ingress"]).iter();
    let ports = ingress
        .flat_map(|rule| array(&rule["ports"]))
        .map(|port| &port["port"]);
    let ports = ports.chain([&service["spec"]["ports"][0]["targetPort"]]);
    for port in ports {
        named(&container["ports"], port.as_str().expect("a port's name"));
    }
    let claim = &spec["volumeClaimTemplates"][0];
    assert_eq!(claim["metadata"]["name"], "data");
    let size = claim["spec"]["resources"]["requests"]["storage"]
        .as_str()
        .expect("a size");
    let size: u64 = size.trim_end_matches("Gi").parse().expect("GiB");
    let most = config(&folder.join("../base/layby.toml"))
        .cache
        .max_size
        .expect("a limit");
    assert!(most <= size * (1 << 30) / 10 * 9, "room for min_free");
}

#[test]
fn kubectl_builds_both_variants() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        eprintln!("skipped, this machine lacks kubectl");
        return;
    }
    for variant in ["daemonset", "statefulset"] {
        let path = folder("kubernetes").join(variant);
        let output = Command::new("kubectl")
            .arg("kustomize")
            .arg(path)
            .output()
            .expect("kubectl");
        assert!(output.status.success(), "{output:?}");
        let built = String::from_utf8_lossy(&output.stdout);
        assert!(
            built.contains("name: layby-") && built.contains("layby.toml: |"),
            "{built}"
        );
    }
}

/// The value of a key in a unit.
fn setting<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("{key} in {unit}"))
}

#[test]
fn the_unit_calls_the_program_as_it_wants_to_be_called_and_lets_it_end() {
    let unit = text(&folder("systemd/layby.service"));
    let call: Vec<&str> = setting(&unit, "ExecStart").split(' ').collect();
    configured_by(&call[1..]);
    assert!(call.contains(&&*format!("/var/lib/{}", setting(&unit, "StateDirectory"))));
    assert_eq!(setting(&unit, "Type"), "notify");
    // What `layby serve` ends with for a configuration that cannot be used.
    assert_eq!(setting(&unit, "RestartPreventExitStatus"), "2");
    let stop: u64 = setting(&unit, "TimeoutStopSec")
        .trim_end_matches('s')
        .parse()
        .expect("seconds");
    let defaults = Config::from_toml("", &Overrides::default()).expect("defaults");
    assert!(Duration::from_secs(stop) >= to_stop(&defaults));
}

#[test]
fn systemd_takes_the_unit_and_finds_it_closed() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        assert!(
            std::env::var_os("LAYBY_REQUIRE_CLIENTS").is_none(),
            "this machine lacks systemd-analyze"
        );
        eprintln!("skipped, this machine lacks systemd-analyze");
        return;
    }
    let scratch = tempfile::tempdir().expect("a folder");
    let copy = scratch.path().join("layby.service");
    let unit = text(&folder("systemd/layby.service"));
    let program = env!("CARGO_BIN_EXE_layby");
    fs::write(&copy, unit.replace("/usr/local/bin/layby", program)).expect("written");
    for arguments in [
        &["verify", "--man=no"][..],
        &["security", "--offline=true", "--threshold=20"],
    ] {
        let mut analyze = Command::new("systemd-analyze");
        let output = analyze
            .args(arguments)
            .arg(&copy)
            .output()
            .expect("systemd-analyze");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        if arguments[0] == "verify" {
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
    }
}

#[test]
fn commands_in_comments_are_commands() {
    let mut found = 0;
    for file in files(&folder("")) {
        for line in text(&file).lines() {
            let Some(at) = line
                .find("layby setup ")
                .filter(|_| line.trim_start().starts_with('#'))
            else {
                continue;
            };
            let call = line[at..].split(['`', '\'']).next().unwrap_or_default();
            // Prose may go on after the command.
            let words = call.split_whitespace();
            let call: Vec<&str> = words
                .take_while(|word| !word.starts_with('(') && *word != "then")
                .collect();
            Cli::try_parse_from(&call).unwrap_or_else(|error| panic!("{call:?}: {error}"));
            found += 1;
        }
    }
    assert!(found >= 3, "{found}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}
