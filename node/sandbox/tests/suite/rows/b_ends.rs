//! Processes: too many, without end, stubborn, left behind; and the death of those who look after them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use libc::EAGAIN;
use orien_sandbox::{Cause, Level, Sandbox, SandboxConfig, SessionLimits, SessionSandbox, StartError, Storage};

use crate::verdict::{Is, Told};
use crate::world::{PATIENCE, World, descendants, finish, helper, is_root, program, row, run, sh, small, stat_field, state, until, user};

/// What an end may take here, far above what is seen on a quiet machine.
const SOON: Duration = Duration::from_secs(2);

/// The attack's own line, which comes before the attack.
async fn begun(execution: &mut orien_sandbox::Execution) -> Told {
    let line = execution.output().unwrap().recv().await.unwrap();
    Told::read(&line.bytes)
}

/// Monitor, holder or stub; one that is just ending has no name any more.
fn is_ours(pid: i32) -> bool {
    let name = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    name.is_empty() || name == b"orien\0sandbox-init\0"
}

/// Waits until so many are seen.
async fn tools_of(holder: i32, expected: usize) -> Vec<i32> {
    let mut tools = Vec::new();
    until("all tools are seen", || {
        tools = descendants(holder).into_iter().filter(|pid| !is_ours(*pid)).collect();
        tools.len() == expected
    })
    .await;
    tools
}

async fn alone(world: &World) -> SessionSandbox {
    let limits = SessionLimits { parallel_runs: 1, ..small() };
    world.session_of(Storage::Memory, limits, world.profile()).await
}

#[test]
fn b01_forks_end_at_the_limit() {
    row(async |world| {
        let session = alone(world).await;
        let told = world.attack(&session, &["B01"]).await;
        told.judge(&[("fork again", Is::Done), ("fork", Is::Refused(&[EAGAIN]))]);
        let count = told.of("fork").count.unwrap();
        assert!((50..=64).contains(&count), "{count} of 64");
        world.close(session).await;
    });
}

#[test]
fn b01_a_fork_bomb_ends_with_its_run() {
    row(async |world| {
        let session = world.session().await;
        let mut spec = world.spec(&["B01", "mode=bomb"]);
        spec.limits.wall = Duration::from_millis(500);
        let mut beside = session.start(sh("sleep 1000")).await.unwrap();
        assert!(beside.started().await);
        let report = run(&session, spec).await.report;
        assert!(matches!(report.cause, Cause::TimedOut | Cause::ProcessLimit), "{report:?}");
        assert_eq!(report.survivors, 0);
        beside.kill("done").await;
        assert_eq!(beside.wait().await.cause, Cause::Killed { reason: "done".into() }, "who ran beside it was not hit");
        world.close(session).await;
    });
}

#[test]
fn b02_threads_end_at_the_limit() {
    row(async |world| {
        let session = alone(world).await;
        let told = world.attack(&session, &["B02"]).await;
        told.judge(&[("thread", Is::Refused(&[EAGAIN]))]);
        let count = told.of("thread").count.unwrap();
        assert!((50..=64).contains(&count), "{count} of 64");
        world.close(session).await;
    });
}

#[test]
fn b04_burners_are_timed_out_and_their_time_is_counted() {
    row(async |world| {
        let session = world.session().await;
        let mut spec = world.spec(&["B04", "processes=1"]);
        spec.limits.wall = Duration::from_millis(500);
        let report = run(&session, spec).await.report;
        assert_eq!(report.cause, Cause::TimedOut);
        assert!(report.usage.cpu >= Duration::from_millis(50), "{report:?}");
        assert!((Duration::from_millis(500)..SOON * 2).contains(&report.usage.effective), "{report:?}");
        let mut spec = world.spec(&["B04", "processes=4"]);
        spec.limits.cpu = Duration::from_secs(1);
        let report = run(&session, spec).await.report;
        assert_eq!(report.cause, Cause::CpuLimit);
        assert!(report.usage.cpu >= Duration::from_millis(900), "{report:?}");
        world.close(session).await;
    });
}

#[test]
fn b05_time_that_is_hidden_is_counted_by_sampling() {
    row(async |world| {
        let session = world.session().await;
        let done = run(&session, world.spec(&["B05", "ms=1200"])).await;
        let told = Told::read(&done.stdout);
        told.judge(&[("children are not waited for", Is::Done), ("wait", Is::Refused(&[libc::ECHILD])), ("milliseconds burnt", Is::Done)]);
        // A lower bound, as it says of itself. On busy processors little of the time was the burner's.
        assert!(done.report.usage.cpu >= Duration::from_millis(100), "{:?}", done.report);
        world.close(session).await;
    });
}

