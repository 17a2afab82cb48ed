//! Pausing, killing, letting go, and what happens when one side of a run dies.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use orien_sandbox::{Cause, ControlError, Level, Sandbox, StartError};
use rustix::process::{Pid, Signal};

use crate::support::{Ground, HELPER, PATIENCE, config, descendants, is_helper, parent, python, run, sh, spec, state, until};

/// A tool with a child and a daemon.
const FAMILY: &str = "
import os, time
between = os.fork()
if between == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    while True: time.sleep(100)
os.waitpid(between, 0)
if os.fork() == 0:
    while True: time.sleep(100)
open('ready', 'w').close()
while True: time.sleep(100)
";

async fn family(ground: &Ground) -> Vec<i32> {
    family_of(&ground.work(), || ground.processes()).await
}

/// The tool, its child and its daemon; the process between the last two has come and gone.
async fn family_of(work: &Path, processes: impl Fn() -> Vec<i32>) -> Vec<i32> {
    let mut pids = Vec::new();
    let complete = || {
        pids = processes();
        work.join("ready").exists() && pids.len() == 3 && pids.iter().all(|pid| state(*pid) == Some('S'))
    };
    until("the family runs", complete).await;
    pids
}

fn kill(pid: i32) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_pause_stops_every_process_and_effective_time() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(python(FAMILY)).await.unwrap();
    let pids = family(&ground).await;
    execution.pause().await.unwrap();
    assert!(execution.is_paused());
    assert!(pids.iter().all(|pid| state(*pid) == Some('T')));
    let before = execution.effective();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // One sample may still have been on its way when the pause was confirmed.
    let sampled = execution.effective();
    assert!(sampled - before <= Duration::from_millis(200), "{before:?} {sampled:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(execution.effective(), sampled);

    rustix::process::kill_process(Pid::from_raw(pids[0]).unwrap(), Signal::CONT).unwrap();
    until("a process that others woke is stopped again", || state(pids[0]) == Some('T')).await;

    execution.resume().await.unwrap();
    until("all run again", || pids.iter().all(|pid| state(*pid) == Some('S'))).await;
    until("effective time goes on", || execution.effective() > sampled).await;
    execution.pause().await.unwrap();
    execution.kill("enough").await;
    let report = execution.wait().await;
    assert_eq!(report.cause, Cause::Killed { reason: "enough".into() });
    assert!(report.paused >= Duration::from_secs(1));
    assert_eq!(report.wall, report.paused + report.usage.effective);
    assert_eq!(execution.pause().await, Err(ControlError::Ended));
    execution.kill("again").await;
    assert_eq!(ground.processes(), [] as [i32; 0]);
    session.close().await.unwrap();
}

/// Processes whose first thread has ended while another goes on: to the system they look like ones that have ended. The last of them is
/// the tool itself.
const HEADLESS: &str = "
import ctypes, os, sys, threading, time
children, megabytes = map(int, sys.argv[1:])
def go_on():
    while ') Z ' not in open('/proc/self/stat').read(): time.sleep(0.005)
    held = b'x' * (megabytes << 20)
    beats = os.open('beats', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    while True:
        os.write(beats, b'.')
        time.sleep(0.005)
for _ in range(children):
    if os.fork() == 0: break
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall(93 if os.uname().machine == 'aarch64' else 60, 0)
";

fn headless(children: u32, megabytes: u32) -> orien_sandbox::RunSpec {
    let mut spec = python(HEADLESS);
    spec.args.extend([children.to_string(), megabytes.to_string()]);
    spec
}

fn beats(ground: &Ground) -> u64 {
    std::fs::metadata(ground.work().join("beats")).map_or(0, |beats| beats.len())
}

/// Whether nothing beats for half a second, from now on.
async fn is_silent(ground: &Ground) -> bool {
    let before = beats(ground);
    tokio::time::sleep(Duration::from_millis(500)).await;
    beats(ground) == before
}

#[tokio::test]
async fn a_pause_also_stops_processes_whose_first_thread_has_ended() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(headless(2, 1)).await.unwrap();
    until("they run", || beats(&ground) > 100).await;
    execution.pause().await.unwrap();
    assert!(is_silent(&ground).await, "they work while they are not paid");
    execution.resume().await.unwrap();
    let stopped = beats(&ground);
    until("they go on", || beats(&ground) > stopped + 100).await;
    execution.kill("enough").await;
    execution.wait().await;
    session.close().await.unwrap();
}

