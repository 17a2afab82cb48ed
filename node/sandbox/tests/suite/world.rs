//! The ground of a row: a node's sandbox, the attack program, and a host around it with something to lose.
//!
//! Always true: rows run one at a time in a process, so what is left of one can be told from what another is using. A row that returns
//! has been looked over: see [`World::look_over`].

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use orien_sandbox::{
    Level, Profile, Report, RunLimits, RunSpec, Sandbox, SandboxConfig, SessionLimits, SessionSandbox, SessionSpec, Storage, Stream, View,
};

use crate::verdict::{Is, Told};

/// Far beyond what anything here needs, so that a slow machine makes tests slow and not wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What stands in every canary.
pub(crate) const SECRET: &str = "orien-canary-5f1c";
/// Users of the sessions of this process, when it is root. Apart for each process, so that all that is left of them can be found.
const FIRST_USER: u32 = 1_000_000_000;
const USERS_EACH: u32 = 70_000;
const PROCESSES_TOLD_APART: u32 = 10_000;

static ALONE: Mutex<()> = Mutex::new(());
static WARM: Once = Once::new();

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The programs that the suite starts; elsewhere than where they were built when it was started again as another user.
pub(crate) fn helper() -> PathBuf {
    std::env::var_os("ORIEN_SUITE_HELPER").map_or_else(|| env!("CARGO_BIN_EXE_orien-sandbox-helper").into(), PathBuf::from)
}

pub(crate) fn attacker() -> PathBuf {
    std::env::var_os("ORIEN_SUITE_ATTACKER").map_or_else(|| env!("CARGO_BIN_EXE_orien-sandbox-attacker").into(), PathBuf::from)
}

/// Runs while no row does.
pub(crate) fn alone<T>(work: impl FnOnce() -> T) -> T {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// A row at level S2.
pub(crate) fn row(test: impl AsyncFnOnce(&World)) {
    row_with(|_| (), test);
}

/// A row with another configuration.
pub(crate) fn row_with(change: impl FnOnce(&mut SandboxConfig), test: impl AsyncFnOnce(&World)) {
    alone(|| {
        // What is made once in a process, such as the handling of signals, is no loss.
        WARM.call_once(|| carry_out(|_| (), async |_| ()));
        let before = descriptors();
        carry_out(change, test);
        let begun = Instant::now();
        while descriptors().len() > before.len() && begun.elapsed() < PATIENCE / 6 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let after = descriptors();
        assert!(after.len() <= before.len(), "descriptors were lost: {before:?} became {after:?}");
    });
}

fn carry_out(change: impl FnOnce(&mut SandboxConfig), test: impl AsyncFnOnce(&World)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::open(change).await;
        test(&world).await;
        world.look_over().await;
    });
}

fn descriptors() -> Vec<PathBuf> {
    fs::read_dir("/proc/self/fd").unwrap().map(|entry| fs::read_link(entry.unwrap().path()).unwrap_or_default()).collect()
}

pub(crate) struct World {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) first_user: u32,
    directory: tempfile::TempDir,
    canaries: Vec<(PathBuf, Vec<u8>)>,
    /// Each where nobody has any business to connect.
    pub(crate) tcp: TcpListener,
    abstract_socket: UnixListener,
    path_socket: UnixListener,
    host: Mutex<Child>,
    next: AtomicU32,
}

