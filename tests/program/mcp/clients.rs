//! The Python and TypeScript clients, in both eras of the protocol, over HTTP and over standard input and output.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Dev, script, told};
use crate::clients::client;
use crate::kit::micros;

/// Protocols that a client agrees on when it may choose, and when it may not.
const ERAS: [(&str, &str); 2] = [("auto", "2026-07-28"), ("legacy", "2025-11-25")];

/// Runs the whole job with a client, in every era and over every transport at once.
fn whole_job(dev: &Dev, client: &Path, job: &str) {
    let http = ["http".to_owned(), dev.url("/mcp"), dev.token_file()];
    let stdio: Vec<String> = std::iter::once("stdio".to_owned()).chain(dev.stdio(&[])).collect();
    let ways: Vec<(&str, &str, &[String])> =
        ERAS.iter().flat_map(|(mode, protocol)| [(*mode, *protocol, &http[..]), (*mode, *protocol, &stdio[..])]).collect();
    let jobs: Vec<Value> = std::thread::scope(|scope| {
        let run = |(mode, _, way): &(&str, &str, &[String])| {
            let mut command = Command::new(client);
            command.arg(job).arg(mode).args(*way).env("NODE_NO_WARNINGS", "1");
            scope.spawn(move || told(&mut command))
        };
        let running: Vec<_> = ways.iter().map(run).collect();
        running.into_iter().map(|job| job.join().unwrap()).collect()
    });
    for ((mode, protocol, way), job) in ways.iter().zip(&jobs) {
        assert_eq!((job["protocol"].as_str(), job["server"].as_str()), (Some(*protocol), Some("orien")), "{mode} {}: {job}", way[0]);
        check_money(dev, job);
    }
}

/// What the client was told is what the gateway knows: the cost of the session, and that of the run that was given up.
fn check_money(dev: &Dev, job: &Value) {
    let session = dev.door().get(&format!("/api/sessions/{}", job["session"].as_str().unwrap())).ok();
    assert_eq!(session["status"], "completed", "{session}");
    assert_eq!(micros(&session["settlement"]["totalCost"]), micros(&job["cost"]), "{session}");
    let cancelled = session["executions"].as_array().unwrap().iter().find(|run| run["endReason"] == "cancelled" && run["toolId"] == "wait");
    let cost = micros(&cancelled.unwrap()["cost"]);
    // Two seconds of two minutes at 0.06 USDC per minute, with room for a slow machine.
    assert!((1_000..8_000).contains(&cost), "{cancelled:?}");
    let broke = dev.door().get(&format!("/api/sessions/{}", job["broke"].as_str().unwrap())).ok();
    assert!(micros(&broke["budgetConsumed"]) <= micros(&broke["budgetAllowance"]), "{broke}");
    assert!(broke["executions"].as_array().unwrap().iter().any(|run| run["endReason"] == "budget_reached"), "{broke}");
}

#[test]
fn the_python_client_does_the_whole_job() {
    let Some(python) = client("python/bin/python") else { return };
    whole_job(&Dev::start(&[]), &python, &script("python/job.py"));
}

#[test]
fn the_typescript_client_does_the_whole_job() {
    let (Some(node), Some(modules)) = (client("typescript/bin/node"), client("typescript/node_modules")) else { return };
    let folder = tempfile::tempdir().unwrap();
    // Node looks for packages beside the program, not where it is started.
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).unwrap();
    let job = folder.path().join("job.mts");
    std::fs::copy(script("typescript/job.mts"), &job).unwrap();
    whole_job(&Dev::start(&[]), &node, job.to_str().unwrap());
}

#[test]
fn above_the_threshold_the_user_is_asked_and_a_host_that_cannot_ask_is_refused() {
    let Some(python) = client("python/bin/python") else { return };
    let dev = Dev::start(&["--approve-above", "1"]);
    for (mode, _) in ERAS {
        let asked = told(Command::new(&python).args([&script("python/approve.py"), mode, &dev.url("/mcp"), &dev.token_file()]));
        assert_eq!(asked["asked"].as_array().map(Vec::len), Some(4), "{asked}");
    }
    // Only what was agreed to was opened: two sessions for each era, none of those that were declined.
    let sessions = dev.door().get("/api/sessions").ok();
    assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(4), "{sessions}");
}
