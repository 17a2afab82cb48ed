//! Each limit is really enforced, against tools that do not cooperate.

use std::time::Duration;

use orien_sandbox::{Cause, OnOutputLimit, SessionLimits, StartError};

use crate::support::{Ground, PATIENCE, python, run, sh, until};

/// 32 processes that ignore every polite signal; half are daemons with sessions of their own.
const STUBBORN: &str = "
import os, signal, time
for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD): signal.signal(s, signal.SIG_IGN)
for n in range(31):
    if os.fork() == 0:
        if n % 2:
            os.setsid()
            if os.fork(): os._exit(0)
            os.chdir('/')
        while True: time.sleep(100)
open('ready', 'w').close()
while True: time.sleep(100)
";

#[tokio::test]
async fn a_timeout_kills_a_stubborn_tree_with_its_daemons() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut stubborn = python(STUBBORN);
    stubborn.limits.wall = Duration::from_secs(2);
    let mut execution = session.start(stubborn).await.unwrap();
    until("all processes run", || ground.processes().len() == 32).await;
    let report = execution.wait().await;
    assert_eq!((report.cause, report.survivors), (Cause::TimedOut, 0));
    assert!(report.usage.effective >= Duration::from_secs(2));
    assert_eq!(ground.processes(), [] as [i32; 0]);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_daemon_dies_with_the_tool_that_left_it_behind() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let daemon = "
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    open('daemon', 'w').close()
    time.sleep(1000)
while not os.path.exists('daemon'): time.sleep(0.01)
";
    let done = run(&session, python(daemon)).await;
    assert!(done.report.success());
    assert_eq!(ground.processes(), [] as [i32; 0]);
    session.close().await.unwrap();
}

#[tokio::test]
async fn cpu_time_is_limited_and_measured_for_the_whole_tree() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut burner = python("import os\nos.fork()\nos.fork()\nwhile True: pass");
    burner.limits.cpu = Duration::from_secs(1);
    let done = run(&session, burner).await;
    assert_eq!(done.report.cause, Cause::CpuLimit);
    assert!(done.report.usage.cpu >= Duration::from_millis(900), "{:?}", done.report.usage);
    session.close().await.unwrap();
}

#[tokio::test]
async fn memory_is_limited_for_one_process_and_for_the_tree() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut private = python("x = bytearray(400 << 20)");
    private.limits.memory_bytes = 128 << 20;
    let done = run(&session, private).await;
    assert!(!done.report.success());
    assert!(done.report.usage.peak_memory_bytes <= 160 << 20);
    let mut shared = python("import mmap, time\nm = mmap.mmap(-1, 400 << 20)\nm.write(b'x' * (400 << 20))\ntime.sleep(1000)");
    shared.limits.memory_bytes = 128 << 20;
    let mut several = python("import os, time\nos.fork(); os.fork()\nx = bytearray(os.urandom(1 << 20)) * 60\ntime.sleep(1000)");
    several.limits.memory_bytes = 128 << 20;
    for script in [shared, several] {
        let done = run(&session, script).await;
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        let refused = done.report.cause == Cause::Exited(1) && told.contains("MemoryError");
        assert!(done.report.cause == Cause::MemoryLimit || refused, "{:?} {told}", done.report);
    }
    session.close().await.unwrap();
}

#[tokio::test]
async fn processes_are_limited() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut many = python(
        "
import os, sys, time
for n in range(200):
    try:
        if os.fork() == 0: time.sleep(1000)
    except BlockingIOError: sys.exit(7)
time.sleep(1000)",
    );
    many.limits.processes = 20;
    let done = run(&session, many).await;
    // The stub's look at the tree, or, when the session has no other run, the kernel.
    assert!(matches!(done.report.cause, Cause::Exited(7) | Cause::ProcessLimit), "{:?}", done.report);
    assert_eq!(ground.processes(), [] as [i32; 0]);
    session.close().await.unwrap();
}

#[tokio::test]
async fn file_size_and_open_files_are_limited() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut big = python("import sys\ntry: open('big', 'wb').write(b'x' * (2 << 20))\nexcept OSError as e: sys.exit(e.errno)");
    big.limits.file_bytes = 1 << 20;
    assert_eq!(run(&session, big).await.report.cause, Cause::Exited(27), "EFBIG");
    let mut open = python("import sys\ntry: f = [open('/dev/null') for n in range(100)]\nexcept OSError as e: sys.exit(e.errno)");
    open.limits.open_files = 32;
    assert_eq!(run(&session, open).await.report.cause, Cause::Exited(24), "EMFILE");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_workspace_that_outgrows_its_limits_ends_the_run_and_takes_no_further_one() {
    let ground = Ground::new().await;
    let limits = SessionLimits { workspace_bytes: 4 << 20, workspace_entries: 1_000, ..SessionLimits::default() };
    let session = ground.session_within(limits).await;
    let bytes = sh("n=0; while :; do n=$((n+1)); head -c 500000 /dev/zero > $TMPDIR/f$n; sleep 0.02; done");
    assert_eq!(run(&session, bytes).await.report.cause, Cause::DiskLimit);
    assert!(matches!(session.start(sh("exit 0")).await, Err(StartError::WorkspaceFull)));
    std::fs::remove_dir_all(ground.work().with_file_name("tmp")).unwrap();
    std::fs::create_dir(ground.work().with_file_name("tmp")).unwrap();
    let entries = python("import os, time\nfor n in range(2000): os.mkdir(f'd{n}')\ntime.sleep(1000)");
    assert_eq!(run(&session, entries).await.report.cause, Cause::DiskLimit);
    session.close().await.unwrap();
}

#[tokio::test]
async fn too_much_output_kills_the_tool_or_is_thrown_away_as_configured() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut flood = sh("yes & yes >&2");
    flood.limits.output_bytes = 100_000;
    let done = run(&session, flood).await;
    assert_eq!(done.report.cause, Cause::OutputLimit);
    assert!(done.report.output_truncated);
    assert_eq!(done.stdout.len() + done.stderr.len(), 100_000);

    let mut chatty = sh("head -c 5000000 /dev/zero; exit 4");
    chatty.limits.output_bytes = 100_000;
    chatty.limits.on_output_limit = OnOutputLimit::Drain;
    let done = run(&session, chatty).await;
    assert_eq!((done.report.cause, done.stdout.len()), (Cause::Exited(4), 100_000));
    assert_eq!((done.report.stdout_bytes, done.report.output_truncated), (5_000_000, true));
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_does_not_read_makes_the_tool_wait_and_loses_nothing() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(sh("head -c 8000000 /dev/zero; touch done")).await.unwrap();
    let mut output = execution.output().unwrap();
    assert!(execution.started().await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!ground.work().join("done").exists(), "it waits on a full pipe");
    let mut total = 0;
    while let Some(chunk) = output.recv().await {
        total += chunk.bytes.len();
    }
    assert_eq!(total, 8_000_000);
    assert!(execution.wait().await.success());

    let mut unread = session.start(sh("head -c 8000000 /dev/zero")).await.unwrap();
    let report = tokio::time::timeout(PATIENCE, unread.wait()).await.unwrap();
    assert!(report.success(), "output that nobody took is thrown away");
    session.close().await.unwrap();
}

#[tokio::test]
async fn set_user_id_programs_gain_nothing() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let done = run(&session, sh("grep NoNewPrivs /proc/self/status")).await;
    assert_eq!(done.text().trim(), "NoNewPrivs:\t1");
    session.close().await.unwrap();
}