impl World {
    async fn open(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["tools", "host", "host/below"] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::copy(attacker(), directory.path().join("tools/attacker")).unwrap();
        fs::set_permissions(directory.path().join("tools/attacker"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("tools/data"), "shown").unwrap();
        fs::set_permissions(directory.path().join("tools/data"), fs::Permissions::from_mode(0o666)).unwrap();
        // Readable and writable by everybody: only the sandbox keeps tools away.
        for name in ["host/canary", "host/below/canary"] {
            fs::write(directory.path().join(name), SECRET).unwrap();
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(0o666)).unwrap();
        }
        let first_user = FIRST_USER + (std::process::id() % PROCESSES_TOLD_APART) * USERS_EACH;
        let mut config = SandboxConfig::new(directory.path().join("workspaces"));
        (config.helper, config.max_level, config.first_user) = (helper(), Level::S2, first_user);
        change(&mut config);
        let sandbox = Arc::new(Sandbox::open(config).await.unwrap());
        let name = SocketAddr::from_abstract_name(abstract_name()).unwrap();
        let host = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let mut world = Self {
            sandbox,
            first_user,
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            abstract_socket: UnixListener::bind_addr(&name).unwrap(),
            path_socket: UnixListener::bind(directory.path().join("host/socket")).unwrap(),
            host: Mutex::new(host),
            directory,
            canaries: Vec::new(),
            next: AtomicU32::new(0),
        };
        world.canaries = world.watched();
        world
    }

    /// All that must not change, with what can change about it.
    fn watched(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for folder in ["host", "host/below", "tools"].map(|name| self.directory.path().join(name)) {
            let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                let meta = fs::symlink_metadata(&path).unwrap();
                let facts = (meta.mode(), meta.uid(), meta.ino(), meta.nlink(), meta.mtime(), meta.mtime_nsec(), meta.len());
                let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                found.push((path, [format!("{facts:?}").into_bytes(), content].concat()));
            }
        }
        found
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn canary(&self) -> String {
        self.path("host/canary")
    }

    pub(crate) fn host_pid(&self) -> u32 {
        self.host.lock().unwrap().id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.tcp.local_addr().unwrap().port()
    }

    /// Shown the attack program, and nothing else.
    pub(crate) fn profile(&self) -> Profile {
        Profile { views: vec![View { path: self.directory.path().join("tools"), execute: true }], ..Profile::default() }
    }

    /// A run of the attack program.
    pub(crate) fn spec(&self, words: &[&str]) -> RunSpec {
        program(&self.path("tools/attacker"), words)
    }

    pub(crate) async fn session(&self) -> SessionSandbox {
        self.session_of(Storage::Memory, small(), self.profile()).await
    }

    pub(crate) async fn on_disk(&self) -> SessionSandbox {
        self.session_of(Storage::Disk, small(), self.profile()).await
    }

