//! A sandbox of its own for each test, and ways to look at what runs in it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orien_sandbox::{
    Profile, Report, RunLimits, RunSpec, Sandbox, SandboxConfig, SessionLimits, SessionSandbox, SessionSpec, Storage, Stream,
};

pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_orien-sandbox-helper");
/// Far beyond what anything here needs, so that a slow machine makes tests slow and not wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A sandbox in a directory that goes with it.
pub(crate) struct Ground {
    pub(crate) sandbox: Sandbox,
    helpers: RefCell<Vec<u32>>,
    _directory: tempfile::TempDir,
}

impl Ground {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// With another configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        change(&mut config);
        let sandbox = Sandbox::open(config).await.unwrap();
        Self { sandbox, helpers: RefCell::default(), _directory: directory }
    }

    /// On disk, where a test can look at it.
    pub(crate) async fn session(&self) -> SessionSandbox {
        self.session_of(SessionSpec { storage: Storage::Disk, ..SessionSpec::default() }).await
    }

    pub(crate) async fn session_of(&self, spec: SessionSpec) -> SessionSandbox {
        let session = self.sandbox.session("session", spec).await.unwrap();
        self.helpers.borrow_mut().extend(session.helper_process());
        session
    }

    /// On disk, with these limits.
    pub(crate) async fn session_within(&self, limits: SessionLimits) -> SessionSandbox {
        self.session_of(SessionSpec { limits, storage: Storage::Disk, ..SessionSpec::default() }).await
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.sandbox.root().join("session/work")
    }

    /// Tools of its sessions, and what they started.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let helpers = self.helpers.borrow();
        helpers.iter().flat_map(|pid| descendants(i32::try_from(*pid).unwrap())).filter(|pid| !is_helper(*pid)).collect()
    }
}

pub(crate) fn config(directory: &Path) -> SandboxConfig {
    let mut config = SandboxConfig::new(directory.join("workspaces"));
    config.helper = HELPER.into();
    config
}

/// Every living process below one.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = pids.filter(|pid| state(*pid) != Some('Z')).filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(above) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Monitor, holder or stub; one that is just ending has no name any more, or is gone.
pub(crate) fn is_helper(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line == b"orien\0sandbox-init\0" || line.is_empty()
}

/// The kind of run that may execute what is in the workspace.
pub(crate) fn builder() -> SessionSpec {
    let profile = Profile { execute_workspace: true, ..Profile::default() };
    SessionSpec { storage: Storage::Disk, profiles: vec![profile], ..SessionSpec::default() }
}

/// Processes that were started with a home below a directory, and are alive.
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
        profile: 0,
        input: false,
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
