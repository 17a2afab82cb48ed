//! The protocol's own test suite: the scenarios that any server can be put through.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::{Dev, script, shown};
use crate::clients::client;

/// Scenarios that need no fixtures, each for the revisions that have it.
const SCENARIOS: [(&str, &[&str]); 7] = [
    ("server-initialize", &["2025-11-25"]),
    ("server-session-lifecycle", &["2025-11-25"]),
    ("ping", &["2025-11-25"]),
    ("tools-list", &["2025-11-25", "2026-07-28"]),
    ("caching", &["2026-07-28"]),
    ("http-header-validation", &["2026-07-28"]),
    ("dns-rebinding-protection", &["2025-11-25", "2026-07-28"]),
];

#[test]
fn the_generic_conformance_scenarios_pass() {
    let (Some(node), Some(suite)) = (client("typescript/bin/node"), client("typescript/node_modules/.bin/conformance")) else { return };
    let dev = Dev::start(&[]);
    // The suite cannot send a token.
    let address = dev.door().base.strip_prefix("http://").unwrap().to_owned();
    let mut proxy = Command::new(&node)
        .args([&script("typescript/with_token.mjs"), &address, &dev.token_file()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut listens = String::new();
    BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut listens).unwrap();
    let url = format!("http://{}/mcp", listens.trim());
    let mut failed = Vec::new();
    for (scenario, revisions) in SCENARIOS {
        for revision in revisions {
            let arguments = ["server", "--url", &url, "--scenario", scenario, "--spec-version", revision];
            let output = Command::new(&node).arg(&suite).args(arguments).env("NODE_NO_WARNINGS", "1").output().unwrap();
            if !output.status.success() {
                failed.push(format!("{scenario} at {revision}: {}", shown(&output)));
            }
        }
    }
    let _ = proxy.kill();
    let _ = proxy.wait();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