#[test]
fn b06_nothing_outlives_its_deadline() {
    row(async |world| {
        let session = world.session().await;
        let mut spec = world.spec(&["B06", "processes=32"]);
        spec.limits.wall = Duration::from_secs(1);
        let done = run(&session, spec).await;
        let told = Told::read(&done.stdout);
        told.judge(&[("processes that ignore signals", Is::Done), ("signals ignored", Is::Done)]);
        assert_eq!(told.of("processes that ignore signals").count, Some(32));
        assert_eq!((&done.report.cause, done.report.survivors), (&Cause::TimedOut, 0));
        let over = done.report.usage.effective.saturating_sub(Duration::from_secs(1));
        println!("B06: 33 processes that ignore signals were told to end {over:?} after their deadline");
        let mut execution = session.start(world.spec(&["B06", "processes=32"])).await.unwrap();
        begun(&mut execution).await;
        let holder = descendants(session.helper_process().unwrap().cast_signed())[0];
        let tools = tools_of(holder, 33).await;
        let asked = Instant::now();
        execution.kill("enough").await;
        assert_eq!(execution.wait().await.cause, Cause::Killed { reason: "enough".into() });
        let left = tools.iter().filter(|pid| state(**pid).is_some()).count();
        assert_eq!(left, 0, "dead and collected before it is said");
        println!("B06: and were gone {:?} after somebody asked", asked.elapsed());
        assert!(over < SOON && asked.elapsed() < SOON);
        world.close(session).await;
    });
}

#[test]
fn b07_stopped_and_suspended_processes_are_killed_too() {
    row(async |world| {
        let session = world.session().await;
        let mut execution = session.start(world.spec(&["B07"])).await.unwrap();
        begun(&mut execution).await.judge(&[("a stopped process", Is::Done), ("a suspended process", Is::Done)]);
        let asked = Instant::now();
        execution.kill("enough").await;
        let report = execution.wait().await;
        assert_eq!((report.cause, report.survivors), (Cause::Killed { reason: "enough".into() }, 0));
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        world.close(session).await;
    });
}

#[test]
fn b08_a_daemon_is_dead_before_the_report() {
    row(async |world| {
        let session = world.session().await;
        let told = world.attack(&session, &["B08", "beat=beat"]).await;
        told.judge(&[("a daemon", Is::Done), ("its beat", Is::Done)]);
        let left = descendants(session.helper_process().unwrap().cast_signed());
        assert!(!left.is_empty() && left.iter().all(|pid| is_ours(*pid)), "{left:?}");
        let first = run(&session, sh("cat beat")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(run(&session, sh("cat beat")).await.stdout, first.stdout);
        // Also those who hold nothing whose end somebody would wait for.
        let many = "for i in $(seq 50); do setsid sleep 1000 > /dev/null 2>&1 & done; echo begun; exec sleep 1000 > /dev/null 2>&1";
        let mut execution = session.start(sh(many)).await.unwrap();
        assert_eq!(&execution.output().unwrap().recv().await.unwrap().bytes[..], b"begun\n");
        let holder = descendants(session.helper_process().unwrap().cast_signed())[0];
        let tools = tools_of(holder, 51).await;
        execution.kill("enough").await;
        execution.wait().await;
        let left = tools.iter().filter(|pid| state(**pid).is_some()).count();
        assert_eq!(left, 0, "dead and collected before it is said");
        world.close(session).await;
    });
}

#[test]
fn b09_nothing_survives_the_node() {
    row(async |world| {
        let root = world.path("second");
        let mut node = std::process::Command::new(helper());
        node.args(["hold", &root, "/bin/sh", "-c", "trap '' TERM HUP INT; setsid sleep 1000 & sleep 1000 & wait"]).stdin(Stdio::null());
        let mut node = node.spawn().unwrap();
        let pid = node.id().cast_signed();
        let mut tree = Vec::new();
        until("its tool runs", || {
            tree = descendants(pid);
            tree.len() >= 6
        })
        .await;
        let begun: Vec<_> = tree.iter().map(|pid| (*pid, stat_field(*pid, 19))).collect();
        node.kill().unwrap();
        node.wait().unwrap();
        let living = |(pid, begun): &&(i32, Option<String>)| begun.is_some() && stat_field(*pid, 19) == *begun && state(*pid) != Some('Z');
        until("its processes are gone", || begun.iter().filter(living).count() == 0).await;
        let mut config = SandboxConfig::new(root.clone().into());
        (config.helper, config.max_level) = (helper(), Level::S2);
        assert!(std::path::Path::new(&root).join("session").exists());
        Sandbox::open(config).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".trash"], "the next start removes its workspaces");
    });
}

