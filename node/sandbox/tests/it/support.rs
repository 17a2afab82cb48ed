//! A sandbox of its own for each test, and ways to look at what runs in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orien_sandbox::{Report, RunLimits, RunSpec, Sandbox, SandboxConfig, SessionLimits, SessionSandbox, Stream};

pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_orien-sandbox-helper");
/// Far beyond what anything here needs, so that a slow machine makes tests slow and not wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A sandbox in a directory that goes with it.
pub(crate) struct Ground {
    pub(crate) sandbox: Sandbox,
    _directory: tempfile::TempDir,
}

impl Ground {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::open(config(directory.path())).await.unwrap();
        Self { sandbox, _directory: directory }
    }

    pub(crate) async fn session(&self) -> SessionSandbox {
        self.sandbox.session("session", SessionLimits::default()).await.unwrap()
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.sandbox.root().join("session/work")
    }

    /// Processes that were started with a home in this sandbox, and are alive.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes_below(self.sandbox.root())
    }
}

pub(crate) fn config(directory: &Path) -> SandboxConfig {
    SandboxConfig { root: directory.join("workspaces"), helper: HELPER.into() }
}

pub(crate) fn processes_below(root: &Path) -> Vec<i32> {
    let home = format!("HOME={}/", root.display());
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let lives_there = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(home.as_bytes()))
    };
    pids.filter(lives_there).collect()
}

pub(crate) fn spec(program: &str, args: &[&str]) -> RunSpec {
    RunSpec {
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        limits: RunLimits { wall: PATIENCE, ..RunLimits::default() },
    }
}

pub(crate) fn sh(script: &str) -> RunSpec {
    spec("/bin/sh", &["-c", script])
}

pub(crate) fn python(script: &str) -> RunSpec {
    spec("/usr/bin/python3", &["-c", script])
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) report: Report,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Done {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs to the end and takes all output.
pub(crate) async fn run(session: &SessionSandbox, spec: RunSpec) -> Done {
    let mut execution = session.start(spec).await.unwrap();
    let mut output = execution.output().unwrap();
    let collect = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.recv().await {
            match chunk.stream {
                Stream::Stdout => stdout.extend_from_slice(&chunk.bytes),
                Stream::Stderr => stderr.extend_from_slice(&chunk.bytes),
            }
        }
        (stdout, stderr)
    };
    let both = async { tokio::join!(execution.wait(), collect) };
    let (report, (stdout, stderr)) = tokio::time::timeout(PATIENCE * 2, both).await.unwrap();
    Done { report, stdout, stderr }
}

/// Asks until it is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let asked = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asked).await.is_ok(), "waited in vain until {what}");
}

/// The state letter of a process, `None` when it is gone.
pub(crate) fn state(pid: i32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat_field(pid, 1)?.parse().ok()
}

fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(index).map(str::to_owned)
}
