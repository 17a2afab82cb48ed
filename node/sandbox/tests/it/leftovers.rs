//! What an earlier process left behind is gone once the sandbox is open.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use orien_sandbox::{OpenError, Sandbox, SandboxConfig};

use crate::support::{HELPER, config, processes_below};

#[tokio::test]
async fn opening_removes_workspaces_and_kills_processes_of_an_earlier_start() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("workspaces");
    std::fs::create_dir_all(root.join("old").join("work/a/b")).unwrap();
    std::fs::create_dir_all(root.join(".trash/pile-0/3/x")).unwrap();
    std::fs::write(root.join("old").join("work/a/file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    let mut at_home = Command::new("/bin/sleep");
    at_home.arg("1000").env("HOME", root.canonicalize().unwrap().join("old/work")).current_dir("/").process_group(0);
    let mut at_home = at_home.spawn().unwrap();
    let mut standing = Command::new("/usr/bin/setsid");
    standing.args(["--wait", "/bin/sleep", "1000"]).current_dir(root.join("old/work")).stdin(Stdio::null());
    let mut standing = standing.spawn().unwrap();
    let collector = std::thread::spawn(move || (at_home.wait().unwrap(), standing.wait().unwrap()));

    let sandbox = Sandbox::open(config(directory.path())).await.unwrap();
    collector.join().unwrap();
    assert_eq!(processes_below(sandbox.root()), [] as [i32; 0]);
    let left: Vec<_> = std::fs::read_dir(sandbox.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".trash"]);
    assert_eq!(std::fs::read_dir(sandbox.root().join(".trash")).unwrap().count(), 0);
    assert!(std::path::Path::new("/etc/passwd").exists());
}

#[tokio::test]
async fn a_tree_that_cannot_be_removed_does_not_keep_the_node_from_starting() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make such a tree here.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let stuck = directory.path().join("workspaces/stuck/work");
    std::fs::create_dir_all(&stuck).unwrap();
    std::fs::create_dir_all(directory.path().join("workspaces/other")).unwrap();
    std::fs::create_dir_all(directory.path().join("workspaces/.trash")).unwrap();
    let mounted = Command::new("/usr/bin/mount").args(["-t", "tmpfs", "none"]).arg(&stuck).status().unwrap();
    assert!(mounted.success());
    let opened = Sandbox::open(config(directory.path())).await.map(|sandbox| sandbox.level());
    let left: Vec<_> = find_mounts(directory.path());
    for place in &left {
        assert!(Command::new("/usr/bin/umount").arg(place).status().unwrap().success());
    }
    assert_eq!((left.len(), opened.is_ok()), (1, true), "{opened:?}");
    assert!(!directory.path().join("workspaces/other").exists(), "the rest is removed all the same");
    Sandbox::open(config(directory.path())).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path().join("workspaces/.trash")).unwrap().count(), 0);
}

/// Where something is mounted below a directory, also after it was moved.
fn find_mounts(below: &std::path::Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| std::path::Path::new(point).starts_with(below)).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_tools_session_is_the_first_to_go_when_memory_runs_out() {
    let ground = crate::support::Ground::new().await;
    let session = ground.session().await;
    let done =
        crate::support::run(&session, crate::support::sh("cat /proc/self/oom_score_adj; echo -1000 > /proc/self/oom_score_adj")).await;
    assert!(done.text().starts_with("1000\n") && !done.report.success(), "{done:?}");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_root_that_is_a_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let config = SandboxConfig { root: file, ..config(directory.path()) };
    assert!(matches!(Sandbox::open(config).await, Err(OpenError::Root { .. })));
}

#[tokio::test]
async fn a_directory_that_holds_something_else_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thesis"), "x").unwrap();
    let config = SandboxConfig { root: directory.path().to_owned(), ..config(directory.path()) };
    assert!(matches!(Sandbox::open(config).await, Err(OpenError::NotOurs(_))));
    assert!(directory.path().join("thesis").exists());
}

#[test]
fn only_the_hidden_word_is_a_call_of_the_helper() {
    assert!(orien_sandbox::is_helper_call(&["orien", "sandbox-init"]));
    for args in [&["orien"][..], &["orien", "node"], &["sandbox-init"], &["orien", "node", "sandbox-init"]] {
        assert!(!orien_sandbox::is_helper_call(args));
    }
}

#[test]
fn a_helper_that_somebody_starts_by_hand_ends_with_a_failure() {
    for word in ["sandbox-init", "other"] {
        let status = Command::new(HELPER).arg(word).stdin(Stdio::null()).status().unwrap();
        assert!(!status.success(), "{word}");
    }
}
