//! Texts as people and tools write them.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn variable(name: &str) -> Option<String> {
    let known = [
        ("TAG", "1.2"),
        ("EMPTY", ""),
        ("REG", "ghcr.io"),
        ("TARGETARCH", "arm64"),
    ];
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| (*value).to_owned())
}

fn try_read(name: &str, text: &str) -> Result<Found, ListError> {
    let given = Given {
        environment: &variable,
        arguments: &variable,
    };
    read(text, name, None, &given)
}

#[track_caller]
fn images(name: &str, text: &str) -> Vec<String> {
    try_read(name, text)
        .unwrap_or_else(|error| panic!("{error} in\n{text}"))
        .images
}

#[track_caller]
fn fault(name: &str, text: &str) -> String {
    match try_read(name, text) {
        Ok(found) => panic!("{found:?} of\n{text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_plain_list_has_an_image_per_line_and_comments() {
    let text = "\u{feff}# for tonight\nalpine:3.20\r\n\n  ghcr.io/org/app:v1  # ours\nalpine:3.20\n<none>:<none>\nlocalhost:5000/a@sha256:00\n";
    assert_eq!(
        images("-", text),
        [
            "alpine:3.20",
            "ghcr.io/org/app:v1",
            "localhost:5000/a@sha256:00"
        ]
    );
    let error = fault("list.txt", "alpine\n\nfrom somewhere else\n");
    assert!(error.starts_with("line 3: "), "{error}");
}

#[test]
fn tables_of_tools_are_read_by_their_columns() {
    let docker = "\
REPOSITORY          TAG       IMAGE ID       CREATED        SIZE
alpine              3.20      91ef0af61f39   2 months ago   7.8MB
ghcr.io/org/app     <none>    0a1b2c3d4e5f   3 days ago     70MB
ghcr.io/org/app     v1        0a1b2c3d4e5f   3 days ago     70MB
";
    assert_eq!(images("-", docker), ["alpine:3.20", "ghcr.io/org/app:v1"]);
    assert_eq!(try_read("-", docker).unwrap().notes.len(), 1);
    let ps = "\
CONTAINER ID   IMAGE          COMMAND                  CREATED
4c01db0b339c   nginx:1.27     \"/docker-entrypoint.…\"   2 hours ago
";
    assert_eq!(images("-", ps), ["nginx:1.27"]);
    let crictl = "\
IMAGE                              TAG       IMAGE ID        SIZE
registry.k8s.io/pause              3.10      873ed75102791   320kB
";
    assert_eq!(images("-", crictl), ["registry.k8s.io/pause:3.10"]);
    let ctr = "\
REF                             TYPE                                 DIGEST      SIZE    PLATFORMS
docker.io/library/alpine:3.20   application/vnd.oci.image.index.v1   sha256:1e4  3.5 MiB linux/amd64
sha256:0123                     application/vnd.oci.image.index.v1   sha256:1e4  3.5 MiB linux/amd64
";
    assert_eq!(images("-", ctr), ["docker.io/library/alpine:3.20"]);
}

#[test]
fn what_tools_tell_as_json_is_understood() {
    let crictl = r#"{"images": [
        {"id": "sha256:1", "repoTags": ["registry.k8s.io/pause:3.10"], "repoDigests": ["registry.k8s.io/pause@sha256:ee"]},
        {"id": "sha256:2", "repoTags": [], "repoDigests": ["ghcr.io/org/app@sha256:dd"]}]}"#;
    let named = ["registry.k8s.io/pause:3.10", "ghcr.io/org/app@sha256:dd"];
    assert_eq!(images("-", crictl), named);
    let docker =
        "{\"Repository\":\"alpine\",\"Tag\":\"3.20\"}\n{\"Repository\":\"x\",\"Tag\":\"<none>\"}\n";
    assert_eq!(images("-", docker), ["alpine:3.20"]);
    let ps = r#"{"Command":"sh","Image":"nginx:1","Names":"web"}"#;
    assert_eq!(images("-", ps), ["nginx:1"]);
    let inspect = r#"[{"Id": "sha256:1", "RepoTags": ["alpine:3.20", "alpine:3"]}]"#;
    assert_eq!(images("-", inspect), ["alpine:3.20", "alpine:3"]);
    let pods = r#"{"apiVersion":"v1","kind":"List","items":[{"kind":"Pod","spec":{
        "containers":[{"name":"a","image":"a:1"}],"initContainers":[{"image":"i:1"}],
        "ephemeralContainers":[{"image":"e:1"}],"volumes":[{"image":{"reference":"v:1"}}]},
        "status":{"containerStatuses":[{"image":"docker.io/library/a:1"}]}}]}"#;
    let mut found = images("-", pods);
    found.sort();
    assert_eq!(found, ["a:1", "e:1", "i:1", "v:1"]);
}

