//! The level is what holds, each weaker level still confines, and what a host lacks is named.

use std::time::Duration;

use orien_sandbox::{Cause, Layer, Level, OpenError, Profile, Sandbox, SandboxConfig, SessionSpec, Storage, View};

use crate::support::{Ground, config, descendants, python, run, sh, spec, until};

fn at(level: Level) -> impl FnOnce(&mut SandboxConfig) {
    move |config| (config.min_level, config.max_level) = (level, level)
}

#[tokio::test]
async fn this_host_confines_with_namespaces() {
    let ground = Ground::new().await;
    assert!(ground.sandbox.level() >= Level::S2);
    let survey = ground.sandbox.survey();
    let held = survey.tried.last().unwrap();
    assert_eq!((held.level, &held.failure), (ground.sandbox.level(), &None));
    assert!(held.checks.len() > 10 && held.checks.iter().all(|check| check.held), "{:#?}", held.checks);
}

#[tokio::test]
async fn a_level_that_this_host_does_not_reach_is_refused_with_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.min_level = Level::S3;
    match Sandbox::open(config).await {
        Ok(sandbox) => assert_eq!(sandbox.level(), Level::S3),
        Err(OpenError::Weak { level, needed, why }) => {
            assert_eq!((level, needed), (Level::S2, Level::S3));
            assert!(why.contains("control groups") && why.contains("Delegate=yes"), "{why}");
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_layer_that_is_left_out_is_noticed_and_the_level_is_not_claimed() {
    for layer in [Layer::Landlock, Layer::Seccomp, Layer::Capabilities] {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        config.without = vec![layer];
        let opened = Sandbox::open(config).await;
        // Access rules are the second line behind mounts: with namespaces their absence shows only in the suite's own rows.
        match layer {
            Layer::Landlock => assert!(opened.is_ok()),
            _ => assert!(matches!(opened, Err(OpenError::Weak { .. })), "{layer:?}"),
        }
    }
}

#[tokio::test]
async fn root_is_never_a_user_of_tools() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.first_user = 0;
    assert!(matches!(Sandbox::open(config).await, Err(OpenError::Users(0))));

    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(spec("/usr/bin/sleep", &["1000"])).await.unwrap();
    assert!(execution.started().await);
    let tree = descendants(i32::try_from(session.helper_process().unwrap()).unwrap());
    let users: Vec<String> = tree
        .iter()
        .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap())
        .map(|status| status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned())
        .collect();
    assert!(users.len() >= 3, "holder, stubs and tool: {users:?}");
    for user in users {
        let ids: Vec<u32> = user.split_whitespace().skip(1).map(|id| id.parse().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == orien_sandbox::FIRST_USER_DEFAULT), "{user}");
    }
    execution.kill("done").await;
    execution.wait().await;
    session.close().await.unwrap();
}

#[tokio::test]
async fn without_namespaces_access_rules_and_filter_still_hold() {
    if rustix::process::geteuid().is_root() {
        // Its directories are root's alone, and the weaker levels have no mounts of their own to show a part of them.
        return;
    }
    let ground = Ground::with(at(Level::S1)).await;
    assert_eq!(ground.sandbox.level(), Level::S1);
    let session = ground.session().await;
    assert!(run(&session, sh("echo x > made && cat made && rm made")).await.report.success());
    for script in ["cat /etc/shadow", "ls /root", "echo x > /etc/x", "ls ..", "echo x > ../secret", "kill -0 $PPID"] {
        assert!(!run(&session, sh(script)).await.report.success(), "{script}");
    }
    let sockets =
        python("import socket\nfor f in (socket.AF_INET, socket.AF_INET6):\n try: socket.socket(f); print('open')\n except OSError: pass");
    assert_eq!(run(&session, sockets).await.text(), "");
    session.close().await.unwrap();
}

