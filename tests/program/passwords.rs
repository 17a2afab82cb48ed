//! The password of a wallet's keystore by every way it can be given: a file, the environment, and a terminal that does not show it.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::kit::orien;

/// How long somebody takes to begin to type.
const TYPING: Duration = Duration::from_secs(1);

const PASSWORD: &str = "correct horse battery";

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "{text}").unwrap();
    path
}

/// The program without anything that could answer for a person.
fn alone(command: &mut Command) -> &mut Command {
    for name in ["WALLET", "WALLET_KEY", "WALLET_KEY_FILE", "WALLET_PASSWORD", "WALLET_PASSWORD_FILE"] {
        command.env_remove(format!("ORIEN_{name}"));
    }
    command
}

fn wallet(words: &[&str]) -> Command {
    let mut command = orien();
    alone(&mut command).arg("wallet").args(words).arg("--json").stdin(Stdio::null());
    command
}

#[track_caller]
fn ok(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(command: &mut Command, code: &str) {
    let output = command.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(!output.status.success() && said["error"]["code"] == code, "{said}");
}

/// Runs the program on a terminal of its own, and types a line whenever it asks the next question. What the terminal showed, and whether it went well.
fn at_a_terminal(words: &[&str], dialogue: &[(&str, &str)]) -> (String, bool) {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("'{}' {}", env!("CARGO_BIN_EXE_orien"), quoted.join(" "));
    let mut command = Command::new("script");
    alone(&mut command).args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (mut shown, mut read) = (Vec::new(), 0);
    for (question, answer) in dialogue {
        loop {
            let text = String::from_utf8_lossy(&shown[read..]).into_owned();
            if text.contains(question) {
                read = shown.len();
                break;
            }
            let mut more = [0; 1024];
            let count = screen.read(&mut more).unwrap();
            assert!(count > 0, "it ended before it asked `{question}`: {}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&more[..count]);
        }
        // The terminal stops showing what is typed right after the question is there. A person is slower than that.
        std::thread::sleep(TYPING);
        writeln!(keyboard, "{answer}").unwrap();
    }
    screen.read_to_end(&mut shown).unwrap();
    let status = child.wait().unwrap();
    drop(keyboard);
    (String::from_utf8_lossy(&shown).into_owned(), status.success())
}

#[test]
fn a_password_comes_from_a_file_or_the_environment_and_without_either_nothing_is_made() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let (good, other) = (file(root.path(), "good", PASSWORD), file(root.path(), "other", "battery staple"));
    let (good, other) = (good.to_str().unwrap(), other.to_str().unwrap());
    let (first, second, third) = (at("first"), at("second"), at("third"));
    let made = ok(&mut wallet(&["new", "--wallet", &first, "--password-file", good]));
    let kept = format!("{first}/keystore.json");
    assert!(Path::new(&kept).is_file() && !std::fs::read_to_string(&kept).unwrap().contains(PASSWORD));

    // The environment opens what a file has closed, and a file what the environment has.
    let moved = ok(wallet(&["import", &kept, "--wallet", &second]).env("ORIEN_WALLET_PASSWORD", PASSWORD));
    assert_eq!(moved["address"], made["address"]);
    let kept = format!("{second}/keystore.json");
    let moved = ok(&mut wallet(&["import", &kept, "--wallet", &third, "--from-password-file", good, "--password-file", other]));
    assert_eq!(moved["address"], made["address"]);

    let nowhere = at("nowhere");
    refused(
        &mut wallet(&["import", &kept, "--wallet", &nowhere, "--from-password-file", other, "--password-file", good]),
        "wrong_password",
    );
    refused(wallet(&["import", &kept, "--wallet", &nowhere]).env("ORIEN_WALLET_PASSWORD", "battery staple"), "wrong_password");
    refused(&mut wallet(&["new", "--wallet", &nowhere]), "no_password");
    refused(wallet(&["new", "--wallet", &nowhere]).env("ORIEN_WALLET_PASSWORD", "seven77"), "short_password");
    assert!(!Path::new(&nowhere).join("keystore.json").exists());
}

#[test]
fn a_terminal_asks_for_a_password_twice_when_it_is_new_and_never_shows_it() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let (first, second, third) = (at("first"), at("second"), at("third"));
    let (new, again) = ("password of the new keystore: ", "the same again: ");
    let (shown, went_well) = at_a_terminal(&["wallet", "new", "--wallet", &first], &[(new, PASSWORD), (again, PASSWORD)]);
    assert!(went_well && !shown.contains(PASSWORD), "{shown}");

    let kept = format!("{first}/keystore.json");
    let old = "password of";
    let dialogue = [(old, PASSWORD), (new, "battery staple"), (again, "battery staple")];
    let (shown, went_well) = at_a_terminal(&["wallet", "import", &kept, "--wallet", &second], &dialogue);
    assert!(went_well && !shown.contains(PASSWORD) && !shown.contains("battery staple"), "{shown}");
    let good = file(root.path(), "good", "battery staple");
    let kept_again = format!("{second}/keystore.json");
    let words = ["import", &kept_again, "--wallet", &third, "--from-password-file", good.to_str().unwrap()];
    let moved = ok(wallet(&words).env("ORIEN_WALLET_PASSWORD", PASSWORD));
    assert_eq!(moved["address"], ok(&mut wallet(&["address", "--wallet", &first]))["address"]);

    let nowhere = at("nowhere");
    let (shown, went_well) = at_a_terminal(&["wallet", "new", "--wallet", &nowhere], &[(new, PASSWORD), (again, "another one")]);
    assert!(!went_well && shown.contains("the two passwords differ"), "{shown}");
    let (shown, went_well) = at_a_terminal(&["wallet", "import", &kept, "--wallet", &nowhere], &[(old, "battery staple")]);
    assert!(!went_well && shown.contains("does not open"), "{shown}");
    assert!(!Path::new(&nowhere).join("keystore.json").exists());
}