#[test]
fn b10_a_killed_stub_costs_its_run_and_a_killed_holder_its_session() {
    row(async |world| {
        let session = world.session().await;
        let holder = descendants(session.helper_process().unwrap().cast_signed())[0];
        let mut first = session.start(world.spec(&["B06"])).await.unwrap();
        begun(&mut first).await;
        let stub = descendants(holder)[0];
        let mut second = session.start(world.spec(&["B06"])).await.unwrap();
        begun(&mut second).await;
        kill(stub);
        let lost = tokio::time::timeout(PATIENCE, first.wait()).await.unwrap();
        assert!(matches!(lost.cause, Cause::Lost { .. }), "{lost:?}");
        assert!(run(&session, sh("exit 0")).await.report.success(), "the session goes on");
        let tree = descendants(holder);
        kill(holder);
        let lost = tokio::time::timeout(PATIENCE, second.wait()).await.unwrap();
        assert!(matches!(lost.cause, Cause::Lost { .. } | Cause::Killed { .. }), "{lost:?}");
        until("its tree is gone", || tree.iter().all(|pid| matches!(state(*pid), None | Some('Z')))).await;
        let begun = Instant::now();
        while session.start(sh("exit 0")).await.is_ok() {
            assert!(begun.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(matches!(session.start(sh("exit 0")).await, Err(StartError::Closed | StartError::System(_))));
        world.close(session).await;
    });
}

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[test]
fn b24_many_sessions_at_once_leave_nothing() {
    row(async |world| {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut opening = tokio::task::JoinSet::new();
        for index in 0..64 {
            let (sandbox, profile) = (std::sync::Arc::clone(&world.sandbox), world.profile());
            let storage = if index % 8 == 0 { Storage::Disk } else { Storage::Memory };
            opening.spawn(async move {
                let spec = orien_sandbox::SessionSpec { storage, profiles: vec![profile], ..orien_sandbox::SessionSpec::default() };
                let session = sandbox.session(&format!("many-{index}"), spec).await.unwrap();
                assert!(run(&session, sh("echo served > file")).await.report.success());
                session
            });
        }
        let sessions = opening.join_all().await;
        assert_eq!(sessions.len(), 64);
        let users: std::collections::BTreeSet<_> =
            sessions.iter().map(|session| user(descendants(session.helper_process().unwrap().cast_signed())[0]).unwrap()).collect();
        assert_eq!(users.len(), if is_root() { 64 } else { 1 }, "each session of a root node is a user of its own");
        for session in sessions {
            world.close(session).await;
        }
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
        let session = world.session().await;
        let holder = descendants(session.helper_process().unwrap().cast_signed())[0];
        assert!(!is_root() || user(holder) == Some(world.first_user), "users are given back");
        world.close(session).await;
    });
}

#[test]
fn b25_killing_one_run_kills_no_other() {
    row(async |world| {
        let limits = SessionLimits { parallel_runs: 100, ..small() };
        let session = world.session_of(Storage::Memory, limits, world.profile()).await;
        let other = world.session().await;
        let mut runs = Vec::new();
        for _ in 0..100 {
            let mut spec = program("/bin/sh", &["-c", "sleep 1000 & wait"]);
            spec.limits.processes = 8;
            runs.push(session.start(spec).await.unwrap());
        }
        assert!(matches!(session.start(sh("exit 0")).await, Err(StartError::Busy(100))));
        let mut beside = other.start(sh("sleep 1000")).await.unwrap();
        for execution in runs.iter_mut().chain([&mut beside]) {
            assert!(execution.started().await);
        }
        let rest = runs.split_off(50);
        let (first, second) = (Cause::Killed { reason: "first".into() }, Cause::Killed { reason: "second".into() });
        for execution in &runs {
            execution.kill("first").await;
        }
        for execution in runs {
            assert_eq!(finish(execution).await.report.cause, first);
        }
        for execution in &rest {
            execution.kill("second").await;
        }
        for execution in rest {
            assert_eq!(finish(execution).await.report.cause, second, "it lived until it was meant");
        }
        beside.kill("second").await;
        assert_eq!(beside.wait().await.cause, second);
        world.close(session).await;
        world.close(other).await;
    });
}

#[test]
fn runs_leave_no_descriptor_in_the_holder() {
    row(async |world| {
        let session = world.session().await;
        let holder = descendants(session.helper_process().unwrap().cast_signed())[0];
        // An ordinary user may not look there: it is closed to the tools, whose user it is.
        let open = || std::fs::read_dir(format!("/proc/{holder}/fd")).map(Iterator::count).ok();
        assert_eq!(open().is_some(), is_root());
        let before = open();
        for _ in 0..20 {
            assert!(run(&session, sh("exit 0")).await.report.success());
            assert!(!run(&session, program("/none", &[])).await.report.success());
        }
        assert_eq!(open(), before);
        world.close(session).await;
    });
}