/// Lets itself go on whenever it is stopped. A stop takes away what is about to be delivered, and a timer whose signal was taken away
/// never comes again: so there are many, each at its own time.
const WAKEFUL: &str = "
import ctypes, os, signal, time
libc = ctypes.CDLL(None)
class Event(ctypes.Structure): _fields_ = [('value', ctypes.c_void_p), ('signal', ctypes.c_int), ('how', ctypes.c_int), ('rest', ctypes.c_char * 48)]
signal.signal(signal.SIGCONT, lambda *_: None)
for n in range(500):
    timer = ctypes.c_void_p()
    assert libc.timer_create(1, ctypes.byref(Event(None, signal.SIGCONT, 0)), ctypes.byref(timer)) == 0
    assert libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 50000000, 0, (n + 1) * 99991), None) == 0
beats = os.open('beats', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
while True:
    os.write(beats, b'.')
    time.sleep(0.001)
";

#[tokio::test]
async fn a_tool_that_wakes_itself_while_it_is_paused_is_killed() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(python(WAKEFUL)).await.unwrap();
    until("it runs", || beats(&ground) > 100).await;
    execution.pause().await.unwrap();
    let report = tokio::time::timeout(PATIENCE / 6, execution.wait()).await.expect("it goes on unpaid");
    assert_eq!(report.cause, Cause::CpuLimit, "{report:?}");
    session.close().await.unwrap();
}

#[tokio::test]
async fn memory_of_processes_whose_first_thread_has_ended_is_counted() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut hoard = headless(4, 60);
    hoard.limits.memory_bytes = 128 << 20;
    hoard.limits.wall = Duration::from_secs(10);
    let report = run(&session, hoard).await.report;
    assert_eq!(report.cause, Cause::MemoryLimit, "{report:?}");
    session.close().await.unwrap();
}

#[tokio::test]
async fn without_namespaces_too_processes_whose_first_thread_has_ended_die_with_their_run() {
    let ground = Ground::with(|config| (config.min_level, config.max_level) = (Level::S0, Level::S0)).await;
    let session = ground.session().await;
    let mut execution = session.start(headless(2, 1)).await.unwrap();
    until("they run", || beats(&ground) > 100).await;
    execution.kill("enough").await;
    assert_eq!(execution.wait().await.survivors, 0);
    assert!(is_silent(&ground).await, "they outlived their run");
    session.close().await.unwrap();
}

#[tokio::test]
async fn paused_time_does_not_count_towards_the_timeout() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut waiting = sh("while [ ! -e go ]; do sleep 0.02; done");
    waiting.limits.wall = Duration::from_secs(3);
    let mut execution = session.start(waiting).await.unwrap();
    assert!(execution.started().await);
    execution.pause().await.unwrap();
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    std::fs::write(ground.work().join("go"), "").unwrap();
    let resumed = execution.resume().await;
    let report = execution.wait().await;
    assert!(resumed.is_ok() && report.success(), "{resumed:?} {report:?}");
    assert!(report.wall >= Duration::from_millis(3_500) && report.usage.effective < Duration::from_secs(3));
    session.close().await.unwrap();
}

#[tokio::test]
async fn figures_never_go_back_and_never_exceed_the_report() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(sh("i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done")).await.unwrap();
    let mut last = Duration::ZERO;
    assert!(execution.started().await);
    for _ in 0..50 {
        let now = execution.effective();
        assert!(now >= last);
        last = now;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let report = execution.wait().await;
    assert!(report.usage.effective >= last && execution.usage() == report.usage);
    session.close().await.unwrap();
}

#[tokio::test]
async fn letting_go_of_a_run_kills_it() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let execution = session.start(python(FAMILY)).await.unwrap();
    family(&ground).await;
    drop(execution);
    until("the family is gone", || ground.processes().is_empty()).await;
    session.close().await.unwrap();
}

