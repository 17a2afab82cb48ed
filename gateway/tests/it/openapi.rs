//! The description of the API says what is there: every route, and nothing else.
//!
//! `docs/openapi.json` is the same document for people and generators; `ORIEN_REFRESH=1 cargo test -p orien-gateway --test it openapi` writes it anew.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::world::World;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "head"];

/// An operation: its path, its method, and what is said of it.
fn operations(api: &Value) -> Vec<(String, String, Value)> {
    let paths = api["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| -> Vec<_> {
        let known = item.as_object().unwrap().iter().filter(|(method, _)| METHODS.contains(&method.as_str()));
        known.map(|(method, operation)| (path.clone(), method.clone(), operation.clone())).collect()
    };
    paths.iter().flat_map(of).collect()
}

/// The path with something in place of its variables: what is there if the description gives an example.
fn concrete(path: &str, operation: &Value) -> String {
    let mut path = path.to_owned();
    for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|parameter| parameter["in"] == "path") {
        let example = parameter["example"].as_str().unwrap_or("nothing");
        path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), example);
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn every_described_route_is_there_and_the_snapshot_is_what_is_served() {
    let world = World::new().await;
    let client = world.client();
    let served = client.get("/openapi.json").await;
    let api = served.ok(200);
    let operations = operations(&api);
    assert!(operations.len() > 25, "{}", operations.len());
    for (path, method, operation) in &operations {
        let concrete = concrete(path, operation);
        assert!(!concrete.contains('{'), "{method} {path} has a variable that is not described");
        let answer = client.send(&method.to_uppercase(), &concrete, "", b"").await;
        let code =
            if answer.status == 404 && method != "head" { answer.json()["code"].as_str().unwrap().to_owned() } else { String::new() };
        assert!(answer.status != 405 && code != "not_found", "{method} {path} is described and not there: {}", answer.text());
        let described = operation["responses"].as_object().unwrap();
        assert!(described.contains_key(&answer.status.to_string()), "{method} {path} answers {}, which is not described", answer.status);
    }
    for path in operations.iter().map(|(path, _, operation)| concrete(path, operation)).collect::<BTreeSet<_>>() {
        assert_eq!(client.send("PATCH", &path, "", b"").await.problem(405, "method_not_allowed")["instance"], path.as_str());
    }

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&api).unwrap());
    if std::env::var_os("ORIEN_REFRESH").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == text,
        "docs/openapi.json is not what is served; write it with: ORIEN_REFRESH=1 cargo test -p orien-gateway --test it openapi"
    );
    well_described(&api, &operations);
    world.close().await;
}

/// What a reader may rely on in every part of the document.
fn well_described(api: &Value, operations: &[(String, String, Value)]) {
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations {
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}: two operations have one id");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what} does not say what it does");
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{what} has no tag of its own");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with(['2', '3'])), "{what} never succeeds");
        for (status, response) in responses.iter().filter(|(status, _)| status.starts_with(['4', '5'])) {
            if response["content"]["text/html"].is_object() {
                continue; // A page for somebody who followed a link.
            }
            assert!(response["content"]["application/problem+json"]["schema"].is_object(), "{what} {status} is no problem");
            assert!(response["description"].as_str().unwrap().contains('`'), "{what} {status} names no code");
        }
    }
    let mut wanted = Vec::new();
    references(api, &mut wanted);
    for name in wanted {
        let pointer = name.trim_start_matches('#');
        assert!(api.pointer(pointer).is_some(), "{name} is not there");
    }
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|part| references(part, found));
        }
        Value::Array(items) => items.iter().for_each(|part| references(part, found)),
        _ => {}
    }
}

/// Where a route may be mounted without being described: each speaks a protocol of its own, or is no route of the API.
const UNDESCRIBED: &[&str] = &["mcp"];

#[test]
fn no_route_is_mounted_without_its_description() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    let (mut faults, mut files) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if UNDESCRIBED.iter().any(|known| name == *known || name == format!("{known}.rs")) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for mounting in [".route(", ".route_service(", ".nest_service(", ".fallback("] {
                if text.contains(mounting) {
                    faults.push(format!("{name} mounts with {mounting}; use .routes(routes!(..))"));
                }
            }
        }
    }
    assert!(files > 10 && faults.is_empty(), "{faults:?}");
}
