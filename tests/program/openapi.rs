//! The API against its own description, over real processes: whatever is thrown at it, and the pages that people read.
//!
//! The first test runs for `ORIEN_SCHEMATHESIS_SECONDS` (45 unless said) from the seed in `ORIEN_SCHEMATHESIS_SEED` (1 unless said).

use std::process::Command;

use serde_json::json;

use crate::cast::Cast;
use crate::clients::client;
use crate::kit::micros;

/// What every answer is held to.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,allow_header_conformance,unsupported_method,missing_required_header";

fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

#[test]
fn whatever_is_thrown_at_the_api_is_answered_as_its_description_says() {
    let Some(program) = client("python/bin/schemathesis") else { return };
    // Room for every session that it opens and never ends: what it finds full is no failure of the API.
    let mut cast = Cast::start();
    cast.add_node_with("\"sessions\": 8", "\"sessions\": 200");
    cast.add_gateway("10");
    let door = cast.gateway();
    let (open, ended) = (cast.open("2"), cast.open("1"));
    door.put(&format!("/api/sessions/{open}/files/notes.txt"), b"one two\n").ok();
    let run = cast.start_run(&open, "count_words", json!({ "input_file": "/workspace/notes.txt" }));
    cast.ended(&run);
    cast.end(&ended);
    let provider = Cast::providers(&door)[0]["id"].as_str().unwrap().to_owned();
    // Things that are there, so that not everything ends with 404. What ends a session, and what never ends by itself, gets the one that has ended.
    let hooks = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python/schemathesis_hooks.py");
    let config = format!(
        r#"hooks = "{hooks}"
[[operations]]
include-operation-id = ["endSession", "followSession"]
parameters = {{ "path.id" = "{ended}" }}
[[operations]]
include-path-regex = "^/api/sessions/.id."
parameters = {{ "path.id" = "{open}" }}
[[operations]]
include-path-regex = "^/(executions|logs)/.id."
parameters = {{ "path.id" = "{run}" }}
[[operations]]
include-path = "/api/providers/{{id}}"
parameters = {{ "path.id" = "{provider}" }}
[[operations]]
include-path-regex = "^/(executions|tools)$"
parameters = {{ "query.sessionId" = "{open}" }}
"#
    );
    let file = cast.root.path().join("schemathesis.toml");
    std::fs::write(&file, config).unwrap();
    let output = Command::new(program)
        .current_dir(cast.root.path())
        .args(["--config-file", file.to_str().unwrap(), "run", &format!("{}/openapi.json", door.base), "--no-color"])
        .args(["--header", &format!("Authorization: Bearer {}", door.token), "--checks", CHECKS])
        .args(["--max-time", &setting("ORIEN_SCHEMATHESIS_SECONDS", "45"), "--seed", &setting("ORIEN_SCHEMATHESIS_SEED", "1")])
        // A run may be waited for, for five minutes; nothing else takes so long.
        .args(["--request-timeout", "330", "--continue-on-failure"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let tested = said.lines().find_map(|line| line.trim().strip_suffix(" passed")?.split(" generated, ").next()?.parse::<u64>().ok());
    assert!(tested.is_some_and(|count| count > 500), "it has thrown nothing: {said}");
    let session = door.get(&format!("/api/sessions/{open}")).ok();
    assert_eq!(session["status"], "active", "most was thrown at a session that has ended: {session}");
    assert!(micros(&session["budgetConsumed"]) <= micros(&session["budgetAllowance"]), "{session}");
    assert_eq!(door.get("/health").ok()["status"], "ok");
}

#[test]
fn the_pages_of_the_description_work_in_a_browser_without_a_complaint_and_without_the_world_outside() {
    const CHROMIUM: &str = "/usr/bin/chromium";
    let Some(node) = client("typescript/bin/node") else { return };
    let Some(driver) = client("typescript/node_modules/playwright-core/package.json") else { return };
    let Some(_) = client(CHROMIUM) else { return };
    let cast = Cast::small();
    let door = cast.gateway();
    drop(cast.open("1"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/typescript/docs.mjs");
    let output = Command::new(node).args([script, driver.to_str().unwrap(), CHROMIUM, &door.base, &door.token]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("every operation is shown, and one was tried: 200"), "{said}");
}