#[tokio::test]
async fn shared_places_are_seen_read_only_and_only_by_the_runs_they_are_for() {
    let ground = Ground::new().await;
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(shared.path().join("scripts")).unwrap();
    let script = shared.path().join("scripts/hello");
    std::fs::write(&script, "#!/bin/sh\necho hello\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let view = |execute| View { path: shared.path().join("scripts"), execute };
    let of = |views| Profile { views, ..Profile::default() };
    let profiles = [of(vec![view(false)]), of(vec![]), of(vec![view(true)])];
    let mut config = SessionSpec { profiles: profiles[..2].to_vec(), storage: Storage::Memory, ..SessionSpec::default() };
    let session = ground.session_of(config.clone()).await;
    let name = script.to_str().unwrap();
    let with = |script: String, profile| {
        let mut spec = sh(&script);
        spec.profile = profile;
        spec
    };
    assert_eq!(run(&session, with(format!("sh {name}"), 0)).await.text(), "hello\n");
    assert!(!run(&session, with(format!("echo x >> {name}"), 0)).await.report.success());
    assert!(!run(&session, with(format!("touch {name}2"), 0)).await.report.success());
    assert_eq!(run(&session, with(name.to_owned(), 0)).await.report.cause, Cause::Exited(126), "read only is not executable");
    assert!(!run(&session, with(format!("cat {name}"), 1)).await.report.success(), "a run without it does not see it");
    session.close().await.unwrap();
    config.profiles = profiles[2..].to_vec();
    let session = ground.session_of(config).await;
    assert_eq!(run(&session, with(name.to_owned(), 0)).await.text(), "hello\n");
    session.close().await.unwrap();
    let missing = SessionSpec { profiles: vec![of(vec![View { path: "/none/such".into(), execute: false }])], ..SessionSpec::default() };
    let refused = ground.sandbox.session("other", missing).await.unwrap_err().to_string();
    assert!(refused.contains("/none/such: it does not exist"), "{refused}");
}

#[tokio::test]
async fn a_workspace_in_memory_is_a_file_system_of_its_own_size() {
    let ground = Ground::new().await;
    let limits = orien_sandbox::SessionLimits { workspace_bytes: 4 << 20, workspace_entries: 200, parallel_runs: 2 };
    let session = ground.session_of(SessionSpec { limits, ..SessionSpec::default() }).await;
    let path = orien_sandbox::WorkPath::parse("in/put").unwrap();
    let mut upload = session.files().create_write(&path, false, 100).await.unwrap();
    upload.write(b"hello".to_vec()).await.unwrap();
    upload.commit().await.unwrap();
    let full = run(&session, sh("cat in/put; head -c 8000000 /dev/zero > big; echo $?; ls -l big | wc -l")).await;
    assert!(full.text().starts_with("hello1\n"), "{full:?}");
    assert!(matches!(session.start(sh("exit 0")).await, Err(orien_sandbox::StartError::WorkspaceFull)));
    let refused = session.files().create_write(&path, false, 100).await;
    assert!(matches!(refused, Err(orien_sandbox::FileError::WorkspaceFull)));
    session.files().remove(&orien_sandbox::WorkPath::parse("big").unwrap()).await.unwrap();
    for _ in 0..20 {
        let refused = session.files().create_write(&path, false, 100 << 20).await;
        assert!(matches!(refused, Err(orien_sandbox::FileError::WorkspaceFull)), "there is no room for what it announces");
    }
    // A tool may take the room that was set aside: then the upload finds none.
    let mut late = session.files().create_write(&path, false, 1 << 20).await.unwrap();
    run(&session, sh("head -c 8000000 /dev/zero > big")).await;
    late.write(vec![1; 1 << 20]).await.unwrap();
    assert!(matches!(late.hash().await, Err(orien_sandbox::FileError::WorkspaceFull)));
    drop(late);
    session.files().remove(&orien_sandbox::WorkPath::parse("big").unwrap()).await.unwrap();
    let entries = run(&session, sh("i=0; while mkdir d$i; do i=$((i+1)); done; echo $i")).await;
    let made: u32 = entries.text().trim().parse().unwrap();
    assert!(made > 100 && made < 200, "{made}");
    assert_eq!(std::fs::read_dir(ground.sandbox.root()).unwrap().count(), 1, "nothing on disk but the trash");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_control_group_counts_what_a_tool_hides() {
    let ground = Ground::with(|config| config.count_in_groups = true).await;
    let session = match ground.sandbox.session("counted", SessionSpec::default()).await {
        Ok(session) => session,
        Err(error) => panic!("{error}"),
    };
    // A child whose parent refuses to be told of its end is in no process's own count.
    let hide = "
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    end = time.process_time() + 0.4
    while time.process_time() < end: pass
    os._exit(0)
time.sleep(1.5)
";
    let report = run(&session, python(hide)).await.report;
    assert!(report.success());
    let groups = std::path::Path::new("/sys/fs/cgroup/unified").exists() && rustix::process::geteuid().is_root();
    if groups {
        assert!(report.usage.cpu >= Duration::from_millis(380), "{:?}", report.usage);
    }
    let helper = i32::try_from(session.helper_process().unwrap()).unwrap();
    session.close().await.unwrap();
    until("the helper is gone", || descendants(helper).is_empty()).await;
}
