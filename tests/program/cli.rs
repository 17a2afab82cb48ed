//! The commands of an agent, as a person types them and as a script reads them.

mod mistakes;
mod paths;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{micros, orien, run, wait_for};

/// A command that asks the gateway of this cast.
fn agent(cast: &Cast, words: &[&str]) -> Command {
    let mut command = orien();
    command.args(words).env("ORIEN_DATA_DIR", &cast.gateways[0].folder).current_dir(cast.root.path()).stdin(Stdio::null());
    command
}

fn ask(cast: &Cast, words: &[&str]) -> Output {
    agent(cast, words).output().unwrap()
}

#[track_caller]
fn ask_json(cast: &Cast, words: &[&str]) -> Value {
    let output = ask(cast, words);
    assert!(output.status.success(), "{words:?}: {}", err(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {}", out(&output)))
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A cast whose gateway knows its provider.
fn cast() -> Cast {
    let cast = Cast::small();
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    cast
}

fn write(cast: &Cast, path: &str, contents: impl AsRef<[u8]>) {
    let path = cast.root.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}

fn sessions(cast: &Cast) -> Vec<Value> {
    ask_json(cast, &["session", "ls", "--json"])["sessions"].as_array().unwrap().clone()
}

fn interrupt(child: &Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::INT).unwrap();
}

#[test]
fn one_command_does_the_whole_job_and_ends_its_session() {
    let cast = cast();
    write(&cast, "job/notes/text.txt", "one two\nthree\n");
    let words = [
        "run",
        "copy_file",
        "input_file=job/notes/text.txt",
        "output_path=out.txt",
        "--in",
        "job",
        "--out",
        "out.txt:back/got.txt",
        "--budget",
        "0.5",
    ];
    let output = ask(&cast, &words);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(std::fs::read(cast.root.path().join("back/got.txt")).unwrap(), b"one two\nthree\n");
    let said = err(&output);
    assert!(said.contains("exit 0") && said.contains("it cost") && said.contains("of 0.5 USDC"), "{said}");
    let output = ask(&cast, &["run", "count_words", "input_file=text.txt", "--in", "job/notes/", "--budget", "0.5", "-q"]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""), "{}", err(&output));
    assert!(out(&output).split_whitespace().take(3).eq(["2", "3", "14"]), "{}", out(&output));
    let all = sessions(&cast);
    assert!(all.len() == 2 && all.iter().all(|session| session["status"] == "completed"), "{all:?}");
    cast.settled(all[0]["id"].as_str().unwrap());
}

#[test]
fn the_exit_code_is_the_tools_own_and_failures_of_ours_have_their_own() {
    let cast = cast();
    write(&cast, "text.txt", "one two\nthree\n");
    let find = |word: &str| {
        ask(&cast, &["run", "find_words", &format!("words={word}"), "input_file=text.txt", "--in", "text.txt", "--budget", "0.5"])
    };
    assert_eq!((find("two").status.code(), find("four").status.code()), (Some(0), Some(1)));
    for (words, code, said) in [
        (&["run", "no_such_tool", "--budget", "0.5"][..], 121, "no_provider"),
        (&["run", "wait", "seconds=1", "--budget", "5000"], 120, "missing 49"),
        (&["run", "wait", "seconds=60", "--budget", "0.025"], 120, "budget reached"),
        (&["run", "wait", "seconds=60", "--timeout", "1", "--budget", "0.5"], 124, "timed out"),
        (&["run", "wait", "seconds=five", "--budget", "0.5"], 125, "bad_arguments"),
        (&["run", "count_words", "input_file=text.txt", "--in", "no/such/file", "--budget", "0.5"], 123, "no/such/file"),
        (&["run", "wait", "seconds=0", "--out", "nothing", "--budget", "0.5"], 121, "has no nothing"),
        (&["run", "wait", "--no-such-flag"], 125, "--no-such-flag"),
        (&["run", "wait", "seconds=1"], 125, "--budget"),
        (&["session", "show", "nobody"], 121, "nobody"),
        (&["providers", "--gateway", "http://127.0.0.1:9", "--token-file", "/dev/null"], 125, "not a token"),
    ] {
        let output = ask(&cast, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}{}", out(&output), err(&output));
        assert!(err(&output).contains(said), "{words:?}: {}", err(&output));
    }
    assert!(sessions(&cast).iter().all(|session| session["status"] != "active"), "every session was ended");
}

#[test]
fn no_gateway_is_said_with_what_to_do_and_as_json_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |words: &[&str]| orien().args(words).env("ORIEN_HOME", folder.path()).output().unwrap();
    let output = ask(&["providers"]);
    assert!(
        output.status.code() == Some(125) && err(&output).contains("orien dev") && err(&output).contains("--gateway"),
        "{}",
        err(&output)
    );
    let token = folder.path().join("token");
    std::fs::write(&token, "0123").unwrap();
    let output = ask(&["session", "ls", "--json", "--gateway", "127.0.0.1:9", "--token-file", token.to_str().unwrap()]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["error"]["code"], &told["error"]["exitCode"]), (&json!("gateway_unreachable"), &json!(125)), "{told}");
    assert!(err(&output).contains("no answer from http://127.0.0.1:9"), "{}", err(&output));
}