    pub(crate) async fn session_of(&self, storage: Storage, limits: SessionLimits, profile: Profile) -> SessionSandbox {
        let name = format!("row-{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.sandbox.session(&name, SessionSpec { limits, storage, profiles: vec![profile], ..SessionSpec::default() }).await.unwrap()
    }

    /// Runs one row of the attack program to its end.
    pub(crate) async fn attack(&self, session: &SessionSandbox, words: &[&str]) -> Told {
        let done = run(session, self.spec(words)).await;
        assert!(done.report.success(), "{words:?}: {:?} {}", done.report, String::from_utf8_lossy(&done.stderr));
        Told::read(&done.stdout)
    }

    /// The whole of a simple row: a session of its own, one run, one table.
    pub(crate) async fn judge(&self, words: &[&str], table: &[(&str, Is)]) -> Told {
        let session = self.session().await;
        let told = self.attack(&session, words).await;
        told.judge(table);
        self.close(session).await;
        told
    }

    /// Ends a session, and nothing of it is left.
    pub(crate) async fn close(&self, session: SessionSandbox) {
        let helper = session.helper_process();
        let mut tree: Vec<i32> = helper.map(|pid| descendants(i32::try_from(pid).unwrap())).unwrap_or_default();
        tree.extend(helper.map(|pid| i32::try_from(pid).unwrap()));
        let begun: Vec<(i32, Option<String>)> = tree.into_iter().map(|pid| (pid, stat_field(pid, 19))).collect();
        session.close().await.unwrap();
        let living = || begun.iter().filter(|(pid, begun)| begun.is_some() && stat_field(*pid, 19) == *begun).count();
        until("the session's processes are gone", || living() == 0).await;
    }

    /// What is true after every row.
    async fn look_over(self) {
        let session = self.session().await;
        let done = run(&session, program("/bin/sh", &["-c", "echo served"])).await;
        assert_eq!((done.text(), done.report.success()), ("served\n", true), "the node serves the next run");
        self.close(session).await;
        let users = self.first_user..self.first_user + USERS_EACH;
        let ours = || all_processes().into_iter().filter(|pid| user(*pid).is_some_and(|user| users.contains(&user))).count();
        until("no process of a session's user is left", || !is_root() || ours() == 0).await;
        let host = i32::try_from(self.host_pid()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        until("nothing below this process is left", || descendants(own).iter().all(|pid| *pid == host || is_foreign(*pid))).await;
        let left: Vec<_> = fs::read_dir(self.sandbox.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".trash"], "no workspace is left");
        assert_eq!(fs::read_dir(self.sandbox.root().join(".trash")).unwrap().count(), 0, "and no part of one");
        assert!(self.watched() == self.canaries, "something of the host changed");
        assert!(matches!(state(host), Some('S' | 'R')), "a process of the host was hit");
        self.tcp.set_nonblocking(true).unwrap();
        self.abstract_socket.set_nonblocking(true).unwrap();
        self.path_socket.set_nonblocking(true).unwrap();
        assert!(self.tcp.accept().is_err() && self.abstract_socket.accept().is_err() && self.path_socket.accept().is_err(), "was called");
    }
}

impl Drop for World {
    /// Also after a row that failed: the next one looks for what is left.
    fn drop(&mut self) {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = host.kill().and_then(|()| host.wait());
    }
}

/// The same for the whole of a process.
pub(crate) fn abstract_name() -> String {
    format!("orien-suite-{}", std::process::id())
}

/// Small enough that a row which uses it up does so at once.
pub(crate) fn small() -> SessionLimits {
    SessionLimits { workspace_bytes: 64 << 20, workspace_entries: 4096, parallel_runs: 4 }
}

pub(crate) fn limits() -> RunLimits {
    RunLimits {
        wall: PATIENCE,
        cpu: PATIENCE,
        memory_bytes: 256 << 20,
        processes: 64,
        open_files: 256,
        file_bytes: 32 << 20,
        ..RunLimits::default()
    }
}

pub(crate) fn program(path: &str, words: &[&str]) -> RunSpec {
    RunSpec {
        program: path.into(),
        args: words.iter().map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        limits: limits(),
        profile: 0,
        input: false,
    }
}

pub(crate) fn sh(script: &str) -> RunSpec {
    program("/bin/sh", &["-c", script])
}

pub(crate) fn python(script: &str) -> RunSpec {
    program("/usr/bin/python3", &["-c", script])
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
    let execution = session.start(spec).await.unwrap();
    finish(execution).await
}

pub(crate) async fn finish(mut execution: orien_sandbox::Execution) -> Done {
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

/// Asks until it is so. What is asked takes milliseconds.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let asked = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE / 3, asked).await.is_ok(), "waited in vain until {what}");
}

/// Every living process below one.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let living = all_processes().into_iter().filter(|pid| state(*pid) != Some('Z'));
    let parents: Vec<(i32, i32)> = living.filter_map(|pid| Some((pid, stat_field(pid, 1)?.parse().ok()?))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(above) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

pub(crate) fn all_processes() -> Vec<i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The state letter of a process, `None` when it is gone.
pub(crate) fn state(pid: i32) -> Option<char> {
    stat_field(pid, 0)?.chars().next()
}

pub(crate) fn user(pid: i32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

/// Of the suite's other life, as an ordinary user, which [`crate::ordinary`] started.
fn is_foreign(pid: i32) -> bool {
    is_root() && user(pid).is_some_and(|user| user == crate::ordinary::USER)
}

/// Of `/proc/PID/stat`, counted from the state on.
pub(crate) fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(index).map(str::to_owned)
}

/// Whether a path holds a canary's words.
pub(crate) fn tells_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

pub(crate) fn exists(path: &str) -> bool {
    Path::new(path).symlink_metadata().is_ok()
}
