//! The main job, as the README says it.

use serde_json::json;

use crate::cast::Cast;
use crate::kit::{micros, orien, run, run_json};

#[test]
fn the_demo_builds_downloads_runs_settles_and_audits() {
    let output = orien().args(["demo", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["audit"]["findings"], json!([]));
    assert!(summary["receipts"].as_array().unwrap().len() >= 2);
    let settled = &summary["settlement"];
    assert!(micros(&settled["totalCost"]) > 0);
    assert_eq!(
        micros(&settled["providerPayout"]) + micros(&settled["platformFee"]) + micros(&settled["reserve"]),
        micros(&settled["totalCost"])
    );
}

#[test]
fn four_processes_that_know_only_a_bootstrap_address_do_the_main_job() {
    let cast = Cast::small();
    let session = cast.open("1");
    let door = cast.gateway();
    let stored = door.put(&format!("/api/sessions/{session}/files/notes/text.txt"), b"one two\nthree\n").ok();
    assert_eq!(stored["size"], 14);
    let run = cast.start_run(&session, "count_words", json!({ "input_file": "/workspace/notes/text.txt" }));
    let lines = door.log(&run);
    assert!(lines.iter().any(|line| line.split_whitespace().take(3).eq(["2", "3", "14"])), "{lines:?}");
    let done = cast.ended(&run);
    assert_eq!((done["status"].as_str(), done["exitCode"].as_i64()), (Some("completed"), Some(0)), "{done}");
    let (status, bytes) = door.download(&format!("/api/sessions/{session}/files/notes/text.txt"));
    assert_eq!((status, bytes.as_slice()), (200, b"one two\nthree\n".as_slice()));
    let ended = cast.end(&session);
    assert_eq!(ended["status"], "completed", "{ended}");
    let settled = cast.settled(&session);
    assert_eq!(micros(&settled["totalCost"]), micros(&ended["budgetConsumed"]));

    // Whoever paid can show why, with nothing but a file.
    let (status, bytes) = door.download(&format!("/api/sessions/{session}/evidence"));
    assert_eq!(status, 200);
    let text = String::from_utf8(bytes).unwrap();
    let file = cast.root.path().join("session.json");
    std::fs::write(&file, &text).unwrap();
    let report = run_json(&["audit", file.to_str().unwrap(), "--network", cast.network.to_str().unwrap(), "--json"]);
    assert_eq!((&report["findings"], &report["networkCompared"], &report["notes"]), (&json!([]), &json!(true), &json!([])), "{report}");
    assert_eq!((&report["totalCost"], &report["closedAt"]), (&settled["totalCost"], &settled["totalCost"]));
    std::fs::write(&file, text.replacen("\"effectiveMs\":", "\"effectiveMs\":1", 1)).unwrap();
    let forged = crate::kit::run(&["audit", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&forged.stdout).into_owned();
    assert!(forged.status.code() == Some(1) && said.contains(".effectiveMs: the file says 1"), "{said}");

    // Anyone can check the settlement too: the evidence alone gives the same sums.
    let folder = cast.settlement.folder.to_str().unwrap();
    let batches = run_json(&["settlement", "batches", "--json", "--data-dir", folder]);
    let id = batches["batches"][0]["id"].as_str().unwrap();
    let evidence = run_json(&["settlement", "batches", id, "--json", "--data-dir", folder]);
    let file = cast.root.path().join("batch.json");
    std::fs::write(&file, evidence.to_string()).unwrap();
    let report = run_json(&["audit", file.to_str().unwrap(), "--network", cast.network.to_str().unwrap(), "--json"]);
    assert_eq!((&report["findings"], &report["networkCompared"]), (&json!([]), &json!(true)));
    // And a changed amount is found.
    let forged = evidence.to_string().replacen(settled["totalCost"].as_str().unwrap(), "0.5", 1);
    std::fs::write(&file, forged).unwrap();
    assert_eq!(run_code(&["audit", file.to_str().unwrap()]), Some(1));
}

fn run_code(arguments: &[&str]) -> Option<i32> {
    run(arguments).status.code()
}

#[test]
fn the_owners_configuration_loads_and_absent_programs_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("provider-config.json");
    let text = r#"{"providerId":"provider_xyz","tools":[{"id":"run_build","command":"npm run build","workspaceRequired":true,"maxDuration":300,"resourceLimits":{"cpu":"2","memory":"4GB"}},{"id":"render_scene","name":"Render 3D Scene","command":"blender --background --python /scripts/render.py","maxDurationSeconds":600,"args":["scene_file","output_path"]}]}"#;
    std::fs::write(&file, text).unwrap();
    let report = run_json(&["tools", "check", file.to_str().unwrap(), "--json"]);
    let tools = report["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 2, "{report}");
    for tool in tools {
        assert_eq!((&tool["limits"]["cpu"], &tool["limits"]["memory"]), (&json!("2"), &json!("4 GB")), "{tool}");
    }
    let shown = String::from_utf8(run(&["tools", "check", file.to_str().unwrap()]).stdout).unwrap();
    assert!(shown.contains("run_build") && shown.contains("300 s"), "{shown}");
    assert!(shown.contains("render_scene") && shown.contains("blender"), "the missing program is named: {shown}");
}

#[test]
fn every_fault_of_a_configuration_is_shown_at_once_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.json");
    let text = "{\n  \"providerId\": \"x\",\n  \"pricePerMinute\": -1,\n  \"tools\": [\n    { \"id\": \"a\", \"command\": \"ls | wc\", \"maxDuration\": 0 },\n    { \"id\": \"a\", \"comand\": \"ls\" }\n  ]\n}\n";
    std::fs::write(&file, text).unwrap();
    let output = run(&["tools", "check", file.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(78));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: std::collections::BTreeSet<u64> =
        report["faults"].as_array().unwrap().iter().map(|fault| fault["line"].as_u64().unwrap()).collect();
    assert!(lines.is_superset(&[3, 5, 6].into()), "{report}");
}