#[test]
fn ctrl_c_cancels_the_run_ends_the_session_and_says_what_it_cost() {
    let cast = cast();
    let child = agent(&cast, &["run", "wait", "seconds=60", "--budget", "1"]).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the run", || {
        let session = sessions(&cast).first()?["id"].as_str()?.to_owned();
        let seen = cast.gateway().get(&format!("/api/sessions/{session}")).ok();
        (seen["executions"][0]["status"] == "running").then_some(())
    });
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", err(&output));
    assert!(err(&output).contains("cancelled") && err(&output).contains("it cost"), "{}", err(&output));
    let session = &sessions(&cast)[0];
    assert_eq!(session["status"], "completed", "{session}");
    assert!(micros(&session["budgetConsumed"]) < 300_000, "{session}");
}

#[test]
fn a_session_is_worked_in_step_by_step() {
    let cast = cast();
    let id = out(&ask(&cast, &["session", "open", "--budget", "0.5", "--tool", "wait", "--label", "job=nightly"])).trim().to_owned();
    assert!(id.starts_with("session_"), "{id}");
    let end = &id[id.len() - 8..];
    for name in [end, "nightly", "job=nightly", "last", &id[..18]] {
        assert_eq!(ask_json(&cast, &["session", "show", name, "--json"])["id"], id, "{name}");
    }
    let labelled = |label: &str| ask_json(&cast, &["session", "ls", "--json", "--label", label])["sessions"].as_array().unwrap().len();
    assert_eq!((labelled("job=nightly"), labelled("job=daily")), (1, 0));
    let quote = ask_json(&cast, &["session", "open", "--budget", "2", "--dry-run", "--json"]);
    assert_eq!((&quote["dryRun"], sessions(&cast).len()), (&json!(true), 1), "{quote}");
    write(&cast, "text.txt", "one two\nthree\n");
    assert!(ask(&cast, &["session", "cp", "text.txt", &format!("{end}:deep/er/text.txt")]).status.success());
    let files = ask_json(&cast, &["session", "files", &id, "--json"]);
    let paths: Vec<&str> = files["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["deep", "deep/er", "deep/er/text.txt"]);
    let output = ask(&cast, &["session", "run", end, "count_words", "input_file=deep/er/text.txt"]);
    assert!(output.status.success() && out(&output).starts_with(" 2  3 14"), "{}{}", out(&output), err(&output));
    let run = out(&ask(&cast, &["session", "run", "last", "wait", "seconds=60", "--detach"])).trim().to_owned();
    let written = ask(&cast, &["session", "logs", "last", &run]);
    assert!(written.status.success() && written.stdout.is_empty(), "a run that goes on is not waited for: {}", err(&written));
    let cancelled = ask_json(&cast, &["session", "cancel", "last", "--json"]);
    assert_eq!((&cancelled["executionId"], &cancelled["endReason"]), (&json!(run), &json!("cancelled")), "{cancelled}");
    let extended = ask_json(&cast, &["session", "extend", end, "2h", "--json"]);
    assert!(extended["expiresAt"].as_str() > cancelled["completedAt"].as_str(), "{extended}");
    let raised = ask_json(&cast, &["session", "top-up", end, "+0.25", "--json"]);
    assert_eq!(micros(&raised["budgetAllowance"]), 750_000);
    let shown = ask_json(&cast, &["session", "show", "last", "--json"]);
    assert_eq!(shown["executionsTotal"], 2, "{shown}");
    assert!(ask(&cast, &["session", "rm", &format!("{end}:deep/er/text.txt")]).status.success());
    let ended = ask_json(&cast, &["session", "end", end, "--json"]);
    assert_eq!((&ended["status"], &ended["id"]), (&json!("completed"), &json!(id)));
    let receipts = ask_json(&cast, &["session", "receipts", &id, "--json"]);
    let list = receipts["receipts"].as_array().unwrap();
    assert!(
        list.len() >= 3 && list.iter().all(|receipt| receipt["providerSignatureValid"] == true && receipt["voucherSignatureValid"] == true),
        "{receipts}"
    );
    cast.settled(&id);
}

#[test]
fn trees_go_both_ways_and_what_is_there_already_is_left_out() {
    let cast = cast();
    let session = cast.open("0.5");
    write(&cast, "tree/a.txt", "a");
    write(&cast, "tree/sub/b.bin", vec![0xa5; 3_000_000]);
    write(&cast, "tree/sub/run.sh", "#!/bin/sh\n");
    let script = cast.root.path().join("tree/sub/run.sh");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", cast.root.path().join("tree/link")).unwrap();
    let up = |more: &[&str]| ask_json(&cast, &[&["session", "cp", "--json", "tree", &format!("{session}:")], more].concat());
    let first = up(&[]);
    assert_eq!((&first["copied"], &first["skipped"], first["notes"].as_array().unwrap().len()), (&json!(3), &json!(0), 1), "{first}");
    let again = up(&[]);
    assert_eq!((&again["copied"], &again["skipped"]), (&json!(0), &json!(3)), "{again}");
    write(&cast, "tree/a.txt", "b");
    assert_eq!(up(&[])["copied"], 1, "of the same size, with other content");
    assert_eq!(up(&["--fresh"])["copied"], 3);
    let down = || ask_json(&cast, &["session", "cp", "--json", &format!("{session}:tree/"), "back"]);
    assert_eq!(down()["copied"], 3);
    for path in ["a.txt", "sub/b.bin", "sub/run.sh"] {
        let read = |top: &str| std::fs::read(cast.root.path().join(top).join(path)).unwrap();
        assert_eq!(read("tree"), read("back"), "{path}");
    }
    let mode = std::fs::metadata(cast.root.path().join("back/sub/run.sh")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111);
    assert_eq!((&down()["copied"], &down()["skipped"]), (&json!(0), &json!(3)));
    cast.end(&session);
}

/// A file that takes a moment to copy, in the folder of the cast.
fn big_file(cast: &Cast) -> Vec<u8> {
    let contents: Vec<u8> = (0..48_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    write(cast, "big.bin", &contents);
    contents
}

#[test]
fn a_download_that_was_killed_goes_on_where_it_broke_off() {
    let cast = cast();
    let session = cast.open("0.5");
    let contents = big_file(&cast);
    assert_eq!(ask_json(&cast, &["session", "cp", "--json", "big.bin", &format!("{session}:")])["copied"], 1);
    let words = ["session", "cp", "--json", &format!("{session}:big.bin"), "back/"];
    let back = cast.root.path().join("back");
    let partial = || {
        let entries = std::fs::read_dir(&back).ok()?;
        let sizes = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(".part"));
        sizes.filter_map(|entry| Some(entry.metadata().ok()?.len())).find(|size| *size > 0)
    };
    let mut child = agent(&cast, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a part of the file", partial);
    child.kill().unwrap();
    child.wait().unwrap();
    let held = partial().unwrap();
    let done = ask_json(&cast, &words);
    assert_eq!(done["files"][0]["action"], "resumed", "{done}");
    assert!(done["bytes"].as_u64().unwrap() <= 48_000_000 - held, "{done} after {held}");
    assert!(std::fs::read(back.join("big.bin")).unwrap() == contents);
    assert_eq!(partial(), None, "nothing is left behind");
    // What is left of another state of the file is not gone on with.
    std::fs::remove_file(back.join("big.bin")).unwrap();
    std::fs::write(back.join(part_name("big.bin")), vec![0; 1_000_000]).unwrap();
    assert_eq!(ask_json(&cast, &words)["copied"], 1);
    assert!(std::fs::read(back.join("big.bin")).unwrap() == contents);
    cast.end(&session);
}

/// Where a download is kept until it is whole.
fn part_name(name: &str) -> String {
    format!(".orien-{}.part", &orien_protocol::hash::Hash::of(name.as_bytes()).to_string()[..16])
}

#[test]
fn an_upload_that_was_killed_goes_on_where_it_broke_off() {
    let cast = cast();
    let session = cast.open("0.5");
    let contents = big_file(&cast);
    let words = ["session", "cp", "--json", "big.bin", &format!("{session}:in/")];
    let mut child = agent(&cast, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a part of the upload", || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", child.id())).ok()?;
        let read: u64 = io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()?;
        (read > 12_000_000).then_some(())
    });
    child.kill().unwrap();
    assert!(child.wait().unwrap().code().is_none(), "it was still at it");
    let path = format!("/api/sessions/{session}/files/in/big.bin");
    let held = wait_for("what the provider holds", || cast.gateway().held(&path));
    assert!(held > 0 && held < 48_000_000, "{held}");
    let done = ask_json(&cast, &words);
    assert_eq!((&done["files"][0]["action"], &done["bytes"]), (&json!("resumed"), &json!(48_000_000 - held)), "{done}");
    let (status, bytes) = cast.gateway().download(&path);
    assert!(status == 200 && bytes == contents);
    cast.end(&session);
}

