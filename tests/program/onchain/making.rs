//! A network around an escrow that stands already, on a chain that has a name: `orien init settlement --chain`.

use std::path::{Path, PathBuf};

use orien_chain::Preset;
use orien_chain::anvil::{AnvilSettings, LocalChain, LocalSettings, LocalToken, chain_for_test, local_key};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::cast::{program, run_json};
use crate::kit::{Role, wait_for};

/// Slots of the token's storage in which it keeps what it is called.
const NAMES: [u8; 2] = [3, 4];

struct Ground {
    root: TempDir,
    runtime: Runtime,
    local: LocalChain,
    preset: &'static Preset,
}

impl Ground {
    /// A chain with the id of a public test network, and a token where USDC is there.
    fn start() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let preset = Preset::named("base-sepolia").unwrap();
        let anvil = AnvilSettings { chain_id: preset.chain_id, ..AnvilSettings::default() };
        let token = Some(LocalToken::LocalDollar);
        let settings = LocalSettings { anvil, token, block_seconds: Some(1), ..LocalSettings::new(local_key("nobody").address()) };
        let local = runtime.block_on(chain_for_test(&settings))?;
        runtime.block_on(move_token(&local, preset));
        Some(Self { root: tempfile::tempdir().unwrap(), runtime, local, preset })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = program(self.root.path().to_str().unwrap(), self.local.anvil.rpc().as_str());
        command.args(words);
        command
    }

    fn init(&self, folder: &Path, escrow: &str, block: &str) -> std::process::Command {
        let chain = ["--chain", "base-sepolia", "--escrow", escrow, "--escrow-block", block];
        let mut command = self.command(&["init", "settlement", "--name", "acme", "--json", "--data-dir", folder.to_str().unwrap()]);
        command.args(chain);
        command
    }
}

async fn move_token(local: &LocalChain, preset: &Preset) {
    let (from, to) = (local.facts().token.to_string(), preset.token.to_string());
    let code = local.anvil.ask("eth_getCode", json!([from, "latest"])).await.unwrap();
    let code = hex::decode(code.as_str().unwrap().trim_start_matches("0x")).unwrap();
    local.anvil.set_code(&preset.token, &code).await.unwrap();
    for slot in NAMES {
        let word = local.anvil.ask("eth_getStorageAt", json!([from, format!("0x{slot:x}"), "latest"])).await.unwrap();
        local.anvil.ask("anvil_setStorageAt", json!([to, format!("0x{slot:x}"), word])).await.unwrap();
    }
    // Everything is read at final blocks.
    local.anvil.mine(1).await.unwrap();
    local.settle().await.unwrap();
}

#[test]
fn a_network_around_an_escrow_that_stands_already_is_the_one_that_was_made_with_it() {
    let Some(ground) = Ground::start() else { return };
    let wallet = ground.at("operator");
    let made = run_json(&mut ground.command(&["wallet", "new", "--json", "--wallet", wallet.to_str().unwrap()]));
    let operator = made["address"].as_str().unwrap().parse().unwrap();
    ground.runtime.block_on(ground.local.anvil.give_gas(&operator)).unwrap();
    let folder = ground.at("settlement");
    let data = folder.to_str().unwrap();
    let deploy = ["settlement", "deploy", "--name", "acme", "--chain", "base-sepolia", "--wallet", wallet.to_str().unwrap()];
    let deployed = run_json(ground.command(&deploy).args(["--data-dir", data, "--json"]));
    assert_eq!(deployed["chainId"], ground.preset.chain_id, "{deployed}");
    let (escrow, block) = (deployed["escrow"].as_str().unwrap(), deployed["block"].to_string());
    let file = folder.join("network.toml");
    let first = std::fs::read_to_string(&file).unwrap();

    // Its operator has lost the file, and has the keys.
    std::fs::remove_file(&file).unwrap();
    refusals(&ground, &folder, &deployed);
    let made = run_json(&mut ground.init(&folder, escrow, &block));
    assert_eq!((&made["network"], &made["moneyAddress"]), (&deployed["network"], &deployed["signer"]), "{made}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first);

    // It is good enough to run on.
    let words = ["--rpc", ground.local.anvil.rpc().as_str()];
    let settlement = Role::start("settlement", &folder, &words);
    let door = settlement.door();
    wait_for("books that were compared", || (door.get("/health").ok()["chain"] == "ok").then_some(()));
    assert_eq!(door.get("/api/chain").ok()["escrow"], deployed["escrow"]);
}

/// What is not this settlement's escrow, or not one at all, makes no network.
fn refusals(ground: &Ground, folder: &Path, deployed: &Value) {
    let (escrow, block) = (deployed["escrow"].as_str().unwrap(), deployed["block"].to_string());
    let (token, nothing) = (ground.preset.token.to_string(), local_key("nothing").address().to_string());
    let other = ground.at("other");
    for (folder, escrow, expected) in [
        (other.as_path(), escrow, "the settlement signer"),
        (folder, token.as_str(), "is not this version of the ORIEN escrow"),
        (folder, nothing.as_str(), "there is no contract"),
        (folder, "0x12", "--escrow"),
    ] {
        let output = ground.init(folder, escrow, &block).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{escrow}: {said}");
        assert!(!folder.join("network.toml").exists(), "{escrow}");
    }
    let mut late = ground.init(folder, escrow, &block);
    let output = late.args(["--exit-delay", "2h"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("exit delay"), "{output:?}");
    let mut half = ground.command(&["init", "settlement", "--chain", "base-sepolia", "--data-dir", folder.to_str().unwrap()]);
    assert_eq!(half.output().unwrap().status.code(), Some(2));
    assert!(!folder.join("network.toml").exists());
}
