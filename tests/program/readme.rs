//! The README's commands, word for word.

use std::process::{Command, Stdio};

use crate::examples::Dev;
use crate::kit::{Door, orien, wait_for};
use crate::onchain::cast::is_chain_here;

/// The shell blocks between two markers of the README.
fn blocks(marker: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("<!-- {marker} -->")).unwrap_or_else(|| panic!("no <!-- {marker} --> in the README"));
    let (walk, _) = rest.split_once(&format!("<!-- /{marker} -->")).unwrap_or_else(|| panic!("no <!-- /{marker} -->"));
    walk.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_curl_walk_works_word_for_word() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_orien"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let walk = blocks("walk");
    assert!(walk.len() > 3 && walk[0].trim() == "orien dev --data-dir ./orien-data", "{walk:?}");
    let mut dev = orien()
        .args(["dev", "--data-dir", "./orien-data"])
        .current_dir(&folder)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("dev.log")).unwrap())
        .spawn()
        .unwrap();
    let gateway = folder.path().join("orien-data/gateway");
    wait_for("the gateway of dev", || {
        let ended = dev.try_wait().unwrap();
        let log = || std::fs::read_to_string(folder.path().join("dev.log")).unwrap_or_default();
        assert!(ended.is_none(), "dev ended (the walk needs port 8402): {}", log());
        gateway.join("door.json").exists().then_some(())
    });
    wait_for("the example provider", || {
        let providers = Door::of(&gateway).get("/api/providers").ok();
        providers["providers"].as_array().is_some_and(|list| !list.is_empty()).then_some(())
    });
    let script = format!("set -euo pipefail\n{}", walk[1..].join("\n"));
    let output = Command::new("bash").arg("-c").arg(&script).current_dir(&folder).env("PATH", path).output().unwrap();
    let _ = dev.kill();
    let _ = dev.wait();
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{warned}");
    assert!(said.contains("example_workshop") && said.contains("completed") && said.contains("clean"), "{said}\n{warned}");
}

#[test]
fn the_walk_through_the_commands_works_word_for_word() {
    let walk = blocks("cli-walk");
    assert!(walk.len() == 3 && walk[0].trim() == "orien dev", "{walk:?}");
    // It may run beside the curl walk, so its gateway is at another port; the commands find it all the same.
    let dev = Dev::start();
    let folder = dev.root.path();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_orien"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let script = format!("set -euo pipefail\n{}", walk[1..].join("\n"));
    let output =
        Command::new("bash").arg("-c").arg(&script).current_dir(folder).env("PATH", path).env("ORIEN_HOME", folder).output().unwrap();
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{warned}");
    assert!(said.contains("hello from a machine I do not own") && said.contains("provider, agent"), "{said}\n{warned}");
    assert!(warned.contains("exit 0") && warned.contains("of 0.5 USDC"), "{said}\n{warned}");
    let home = dev.stop();
    let left: Vec<_> = std::fs::read_dir(home.path().join("run")).unwrap().flatten().collect();
    assert!(left.is_empty(), "the way to a network that has stopped is forgotten: {left:?}");
}

#[test]
fn the_walk_on_a_chain_works_word_for_word() {
    if !is_chain_here() {
        return;
    }
    let walk = blocks("chain-walk");
    assert!(walk.len() == 4 && walk[0].trim() == "orien dev --chain anvil --data-dir ./chain-data", "{walk:?}");
    let dev = Dev::start_with(&["--chain", "anvil", "--data-dir", "./chain-data"]);
    let folder = dev.root.path();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_orien"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let script = format!("set -euo pipefail\n{}", walk[1..].join("\n"));
    let mut walker = Command::new("timeout");
    let output =
        walker.args(["300", "bash", "-c", &script]).current_dir(folder).env("PATH", path).env("ORIEN_HOME", folder).output().unwrap();
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{warned}");
    assert!(said.contains("paid on a chain") && said.contains("deposit      final") && said.contains("asked back"), "{said}\n{warned}");
}

#[test]
fn the_two_commands_are_the_ones_that_everything_else_uses() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let ci = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/run")).unwrap();
    assert!(readme.contains("cargo run --release -- demo") && readme.contains("cargo test --workspace"));
    assert!(ci.contains("cargo test --workspace"));
}