#[test]
fn lines_and_tables_are_for_scripts_in_a_pipe_and_for_people_on_a_terminal() {
    let cast = cast();
    let piped = out(&ask(&cast, &["providers"]));
    assert!(piped.lines().count() == 2 && piped.lines().all(|line| line.split('\t').count() == 8), "{piped}");
    let session = cast.open("0.5");
    write(&cast, "evil.txt", "a\u{1b}[31mred\u{7}\n");
    assert!(ask(&cast, &["session", "cp", "evil.txt", &format!("{session}:")]).status.success());
    let show = ["session", "run", &session, "show_file", "input_file=evil.txt"];
    assert_eq!(out(&ask(&cast, &show)), "a\u{1b}[31mred\u{7}\n");
    let seen = on_a_terminal(&cast, &show);
    assert!(seen.contains("a\\u{1b}[31mred\\u{7}") && !seen.contains("\u{1b}[31mred"), "{seen:?}");
    let table = on_a_terminal(&cast, &["providers"]);
    assert!(table.contains("LABEL") && !table.contains('\t') && table.contains('\u{2500}'), "{table}");
    assert!(table.lines().all(|line| line.trim_end().chars().count() <= 80), "{table}");
    cast.end(&session);
}

/// What a command shows on a terminal of 80 columns.
fn on_a_terminal(cast: &Cast, words: &[&str]) -> String {
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let line = format!("stty cols 80; '{}' {line}", env!("CARGO_BIN_EXE_orien"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("ORIEN_DATA_DIR", &cast.gateways[0].folder).env("TERM", "xterm").stdin(Stdio::null());
    out(&command.output().unwrap())
}

#[test]
fn a_reader_of_a_log_loses_and_repeats_no_line_when_the_gateway_is_killed_and_comes_back() {
    let mut cast = Cast::start();
    cast.add_node();
    cast.add_gateway_at("10", crate::kit::free_port());
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let session = cast.open("1");
    let run = cast.start_run(&session, "count_slowly", json!({ "lines": 400 }));
    let child = agent(&cast, &["session", "logs", "-f", &run]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("some lines", || (cast.execution(&run)["output"].as_str()?.lines().count() > 60).then_some(()));
    cast.gateways[0].kill();
    std::thread::sleep(Duration::from_millis(700));
    cast.gateways[0].restart();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", err(&output));
    let lines: Vec<String> = out(&output).lines().map(str::to_owned).collect();
    let expected: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    assert_eq!(lines, expected, "{}", err(&output));
    cast.end(&session);
}

#[test]
fn a_tool_reads_a_file_or_what_is_piped_into_the_command() {
    let cast = cast();
    write(&cast, "in.txt", "one\ntwo\n");
    let upper = ["run", "upper", "--budget", "0.5", "--quiet", "--stdin"];
    let output = ask(&cast, &[&upper[..], &["in.txt"]].concat());
    assert_eq!((out(&output).as_str(), output.status.code()), ("ONE\nTWO\n", Some(0)), "{}", err(&output));
    let piped = std::fs::File::open(cast.root.path().join("in.txt")).unwrap();
    let output = agent(&cast, &[&upper[..], &["-"]].concat()).stdin(piped).output().unwrap();
    assert_eq!((out(&output).as_str(), output.status.code()), ("ONE\nTWO\n", Some(0)), "{}", err(&output));
    // A tool need not read all that it is given.
    write(&cast, "long.txt", "abcde".repeat(1_000_000));
    let output = ask(&cast, &["run", "first", "--stdin", "long.txt", "--budget", "0.5", "--quiet"]);
    assert_eq!((out(&output).as_str(), err(&output).as_str(), output.status.code()), ("abcde\n", "", Some(0)));
    let output = ask(&cast, &[&upper[..], &["no-such-file"]].concat());
    assert!(output.status.code() == Some(123) && err(&output).contains("no-such-file"), "{}", err(&output));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        let text = out(&output);
        assert!(output.status.success() && text.contains("receipts") && text.contains("top-up"), "{shell}: {}", err(&output));
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&["man", folder.path().to_str().unwrap()]).status.success());
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(page("orien-session-cp.1").contains("SOURCE") && page("orien-run.1").contains("124"), "{}", page("orien-run.1"));
    assert!(Path::new(folder.path()).join("orien.1").exists());
}

#[test]
fn a_pipe_that_is_closed_ends_a_command_quietly_and_the_run_whose_output_nobody_reads() {
    let cast = cast();
    let bash = |line: &str| {
        let line = line.replace("orien", env!("CARGO_BIN_EXE_orien"));
        Command::new("bash").args(["-c", &line]).env("ORIEN_DATA_DIR", &cast.gateways[0].folder).output().unwrap()
    };
    let output = bash("{ sleep 0.5; orien providers --json; echo $? >&2; } | true");
    assert_eq!((out(&output).as_str(), err(&output).as_str()), ("", "141\n"));
    let output = bash("orien run count_slowly lines=5000 --budget 1 -q | head -n 3");
    assert_eq!(out(&output), "0\n1\n2\n", "{}", err(&output));
    let session = &sessions(&cast)[0];
    assert_eq!(session["status"], "completed", "{session}");
    assert!(micros(&session["budgetConsumed"]) < 300_000, "{session}");
}

#[test]
fn a_gateway_behind_tls_is_reached_by_those_who_trust_its_certificate_and_nobody_else() {
    let mut cast = Cast::start();
    cast.add_node();
    let tls = concat!(env!("CARGO_MANIFEST_DIR"), "/bootstrap/door/tests/it/tls");
    let (certificate, key) = (format!("{tls}/certificate.pem"), format!("{tls}/key.pem"));
    cast.add_gateway_with("10", 0, &["--tls-cert", &certificate, "--tls-key", &key]);
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let token = cast.root.path().join("token");
    std::fs::write(&token, &door.token).unwrap();
    let port = door.base.rsplit(':').next().unwrap();
    let far = |host: &str, words: &[&str]| {
        let gateway = format!("https://{host}:{port}");
        let mut command = orien();
        command.args(words).env("ORIEN_HOME", cast.root.path()).env("ORIEN_GATEWAY", gateway).env("ORIEN_TOKEN_FILE", &token);
        command.current_dir(cast.root.path()).stdin(Stdio::null());
        command
    };
    write(&cast, "text.txt", "one two\nthree\n");
    let words = ["run", "count_words", "input_file=text.txt", "--in", "text.txt", "--budget", "0.5"];
    let output = far("localhost", &words).env("ORIEN_CA_FILE", &certificate).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).split_whitespace().take(3).eq(["2", "3", "14"]), "{}", out(&output));
    // The machine's own roots do not know it.
    let output = far("localhost", &["providers"]).output().unwrap();
    assert_ne!(output.status.code(), Some(0), "{}", out(&output));
    assert!(err(&output).contains("certificate") && err(&output).contains("--ca-file"), "{}", err(&output));
    let output = far("localhost", &["providers"]).args(["--ca-file", &key]).output().unwrap();
    assert!(err(&output).contains("there is no certificate in"), "{}", err(&output));
    assert!(!out(&output).contains(&door.token) && !err(&output).contains(&door.token));
}
