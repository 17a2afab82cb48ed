//! A command whose provider is lost in the middle of a run: it says so and ends, and what it had asked for is done when the provider is back.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cast::Cast;
use crate::kit::{PATIENCE, orien, wait_for};

/// A command of an agent that goes on, and where its standard error goes.
fn begin(cast: &Cast, name: &str, words: &[&str]) -> (Child, PathBuf) {
    let notes = cast.root.path().join(name);
    let mut command = orien();
    command.args(words).env("ORIEN_DATA_DIR", &cast.gateways[0].folder).current_dir(cast.root.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&notes).unwrap()).spawn().unwrap();
    (child, notes)
}

fn ended(child: &mut Child, what: &str) -> ExitStatus {
    wait_for(what, || child.try_wait().unwrap())
}

/// Waits until a run of the newest session is under way; the session and the run.
fn running(cast: &Cast) -> (String, String) {
    let door = cast.gateway();
    wait_for("a run", || {
        let newest = door.get("/api/sessions").ok()["sessions"].get(0)?["id"].as_str()?.to_owned();
        let session = door.get(&format!("/api/sessions/{newest}")).ok();
        let run = session["executions"].get(0).filter(|run| run["status"] == "running")?;
        Some((newest, run["executionId"].as_str()?.to_owned()))
    })
}

#[test]
fn a_command_that_follows_a_run_ends_when_the_run_is_given_up_with_its_provider() {
    let mut cast = Cast::small();
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let order = json!({ "providerId": "auto", "budgetAllowance": "0.5", "tools": ["wait"], "failover": true });
    let session = door.post("/api/sessions", &order).ok()["id"].as_str().unwrap().to_owned();
    let (mut child, notes) = begin(&cast, "run.txt", &["session", "run", &session, "wait", "seconds=100"]);
    let (_, run) = running(&cast);
    cast.nodes[0].kill();
    let status = ended(&mut child, "the end of the command");
    let notes = std::fs::read_to_string(notes).unwrap();
    assert_eq!(status.code(), Some(122), "{notes}");
    assert!(notes.contains("the provider cannot be reached; waiting for it"), "{notes}");
    assert!(
        notes.contains("(some output is missing here)") && notes.contains("the provider was lost while the run was under way"),
        "{notes}"
    );
    assert_eq!(cast.execution(&run)["outputTruncated"], true);
}

#[test]
fn one_interrupt_ends_a_command_whose_provider_is_lost_and_is_obeyed_when_it_is_back() {
    let mut cast = Cast::small();
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let (mut child, notes) = begin(&cast, "run.txt", &["run", "wait", "seconds=100", "--budget", "0.5"]);
    let (session, run) = running(&cast);
    cast.nodes[0].kill();
    let read = || std::fs::read_to_string(&notes).unwrap();
    wait_for("a word about it", || read().contains("the provider cannot be reached; waiting for it").then_some(()));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let begun = Instant::now();
    let status = ended(&mut child, "the end of the command");
    assert_eq!(status.code(), Some(130), "{}", read());
    assert!(begun.elapsed() < PATIENCE / 2, "after {:?}", begun.elapsed());
    assert!(read().contains(&format!("it hears that {run} is cancelled when it is back")), "{}", read());
    assert_eq!(door.get(&format!("/api/sessions/{session}")).ok()["phase"], "ending");

    cast.nodes[0].restart();
    let path = format!("/api/sessions/{session}");
    wait_for("the end of the session", || (door.get(&path).ok()["phase"] == "closed").then_some(()));
    assert_eq!(cast.execution(&run)["status"], "failed");
    let budget = crate::kit::micros(&door.get(&path).ok()["budgetConsumed"]);
    assert!(budget < 500_000, "nothing ran on: {budget}");
    // Who asks for the log now is told that there may have been more.
    std::thread::sleep(Duration::from_secs(1));
    let (mut child, notes) = begin(&cast, "log.txt", &["session", "logs", &session, &run]);
    assert!(ended(&mut child, "the end of the log").success());
    assert!(std::fs::read_to_string(notes).unwrap().contains("(some output is missing here)"));
}
