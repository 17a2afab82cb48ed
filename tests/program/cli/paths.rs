//! Folders and names: what is removed, what is made, and what `last` means.

use super::*;

fn files(cast: &Cast, session: &str) -> Vec<String> {
    let listed = ask_json(cast, &["session", "files", session, "--json"]);
    listed["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_full_folder_is_removed_only_if_that_was_said() {
    let cast = cast();
    let session = cast.open("0.5");
    write(&cast, "keep/sub/f", "precious");
    assert!(ask(&cast, &["session", "cp", "keep", &format!("{session}:"), "-q"]).status.success());
    let word = format!("{session}:keep");
    let output = ask(&cast, &["session", "rm", &word]);
    assert_eq!(output.status.code(), Some(125), "{}", err(&output));
    assert!(err(&output).contains("folder_not_empty") && err(&output).contains("rm -r"), "{}", err(&output));
    assert_eq!(files(&cast, &session), ["keep", "keep/sub", "keep/sub/f"]);
    // One by one it goes without.
    for path in ["keep/sub/f", "keep/sub"] {
        assert!(ask(&cast, &["session", "rm", &format!("{session}:{path}")]).status.success(), "{path}");
    }
    assert!(ask(&cast, &["session", "cp", "keep", &format!("{session}:"), "-q"]).status.success());
    assert!(ask(&cast, &["session", "rm", "-r", &word]).status.success());
    assert_eq!(files(&cast, &session), Vec::<String>::new());
    assert_eq!(ask(&cast, &["session", "rm", "-r", &word]).status.code(), Some(121), "it is gone");
    cast.end(&session);
}

#[test]
fn empty_folders_go_both_ways() {
    let cast = cast();
    let session = cast.open("0.5");
    write(&cast, "tree/a", "1");
    std::fs::create_dir_all(cast.root.path().join("tree/empty/er")).unwrap();
    let up = || ask_json(&cast, &["session", "cp", "--json", "tree", &format!("{session}:")]);
    assert_eq!(up()["folders"], 2);
    assert_eq!(files(&cast, &session), ["tree", "tree/a", "tree/empty", "tree/empty/er"]);
    assert_eq!(up()["folders"], 0, "they are there already");
    assert!(ask(&cast, &["session", "cp", "-q", &format!("{session}:tree/"), "back"]).status.success());
    assert!(cast.root.path().join("back/empty/er").is_dir());
    cast.end(&session);
}

#[test]
fn the_last_session_can_be_looked_at_after_its_end_and_worked_in_only_before() {
    let cast = cast();
    let session = cast.open("0.5");
    cast.end(&session);
    for what in ["show", "receipts"] {
        let told = ask_json(&cast, &["session", what, "last", "--json"]);
        assert!(told.to_string().contains(&session), "{what}: {told}");
    }
    let output = ask(&cast, &["session", "run", "last", "wait", "seconds=0"]);
    assert!(output.status.code() == Some(121) && err(&output).contains("none is active"), "{}", err(&output));
}

#[test]
fn every_command_takes_the_folder_of_a_development_network_for_the_role_in_it() {
    let cast = cast();
    let root = cast.root.path().to_str().unwrap();
    let ledger = run(&["settlement", "ledger", "--json", "--data-dir", root]);
    assert!(ledger.status.success() && out(&ledger).contains("granted"), "{}", err(&ledger));
    let account = run(&["settlement", "account", "0x0000000000000000000000000000000000000001", "--json", "--data-dir", root]);
    assert!(!err(&account).contains("orien settlement --data-dir"), "{}", err(&account));
}
