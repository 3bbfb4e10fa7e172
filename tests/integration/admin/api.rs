use super::*;
use crate::support::{Reply, Request};

async fn ask(scene: &Scene, method: &str, target: &str) -> Reply {
    let token = std::fs::read_to_string(scene.layby.data().join("admin.token")).expect("a token");
    // What follows a space is the body.
    let (target, body) = target.split_once(' ').unwrap_or((target, ""));
    let mut request =
        Request::new(method, target).header("authorization", &format!("Bearer {token}"));
    if !body.is_empty() {
        request = request.body(body);
    }
    request.send_to(scene.layby.admin()).await
}

/// Every operation of the description, asked for in a way that each of its answers comes about.
const ASKED: &[(&str, &str, u16)] = &[
    ("get", "/api/v1/images", 200),
    ("get", "/api/v1/images?n=1", 200),
    ("get", "/api/v1/images?n=x", 400),
    ("get", "/api/v1/image?name=org/app", 200),
    ("get", "/api/v1/image?name=org/none", 404),
    ("get", "/api/v1/image", 400),
    ("get", "/api/v1/statistics", 200),
    ("get", "/api/v1/statistics?x=1", 400),
    ("get", "/api/v1/pins", 200),
    ("post", "/api/v1/pins?name=org/web:v1", 200),
    ("post", "/api/v1/pins?name=*", 400),
    ("delete", "/api/v1/pins?name=org/web:v1", 200),
    ("delete", "/api/v1/pins?name=org/web:v1", 404),
    ("delete", "/api/v1/pins", 400),
    ("post", "/api/v1/gc?to=1000000&dry_run=true", 200),
    ("post", "/api/v1/gc", 200),
    ("post", "/api/v1/gc?to=much", 400),
    ("post", "/api/v1/refresh?name=org/app", 200),
    ("post", "/api/v1/refresh?name=org/none", 404),
    ("post", "/api/v1/refresh", 400),
    ("post", "/api/v1/verify", 200),
    ("post", "/api/v1/verify?name=a%20b", 400),
    ("post", WARM, 200),
    ("post", r#"/api/v1/warm {"images":[]}"#, 400),
    ("post", r#"/api/v1/warm {"images":["org/app"],"x":1}"#, 400),
    ("post", "/api/v1/warm", 400),
    ("post", "/api/v1/export", 400),
    ("post", "/api/v1/export?dry_run=true", 400),
    ("post", "/api/v1/import", 200),
    ("post", "/api/v1/import x", 200),
    (
        "post",
        r#"/api/v1/export?dry_run=true {"images":["org/web:v1"]}"#,
        200,
    ),
    (
        "post",
        r#"/api/v1/export?dry_run=true {"images":["org/none"]}"#,
        404,
    ),
    ("post", r#"/api/v1/export {"some":1}"#, 400),
    ("post", "/api/v1/import?name=A", 400),
    ("delete", "/api/v1/images?name=org/app&dry_run=true", 200),
    ("delete", "/api/v1/images?name=org/app", 200),
    ("delete", "/api/v1/images?name=org/app", 404),
    ("delete", "/api/v1/images", 400),
    ("get", "/api/v1/openapi.json", 200),
    ("get", "/api/v1/openapi.json?x=1", 400),
];

/// One image that is here, and one that is nowhere.
const WARM: &str = r#"/api/v1/warm {"images":["org/app","org/none"],"platforms":["all"]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_its_description_says() {
    let scene = Scene::new().await;
    std::fs::write(scene.layby.data().join("foreign"), "").expect("something to find");
    let document = ask(&scene, "GET", "/api/v1/openapi.json")
        .await
        .expect(200)
        .text();
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let mut left = operations(&document);
    for (method, target, status) in ASKED {
        let reply = ask(&scene, &method.to_uppercase(), target).await;
        assert_eq!(
            reply.status(),
            *status,
            "{method} {target}: {}",
            reply.text()
        );
        check(&document, method, target, &reply);
        left.remove(&format!("{method} {}", path(target)));
    }
    assert_eq!(left.into_iter().collect::<Vec<_>>(), Vec::<String>::new());
    let reply = ask(&scene, "POST", r#"/api/v1/export {"all":true}"#).await;
    assert_eq!(
        reply.expect(200).header("content-type"),
        Some("application/x-tar")
    );
    let denied = Request::get("/api/v1/images")
        .send_to(scene.layby.admin())
        .await;
    assert_eq!(denied.status(), 401);
    check(&document, "get", "/api/v1/images", &denied);
}

fn operations(document: &Value) -> std::collections::BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, operations): (&String, &Value)| {
        let methods: Vec<String> = operations
            .as_object()
            .expect("operations")
            .keys()
            .cloned()
            .collect();
        let path = path.clone();
        methods
            .into_iter()
            .map(move |method| format!("{method} {path}"))
    };
    paths.iter().flat_map(of).collect()
}

fn path(target: &str) -> &str {
    target.split(['?', ' ']).next().unwrap_or(target)
}

fn check(document: &Value, method: &str, target: &str, reply: &Reply) {
    let operation = &document["paths"][path(target)][method];
    let response = &operation["responses"][reply.status().to_string()];
    let content = response["content"].as_object();
    let content =
        content.unwrap_or_else(|| panic!("{method} {target} {}: not described", reply.status()));
    let media_type = reply.header("content-type").expect("a type");
    let described = content.get(media_type);
    let described =
        described.unwrap_or_else(|| panic!("{method} {target}: {media_type} is not described"));
    let text = reply.text();
    let values: Vec<Value> = match media_type {
        "application/x-ndjson" => text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line"))
            .collect(),
        _ => vec![serde_json::from_str(&text).expect("JSON")],
    };
    assert!(!values.is_empty());
    for value in values {
        let faults = schema::faults(document, &described["schema"], &value, target);
        assert_eq!(faults, Vec::<String>::new());
    }
}
