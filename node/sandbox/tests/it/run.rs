//! What a tool finds when it starts, and what is reported when it ends.

use std::os::unix::fs::PermissionsExt as _;

use orien_sandbox::{Cause, EnvError, Level, SessionError, SessionLimits, SessionSpec, StartError, Storage, WorkPath};

use crate::support::{Ground, builder, run, sh, spec};

#[tokio::test]
async fn the_environment_is_exactly_what_is_stated() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut env = spec("/usr/bin/env", &[]);
    env.env = vec![("TOOL_MODE".into(), "two words".into())];
    let done = run(&session, env).await;
    let mut lines: Vec<_> = done.text().lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["HOME=/workspace", "LANG=C.UTF-8", path, "TMPDIR=/tmp", "TOOL_MODE=two words"]);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_tool_starts_in_its_workspace_with_empty_input_and_makes_private_files() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let done = run(&session, sh("pwd; cat; touch made; ulimit -c")).await;
    assert_eq!(done.text(), "/workspace\n0\n");
    let mode = std::fs::metadata(ground.work().join("made")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let root = std::fs::metadata(ground.sandbox.root()).unwrap().permissions().mode();
    assert_eq!(root & 0o777, 0o700);
    assert_eq!(ground.sandbox.level(), Level::S2);
    session.close().await.unwrap();
}

#[tokio::test]
async fn output_and_errors_are_kept_apart_and_every_byte_arrives() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let done = run(&session, sh("printf 'out\\0\\377'; printf err >&2; head -c 3000000 /dev/zero")).await;
    assert_eq!(&done.stdout[..5], b"out\0\xff");
    assert_eq!((done.stdout.len(), done.stderr.as_slice()), (3_000_005, b"err".as_slice()));
    assert_eq!((done.report.stdout_bytes, done.report.stderr_bytes), (3_000_005, 3));
    assert!(!done.report.output_truncated);
    session.close().await.unwrap();
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported_as_they_are() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    for (script, cause) in [
        ("exit 0", Cause::Exited(0)),
        ("exit 3", Cause::Exited(3)),
        ("exit 127", Cause::Exited(127)),
        ("kill -SEGV $$", Cause::Signalled(11)),
        ("kill -TERM 0", Cause::Signalled(15)),
    ] {
        let done = run(&session, sh(script)).await;
        assert_eq!(done.report.cause, cause, "{script}");
        assert_eq!(done.report.usage.effective, done.report.wall);
        assert_eq!(done.report.survivors, 0);
    }
    session.close().await.unwrap();
}

#[tokio::test]
async fn arguments_reach_the_tool_as_they_are() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let tricky = ["%s|", "$(id)", "`id`", "; id", "*", "", "a b", "\n", "--version"];
    let done = run(&session, spec("/usr/bin/printf", &tricky)).await;
    assert_eq!(done.text(), "$(id)|`id`|; id|*||a b|\n|--version|");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_program_that_cannot_start_is_a_failed_setup_and_no_exit_code() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    std::fs::write(ground.work().join("not-executable"), "x").unwrap();
    let not_executable = ground.work().join("not-executable");
    for program in ["/no/such/program", "/etc", not_executable.to_str().unwrap()] {
        let mut execution = session.start(spec(program, &[])).await.unwrap();
        assert!(!execution.started().await);
        let report = execution.wait().await;
        assert!(matches!(&report.cause, Cause::SetupFailed { stage, .. } if stage == "exec"), "{:?}", report.cause);
        assert!(report.usage.effective.is_zero());
        assert_eq!(report, execution.wait().await, "asking again gives the same");
    }
    assert!(run(&session, sh("exit 0")).await.report.success(), "the session goes on");
    session.close().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_before_anything_starts() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut preload = sh("exit 0");
    preload.env = vec![("LD_PRELOAD".into(), "x".into())];
    assert!(matches!(session.start(preload).await, Err(StartError::Env(EnvError::Denied(_)))));
    let mut memory = sh("exit 0");
    memory.limits.memory_bytes = 1;
    assert!(matches!(session.start(memory).await, Err(StartError::Limits(_))));
    assert!(matches!(session.start(spec("sh", &[])).await, Err(StartError::Program(_))));
    session.close().await.unwrap();
}

#[tokio::test]
async fn sessions_have_proper_names_and_fresh_directories() {
    let ground = Ground::new().await;
    for name in ["", ".", "..", ".trash", "a/b", "-rf", "a\0", "\u{fc}", &"x".repeat(65)] {
        let refused = ground.sandbox.session(name, SessionSpec::default()).await;
        assert!(matches!(refused, Err(SessionError::Name(_))), "{name:?}");
    }
    let session = ground.session().await;
    let again = ground.sandbox.session("session", SessionSpec { storage: Storage::Disk, ..SessionSpec::default() }).await;
    assert!(matches!(again, Err(SessionError::Exists(_))));
    std::fs::write(ground.work().join("old"), "x").unwrap();
    session.close().await.unwrap();
    let session = ground.session().await;
    assert!(session.files().stat(&WorkPath::parse("old").unwrap()).await.is_err());
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_session_runs_as_many_tools_at_once_as_it_may() {
    let ground = Ground::new().await;
    let limits = SessionLimits { parallel_runs: 2, ..SessionLimits::default() };
    let session = ground.session_within(limits).await;
    let mut first = session.start(sh("sleep 1000")).await.unwrap();
    let second = session.start(sh("sleep 1000")).await.unwrap();
    assert!(matches!(session.start(sh("exit 0")).await, Err(StartError::Busy(2))));
    first.kill("make room").await;
    assert_eq!(first.wait().await.cause, Cause::Killed { reason: "make room".into() });
    assert!(run(&session, sh("exit 0")).await.report.success());
    assert!(second.usage().effective <= crate::support::PATIENCE);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_compiler_works_inside_and_its_product_runs_where_that_is_permitted() {
    let ground = Ground::new().await;
    let session = ground.session_of(builder()).await;
    let script = "printf 'int main(){return 5;}' > a.c && cc a.c -o a && ./a";
    let done = run(&session, sh(script)).await;
    assert_eq!(done.report.cause, Cause::Exited(5), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.report.usage.peak_memory_bytes > 0);
    session.close().await.unwrap();
}
