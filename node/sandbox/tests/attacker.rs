//! The attack program itself: that it does not attack whoever runs it outside of a sandbox, and tells what it finds.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is the test failing")]

use std::path::Path;
use std::process::{Command, Output};

fn attacker(here: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orien-sandbox-attacker")).args(args).current_dir(here).output().unwrap()
}

#[test]
fn outside_of_a_workspace_it_refuses_and_does_nothing() {
    let here = tempfile::tempdir().unwrap();
    // Of the rows that are refused, those that would leave no more than a file if they were not.
    for args in [&["A25"][..], &["A31"], &["B17", "max=1"], &["B19"]] {
        let done = attacker(here.path(), args);
        assert_eq!(done.status.code(), Some(200), "{args:?}");
        assert!(done.stdout.is_empty(), "{args:?}");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "{args:?} left something");
    }
}

#[test]
fn a_secret_that_is_in_reach_is_found() {
    let here = tempfile::tempdir().unwrap();
    let secret = here.path().join("secret");
    std::fs::write(&secret, "found it").unwrap();
    let absent = here.path().join("absent");
    let done = attacker(here.path(), &["A01", &format!("secret={}", secret.display()), &format!("secret={}", absent.display())]);
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(told["row"], "A01");
    let tried = |path: &Path| {
        let what = format!("read {}", path.display());
        told["tries"].as_array().unwrap().iter().find(|tried| tried["what"] == what.as_str()).unwrap().clone()
    };
    assert_eq!(tried(&secret)["ok"], true);
    assert_eq!(tried(&secret)["text"], "found it");
    assert_eq!(tried(&absent)["errno"], 2);
}
