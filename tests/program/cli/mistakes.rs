//! Mistakes: what they cost, which is nothing where they can be seen beforehand, and how they are told.

use super::*;

#[test]
fn a_mistake_that_can_be_seen_beforehand_opens_no_session_and_costs_nothing() {
    let cast = cast();
    write(&cast, "here.txt", "one two\n");
    write(&cast, "folder/f", "");
    write(&cast, "bad.json", "{");
    write(&cast, "locked/f", "");
    let shut = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(cast.root.path().join("locked"), shut).unwrap();
    let cases: &[(&[&str], u8, &str)] = &[
        (&["wait", "seconds=1", "--in", "nofile"], 123, "nofile"),
        (&["wait", "seconds=1", "--in", "here.txt:../x"], 123, "../x"),
        (&["wait", "seconds=1", "--in", "here.txt:a//b"], 123, "a//b"),
        (&["wait", "seconds=1", "--stdin", "nofile"], 123, "nofile"),
        (&["wait", "seconds=1", "--stdin", "folder"], 123, "it is a folder"),
        (&["wait", "--args-json", "@nofile"], 123, "nofile"),
        (&["wait", "--args-json", "@bad.json"], 125, "--args-json is not JSON"),
        (&["wait", "--args-json", "[1]"], 125, "not a JSON object"),
        (&["wait", "seconds=1", "--out", "a/../../b"], 123, "a/../../b"),
        (&["wait", "seconds=1", "--out", "out:here.txt/x"], 123, "here.txt"),
        (&["wait", "seconds=1", "--max-cost", "0"], 125, "maxCost"),
        (&["wait", "seconds=1", "--max-cost", "-1"], 125, "without sign"),
        (&["wait", "seconds=101"], 125, "bad_arguments"),
        (&["wait"], 125, "`seconds` is required"),
        (&["wait", "seconds=x"], 125, "whole number from 0 to 100"),
        (&["wait", "seconds"], 125, "NAME=VALUE"),
        (&["wait", "seconds=1", "more=1"], 125, "`more` is unknown"),
        (&["wait", "seconds=1", "--provider", "nobody"], 121, "nobody"),
        (&["nope", "--provider", "test_bench_0"], 121, "does not offer nope"),
        (&["wait", "seconds=1", "--region", "mars"], 121, "not in mars"),
    ];
    for (words, code, said) in cases {
        let output = ask(&cast, &[&["run"][..], words, &["--budget", "0.5"]].concat());
        assert_eq!(output.status.code(), Some((*code).into()), "{words:?}: {}{}", out(&output), err(&output));
        assert!(err(&output).contains(said) && !err(&output).contains("it cost"), "{words:?}: {}", err(&output));
    }
    let output = ask(&cast, &["run", "wait", "seconds=1", "--budget", "-1"]);
    assert!(output.status.code() == Some(125) && !err(&output).contains("unexpected argument"), "{}", err(&output));
    // Less than one interval.
    let output = ask(&cast, &["run", "wait", "seconds=1", "--budget", "0.009"]);
    assert_eq!(output.status.code(), Some(120), "{}", err(&output));
    assert_eq!(sessions(&cast), Vec::<Value>::new());
    assert_eq!(micros(&cast.ledger()["settled"]), 0);
    // What is wrong with an argument is said once.
    let output = ask(&cast, &["run", "wait", "seconds=x", "--budget", "0.5"]);
    assert_eq!(err(&output).matches("whole number").count(), 1, "{}", err(&output));
    // And what is right is taken as before, typed as the offer says.
    let output = ask(&cast, &["run", "wait", "seconds=0", "--provider", "test_bench_0", "--timeout", "1h", "--budget", "0.5"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(err(&output).contains("--timeout is longer"), "{}", err(&output));
}

#[test]
fn a_session_of_one_command_has_no_successor_and_ends_by_itself_unless_told_otherwise() {
    let cast = cast();
    let words = ["run", "wait", "seconds=0", "--budget", "0.5", "-q"];
    assert_eq!(ask(&cast, &words).status.code(), Some(0));
    let session = &sessions(&cast)[0];
    assert_eq!((&session["failover"], &session["idleTimeoutSeconds"]), (&json!(false), &json!(600)), "{session}");
    let kept = ask_json(&cast, &[&words[..], &["--keep", "--failover", "--json"]].concat());
    let session = ask_json(&cast, &["session", "show", kept["sessionId"].as_str().unwrap(), "--json"]);
    assert_eq!((&session["failover"], &session["idleTimeoutSeconds"]), (&json!(true), &Value::Null), "{session}");
    // That is what the help says.
    let help = |words: &[&str]| out(&run(words)).split_whitespace().collect::<Vec<_>>().join(" ");
    let own = help(&["run", "--help"]);
    assert!(own.contains("the run is not repeated [default: no]") && own.contains("[default: 10m, with --keep none]"), "{own}");
    assert!(own.contains("the run was cancelled and the session ended"), "{own}");
    let open = help(&["session", "open", "--help"]);
    assert!(open.contains("[default: the gateway's, which is yes with `auto`]"), "{open}");
    // Ctrl-C in a session that one has opened leaves it open.
    let other = help(&["session", "run", "--help"]);
    assert!(other.contains("the run was cancelled, the session stays open") && !other.contains("session ended"), "{other}");
}

#[test]
fn failures_are_json_where_json_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    for words in [
        &["audit", "--json", "/no/such/file"][..],
        &["keys", "--json", "--data-dir", at],
        &["earnings", "--json", "--data-dir", at],
        &["settlement", "batches", "--json", "--data-dir", at],
        &["token", "list", "--json", "--data-dir", at],
    ] {
        let output = orien().args(words).env("ORIEN_HOME", at).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {}", out(&output)));
        assert_eq!(told["error"]["exitCode"].as_i64(), output.status.code().map(i64::from), "{words:?}: {told}");
        let said = told["error"]["message"].as_str().unwrap();
        assert!(said.matches("No such file").count() <= 1 && !err(&output).is_empty(), "{words:?}: {said}");
    }
    std::fs::write(folder.path().join("broken.json"), "{\"format\": 7}").unwrap();
    let output = run(&["audit", folder.path().join("broken.json").to_str().unwrap()]);
    assert!(err(&output).contains("neither be read as a batch nor as the evidence of a session"), "{}", err(&output));
}
