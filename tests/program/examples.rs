//! The examples for writers of agents, run as they would run them.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::clients::client;
use crate::kit::{Door, orien, wait_for};

/// A running `orien dev`, on a port of its own.
pub(crate) struct Dev {
    pub(crate) root: TempDir,
    child: Child,
}

impl Dev {
    /// Starts it in a folder of its own; it keeps its data where it wants to.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with more words.
    pub(crate) fn start_with(words: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(root.path().join("dev.log")).unwrap();
        let mut command = orien();
        command.args(["dev", "--http", "127.0.0.1:0"]).args(words).current_dir(&root).env("ORIEN_HOME", root.path());
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut dev = Self { root, child };
        wait_for("orien dev", || {
            let ended = dev.child.try_wait().unwrap();
            assert!(ended.is_none(), "dev ended: {}", dev.log());
            dev.log().contains("money").then_some(())
        });
        let door = Door::of(&dev.gateway());
        wait_for("the example provider", || {
            let providers = door.get("/api/providers").ok();
            providers["providers"].as_array().is_some_and(|list| !list.is_empty()).then_some(())
        });
        dev
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("dev.log")).unwrap_or_default()
    }

    /// The data directory of its gateway, as it says it.
    pub(crate) fn gateway(&self) -> std::path::PathBuf {
        let log = self.log();
        let data = log.lines().find_map(|line| line.strip_prefix("data")).map(str::trim).unwrap_or_default();
        self.root.path().join(data).join("gateway")
    }

    /// Asks it to stop, and waits.
    pub(crate) fn stop(mut self) -> TempDir {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.root, tempfile::tempdir().unwrap())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an example that compiles a program, and the program.
fn compiles(mut interpreter: Command, example: &str) {
    let dev = Dev::start();
    let folder = dev.root.path();
    let token = std::fs::read_to_string(dev.gateway().join("door.token")).unwrap();
    let run = |interpreter: &mut Command, source: &str| -> Output {
        std::fs::write(folder.join("hello.c"), source).unwrap();
        interpreter
            .env("ORIEN_GATEWAY", Door::of(&dev.gateway()).base)
            .env("ORIEN_TOKEN", token.trim())
            .current_dir(folder)
            .output()
            .unwrap()
    };
    interpreter.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents").join(example)).args(["hello.c", "hello"]);
    let output = run(&mut interpreter, "#include <stdio.h>\nint main(void) { puts(\"hello from far away\"); return 0; }\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("completed: ") && said.contains(" of 0.5 USDC"), "{example}: {said}");
    let printed = Command::new(folder.join("hello")).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&printed), "hello from far away\n", "{example}");
    // What a compiler has to complain about is shown, and its exit code is the example's.
    let output = run(&mut interpreter, "int main(void) { return nonsense; }\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("nonsense") && said.contains("completed: "), "{example}: {said}");
    let sessions = Door::of(&dev.gateway()).get("/api/sessions").ok();
    assert!(sessions["sessions"].as_array().unwrap().iter().all(|session: &Value| session["status"] == "completed"), "{sessions}");
}

#[test]
fn the_python_example_does_the_whole_job() {
    compiles(Command::new("python3"), "python/agent.py");
}

#[test]
fn the_typescript_example_does_the_whole_job() {
    let Some(node) = client("typescript/bin/node") else { return };
    compiles(Command::new(node), "typescript/agent.ts");
}