#[test]
fn images_are_found_in_every_object_of_kubernetes() {
    let text = r#"
apiVersion: batch/v1
kind: CronJob
spec:
  jobTemplate:
    spec:
      template:
        spec:
          containers:
          - name: job
            image: "org/job:1"
---
# rendered by helm
---
apiVersion: argoproj.io/v1
kind: Rollout
spec:
  template:
    spec: &pod
      initContainers: [{name: init, image: busybox}]
      containers:
        - {name: main, image: 'ghcr.io/org/app@sha256:aa'}
        - {name: none}
---
apiVersion: v1
kind: Pod
spec:
  containers: []
"#;
    assert_eq!(
        images("all.yaml", text),
        ["org/job:1", "busybox", "ghcr.io/org/app@sha256:aa"]
    );
    let template = "spec:\n  containers:\n  - image: {{ .Values.image }}\n";
    let error = fault("pod.yaml", template);
    assert!(
        error.contains("line 3") && error.contains("helm template"),
        "{error}"
    );
    let error = fault("pod.yaml", "containers:\n- image: 'a b'\n");
    assert!(error.starts_with("line 2: "), "{error}");
}

#[test]
fn a_compose_file_names_the_images_of_its_services() {
    let text = r"
x-common: &common
  image: ${REG:-docker.io}/org/common:${TAG}
services:
  web:
    <<: *common
  db:
    image: postgres:${PG_VERSION:-16}${EMPTY-x}
    volumes:
      - {type: image, source: org/seed, target: /seed}
      - data:/var/lib
  built:
    build: {context: ./app, dockerfile: Dockerfile.prod}
    image: ours:latest
  again:
    extends: {service: db}
volumes:
  data: {}
";
    let found = try_read("deploy/compose.yaml", text).unwrap();
    assert_eq!(
        found.images,
        ["ghcr.io/org/common:1.2", "org/seed", "postgres:16"]
    );
    assert!(
        found.notes[0].contains("./app/Dockerfile.prod"),
        "{found:?}"
    );
    let error = fault("compose.yml", "services:\n  a:\n    image: x:${NO_SUCH}\n");
    assert!(error.starts_with("line 3: NO_SUCH has no value"), "{error}");
    let error = fault("-", "services:\n  a:\n    image: x:${NO_SUCH:?say which}\n");
    assert!(error.contains("say which"), "{error}");
}

#[test]
fn merges_of_merges_are_looked_through_once() {
    let mut text = "x-0: &m0 {a: b}\n".to_owned();
    for number in 1..15 {
        let below = format!("*m{}", number - 1);
        let many = vec![below; 20].join(", ");
        writeln!(text, "x-{number}: &m{number} {{<<: [{many}]}}").unwrap();
    }
    text.push_str("x-first: &first {image: first}\nx-last: &last {image: last}\n");
    text.push_str("services:\n  none: {<<: *m14}\n  one: {<<: [*m14, *first, *last]}\n");
    assert_eq!(images("compose.yaml", &text), ["first"]);
}

