//! A process that dies at any moment loses nothing and leaves nothing behind.

use std::path::Path;

use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{micros, wait_for};

/// Processes whose command line is this `sleep`, wherever the program is.
fn sleepers(seconds: u32) -> usize {
    let wanted = format!("/sleep\0{seconds}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.ends_with(wanted.as_bytes()))).count()
}

/// What `/proc` says of a process after its name: its state, then its parent, ...
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// Every living process below one.
fn descendants(root: u32) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter(|pid| is_alive(*pid)).filter_map(|pid| Some((pid, stat(pid)?[1].parse().ok()?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(above) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Session folders below a node's workspaces.
fn workspaces(node: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(node.join("workspaces")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.starts_with("session_")).collect()
}

/// Starts a long run and lets at least two metering intervals be paid for.
fn under_way(cast: &Cast, seconds: u32) -> (String, String) {
    let session = cast.open("2");
    let run = cast.start_run(&session, "wait", json!({ "seconds": seconds }));
    wait_for("some paid intervals", || {
        let receipts = cast.gateway().get(&format!("/api/sessions/{session}/receipts")).ok();
        (receipts["receipts"].as_array().unwrap().len() >= 3).then_some(())
    });
    assert_eq!(sleepers(seconds), 1);
    (session, run)
}

/// Each completed second is charged once: the ledger has what the receipts say, and those follow from the milliseconds.
fn charged_once(cast: &Cast, session: &str) -> Value {
    let settled = cast.settled(session);
    let receipts = cast.gateway().get(&format!("/api/sessions/{session}/receipts")).ok();
    let receipts = receipts["receipts"].as_array().unwrap();
    let last = receipts.last().unwrap();
    assert_eq!(micros(&settled["totalCost"]), micros(&last["charged"]));
    // Exact decimals on both sides: seconds with three places, USDC with six.
    let ms = receipts.iter().map(|receipt| &receipt["work"]["effectiveDurationSeconds"]).filter(|time| time.is_number()).map(micros).max();
    let ms = ms.unwrap_or(0) / 1000;
    // 0.6 USDC per minute are 10 micro-USDC per millisecond; the minimum is one second.
    assert_eq!(micros(&last["charged"]), (ms * 10).max(10_000), "{last}");
    settled
}

#[test]
fn a_node_killed_in_mid_run_leaves_no_tool_and_no_workspace_and_charges_committed_time_once() {
    let mut cast = Cast::small();
    let (session, run) = under_way(&cast, 91);
    assert_eq!(workspaces(&cast.nodes[0].folder).len(), 1);
    let below = descendants(cast.nodes[0].pid());
    assert!(below.len() >= 4, "monitor, holder, stubs and tool: {below:?}");
    cast.nodes[0].kill();
    wait_for("the death of the tool", || (sleepers(91) == 0).then_some(()));
    wait_for("the death of everything the node had started", || below.iter().all(|pid| !is_alive(*pid)).then_some(()));
    cast.nodes[0].restart();
    assert_eq!(workspaces(&cast.nodes[0].folder), Vec::<String>::new());
    let ended = cast.ended(&run);
    assert_eq!(ended["status"], "failed", "{ended}");
    wait_for("the end of the session", || {
        let state = cast.gateway().get(&format!("/api/sessions/{session}")).ok();
        (state["status"] != "active").then_some(())
    });
    charged_once(&cast, &session);
}

#[test]
fn a_gateway_killed_in_mid_run_picks_the_session_up_again() {
    let mut cast = Cast::small();
    let (session, run) = under_way(&cast, 92);
    cast.gateways[0].kill();
    cast.gateways[0].restart();
    wait_for("a receipt after the restart", || {
        let state = cast.gateway().get(&format!("/executions/{run}")).ok();
        (state["effectiveDurationSeconds"].as_f64().unwrap_or(0.0) > 3.0).then_some(())
    });
    assert_eq!(sleepers(92), 1, "the tool was not disturbed");
    let ended = cast.end(&session);
    assert_ne!(ended["status"], "active", "{ended}");
    wait_for("the death of the tool", || (sleepers(92) == 0).then_some(()));
    charged_once(&cast, &session);
    wait_for("the removal of the workspace", || workspaces(&cast.nodes[0].folder).is_empty().then_some(()));
}

#[test]
fn a_settlement_killed_while_a_session_ends_pays_once_when_it_is_back() {
    let mut cast = Cast::small();
    let (session, _) = under_way(&cast, 93);
    cast.settlement.kill();
    let ended = cast.end(&session);
    assert_ne!(ended["status"], "active", "{ended}");
    wait_for("the death of the tool", || (sleepers(93) == 0).then_some(()));
    cast.settlement.restart();
    charged_once(&cast, &session);
    let all = cast.settlement.door().get("/api/settlements").ok();
    let mine = all["settlements"].as_array().unwrap().iter().filter(|settled| settled["sessionId"] == session.as_str()).count();
    assert_eq!(mine, 1);
}

#[test]
fn every_role_stops_in_order_when_asked() {
    let mut cast = Cast::small();
    let (session, _) = under_way(&cast, 94);
    assert!(cast.nodes[0].stop().success());
    assert_eq!(sleepers(94), 0);
    assert!(cast.gateways[0].stop().success());
    assert!(cast.settlement.stop().success());
    assert!(cast.bootstrap.stop().success());
    for folder in [&cast.nodes[0].folder, &cast.gateways[0].folder, &cast.settlement.folder, &cast.bootstrap.folder] {
        assert!(!folder.join("door.json").exists(), "{} after {session}", folder.display());
    }
}
