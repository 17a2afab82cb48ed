//! MCP as hosts use it: real clients against `orien dev`, each through the whole job.

mod clients;
mod conformance;
mod raw;
mod session;

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::kit::{Door, orien, wait_for};

/// Everything on loopback, with the example tools.
struct Dev {
    root: TempDir,
    child: Child,
}

impl Dev {
    fn start(more: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let log = || std::fs::OpenOptions::new().create(true).append(true).open(root.path().join("dev.log")).unwrap();
        let data = root.path().join("data");
        let mut child = orien()
            .args(["dev", "--http", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap();
        let gateway = data.join("gateway");
        let told = root.path().join("dev.log");
        wait_for("the gateway of dev", || {
            let text = std::fs::read_to_string(&told).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "dev ended: {text}");
            // Its last word.
            text.contains("money ").then_some(())
        });
        let dev = Self { root, child };
        wait_for("the example provider", || {
            let providers = Door::of(&gateway).get("/api/providers").ok();
            providers["providers"].as_array().is_some_and(|list| !list.is_empty()).then_some(())
        });
        dev
    }

    fn gateway(&self) -> PathBuf {
        self.root.path().join("data/gateway")
    }

    fn door(&self) -> Door {
        Door::of(&self.gateway())
    }

    fn token_file(&self) -> String {
        self.gateway().join("door.token").display().to_string()
    }

    /// The endpoint's address.
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.door().base)
    }

    /// What a host that starts its servers itself has to start.
    fn stdio(&self, more: &[&str]) -> Vec<String> {
        let program = env!("CARGO_BIN_EXE_orien").to_owned();
        let mut words = vec![program, "mcp".to_owned(), "--data-dir".to_owned(), self.gateway().display().to_string()];
        words.extend(more.iter().map(|&word| word.to_owned()));
        words
    }

    /// A new session, opened as the console would.
    fn open(&self, budget: &str) -> String {
        let body = serde_json::json!({ "providerId": "auto", "tools": ["wait"], "budgetAllowance": budget });
        self.door().post("/api/sessions", &body).ok()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file beside the clients' lists of versions.
fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a client that has to succeed, and reads the JSON that it prints last.
#[track_caller]
fn told(command: &mut Command) -> Value {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = shown(&output);
    assert!(output.status.success(), "{command:?}: {text}");
    let last = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(last.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn shown(output: &Output) -> String {
    format!("{}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