#[tokio::test]
async fn closing_a_session_kills_its_runs_and_removes_a_hostile_workspace() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let hostile = "
import os, time
os.symlink('/etc', 'link')
os.mkfifo('fifo')
os.makedirs('shut/in'); os.chmod('shut/in', 0); os.chmod('shut', 0)
for n in range(1800):
    os.mkdir('d'); os.chdir('d')
os.chdir(os.environ['HOME'])
open(b'\\xff\\n', 'w').close()
open('ready', 'w').close()
while True: time.sleep(100)
";
    let mut execution = session.start(python(hostile)).await.unwrap();
    let mut output = execution.output().unwrap();
    until("it is built", || ground.work().join("ready").exists()).await;
    session.close().await.unwrap();
    assert!(!ground.sandbox.root().join("session").exists());
    assert_eq!(ground.processes(), [] as [i32; 0]);
    assert!(output.recv().await.is_none());
    assert!(matches!(execution.wait().await.cause, Cause::Killed { .. }));
    assert!(Path::new("/etc/passwd").exists());
}

#[tokio::test]
async fn a_lost_stub_is_reported_and_takes_its_tree_and_only_its_tree_with_it() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut other = session.start(spec("/usr/bin/sleep", &["1000"])).await.unwrap();
    assert!(other.started().await);
    let others = ground.processes();
    let mut execution = session.start(python(FAMILY)).await.unwrap();
    let of_family = || ground.processes().into_iter().filter(|pid| !others.contains(pid)).collect();
    let pids = family_of(&ground.work(), of_family).await;
    let stub = pids.iter().filter_map(|pid| parent(*pid)).find(|pid| is_helper(*pid)).unwrap();
    kill(stub);
    let report = execution.wait().await;
    assert!(matches!(report.cause, Cause::Lost { .. }), "{report:?}");
    until("only the other run is left", || ground.processes() == others).await;
    assert!(run(&session, sh("exit 0")).await.report.success(), "the session goes on");
    other.kill("done").await;
    assert!(matches!(other.wait().await.cause, Cause::Killed { .. }));
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_lost_holder_ends_its_session() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(python(FAMILY)).await.unwrap();
    let pids = family(&ground).await;
    let helper = i32::try_from(session.helper_process().unwrap()).unwrap();
    let holder = *descendants(helper).iter().find(|pid| parent(**pid) == Some(helper)).unwrap();
    kill(holder);
    let report = execution.wait().await;
    assert!(matches!(report.cause, Cause::Lost { .. } | Cause::Killed { .. }), "{report:?}");
    until("nothing is left", || pids.iter().all(|pid| state(*pid).is_none_or(|state| state == 'Z'))).await;
    until_refused(&session).await;
    session.close().await.unwrap();
}

async fn until_refused(session: &orien_sandbox::SessionSandbox) {
    let asked = async {
        while session.start(sh("exit 0")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap();
    assert!(matches!(session.start(sh("exit 0")).await, Err(StartError::Closed | StartError::System(_))));
}

#[tokio::test]
async fn the_death_of_the_node_kills_everything() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("workspaces");
    let family = python(FAMILY);
    let mut node = Command::new(HELPER);
    node.arg("hold").arg(&root).arg(&family.program).args(&family.args).stdout(Stdio::null()).stderr(Stdio::null());
    let mut node = node.spawn().unwrap();
    let own = i32::try_from(node.id()).unwrap();
    let below = || descendants(own);
    let pids = family_of(&root.join("session/work"), || below().into_iter().filter(|pid| !is_helper(*pid)).collect()).await;
    let all = below();
    assert!(all.len() > pids.len());
    node.kill().unwrap();
    node.wait().unwrap();
    until("everything is gone", || all.iter().all(|pid| state(*pid).is_none_or(|state| state == 'Z'))).await;
    assert!(root.join("session").exists());
    let opened = tokio::time::timeout(PATIENCE, Sandbox::open(config(directory.path()))).await.unwrap();
    opened.unwrap();
    assert!(!root.join("session").exists());
}