#[test]
fn a_dockerfile_names_what_its_build_pulls() {
    let text = r#"# syntax=docker/dockerfile:1.7
# escape=`
ARG BASE=alpine `
    TAG="3.19" UNUSED
FROM --platform=$BUILDPLATFORM golang:1.23-${BASE} AS Build
ARG BASE=other
RUN --mount=type=bind,from=org/tools,target=/t --mount=type=cache,target=/c <<EOF
FROM nothing:here
COPY --from=neither /x /x
EOF
FROM build AS test
FROM ${BASE}:${TAG} as base-arm64
COPY --from=0 /a /a
COPY --from=build /a /a
copy --from=ghcr.io/org/certs:v1 `
  # a comment between
  /certs /certs
FROM base-${TARGETARCH}
FROM scratch
"#;
    assert_eq!(
        images("build/Dockerfile.prod", text),
        [
            "docker/dockerfile:1.7",
            "golang:1.23-alpine",
            "org/tools",
            "alpine:1.2",
            "ghcr.io/org/certs:v1"
        ]
    );
    let piped = images("-", "FROM alpine:3.20\n");
    assert_eq!(piped, ["alpine:3.20"]);
    for (text, says) in [
        (
            "ARG V\nFROM alpine:$V\n",
            "line 2: V has no value; give it a value with --build-arg",
        ),
        ("FROM alpine AS\n", "line 1: "),
        ("RUN x\n", "a Dockerfile has a FROM"),
        (
            "FROM a\nRUN <<E\nx\n",
            "line 2: what begins with <<E does not end",
        ),
        ("FROM a\nFORM b\n", "line 2: \"FORM\" is no instruction"),
    ] {
        let error = fault("Dockerfile", text);
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn aliases_multiply_nothing_and_depth_has_an_end() {
    let mut laughs = "a: &a0 [{containers: [{image: 'x:1'}]}]\n".to_owned();
    for level in 1..60 {
        let before = level - 1;
        let _ = writeln!(
            laughs,
            "b{level}: &a{level} [*a{before}, *a{before}, *a{before}]"
        );
    }
    assert_eq!(images("x.yaml", &laughs), ["x:1"]);
    for deep in ["[".repeat(10_000), "- ".repeat(10_000)] {
        assert!(!fault("x.yaml", &deep).is_empty());
    }
    let mut chain = "a: &a0 [x]\n".to_owned();
    for level in 1..1000 {
        let _ = writeln!(chain, "b{level}: &a{level} [*a{}]", level - 1);
    }
    let error = fault("x.yaml", &chain);
    assert!(error.contains("deeper"), "{error}");
    let error = fault("x.yaml", "a: &a [*a]\n");
    assert!(error.contains("part of"), "{error}");
}

proptest! {
    #[test]
    fn whatever_is_read_is_a_list_or_an_error(text in "(?s).{0,200}", kind in 0..5_usize) {
        let kinds = [
            None,
            Some(Kind::List),
            Some(Kind::Compose),
            Some(Kind::Kubernetes),
            Some(Kind::Dockerfile),
        ];
        let given = Given { environment: &variable, arguments: &variable };
        if let Ok(found) = read(&text, "-", kinds[kind], &given) {
            for image in found.images {
                prop_assert!(!image.is_empty() && !image.contains(char::is_whitespace));
            }
        }
    }

    #[test]
    fn every_image_of_a_list_is_found_once_in_its_order(
        names in prop::collection::vec(
            "[a-z][a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}(:[a-z0-9.]{1,6})?",
            0..20,
        ),
    ) {
        let mut once = Vec::new();
        for name in &names {
            if !once.contains(name) {
                once.push(name.clone());
            }
        }
        let (mut text, mut pods) = (String::new(), String::new());
        for name in &names {
            let _ = writeln!(text, "{name}  # why");
            let _ = writeln!(pods, "---\nspec:\n  containers:\n  - image: '{name}'");
        }
        prop_assert_eq!(images("images.txt", &text), once.clone());
        prop_assert_eq!(images("pods.yaml", &pods), once);
    }
}
