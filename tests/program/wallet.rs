//! A funding wallet against a chain on this machine: every command as a person would type it, and what is on the chain afterwards.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use orien_chain::EscrowAccount;
use orien_chain::anvil::{LocalChain, LocalSettings, chain_for_test, local_key};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::kit::{orien, wait_for};

/// The password of every keystore here.
const PASSWORD: &str = "correct horse battery";

/// A chain with a new escrow of ours, deployed by the wallet of a folder.
struct Purse {
    root: TempDir,
    runtime: Runtime,
    local: LocalChain,
    /// Of our own escrow.
    escrow: Address,
}

impl Purse {
    /// None where there is no chain to be had.
    fn start() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let settings = LocalSettings { block_seconds: Some(1), ..LocalSettings::new(local_key("signer").address()) };
        let local = runtime.block_on(chain_for_test(&settings))?;
        let root = tempfile::tempdir().unwrap();
        let mut purse = Self { root, runtime, local, escrow: Address::default() };
        purse.fund("", "100");
        let (id, token) = (purse.local.facts().chain_id.to_string(), purse.local.facts().token.to_string());
        let settlement = purse.at("settlement");
        let words = ["settlement", "deploy", "--name", "test", "--chain-id", &id, "--token", &token, "--exit-delay", "1h"];
        let more = ["--data-dir", settlement.to_str().unwrap(), "--key", "the-escrow", "--json"];
        let made = ok(purse.command().args(words).args(more));
        assert_eq!((&made["action"], &made["chainId"]), (&"deploy".into(), &31_337.into()), "{made}");
        purse.escrow = made["escrow"].as_str().unwrap().parse().unwrap();
        let network = made["networkFile"].as_str().unwrap().to_owned();
        ok(purse.command().args(["init", "gateway", "--network", &network, "--json"]));
        Some(purse)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Makes a wallet and gives it USDC, and coins for gas.
    fn fund(&self, wallet: &str, amount: &str) -> Address {
        let mut command = self.command();
        command.args(["wallet", "new", "--json"]);
        if !wallet.is_empty() {
            command.arg("--wallet").arg(self.at(wallet));
        }
        let address: Address = ok(&mut command)["address"].as_str().unwrap().parse().unwrap();
        self.runtime.block_on(self.local.fund(&address, amount.parse().unwrap())).unwrap();
        address
    }

    /// The program with this chain, this home and the password.
    fn command(&self) -> Command {
        let mut command = orien();
        command.env("ORIEN_HOME", self.root.path()).env("ORIEN_RPC", self.local.anvil.rpc().as_str());
        for name in ["WALLET", "WALLET_KEY", "WALLET_KEY_FILE", "WALLET_PASSWORD_FILE", "GATEWAY_DIR"] {
            command.env_remove(format!("ORIEN_{name}"));
        }
        command.env("ORIEN_WALLET_PASSWORD", PASSWORD);
        command
    }

    fn wallet(&self, words: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("wallet").args(words).arg("--json");
        command
    }

    fn done(&self, words: &[&str]) -> Value {
        ok(&mut self.wallet(words))
    }

    #[track_caller]
    fn refused(&self, words: &[&str], code: &str) -> Value {
        refused(&mut self.wallet(words), code)
    }

    /// What our escrow has of an account now, as the chain says.
    fn held(&self, account: &Address) -> EscrowAccount {
        self.runtime.block_on(async {
            let chain = self.ours();
            chain.account(account, &chain.latest_block().await.unwrap()).await.unwrap()
        })
    }

    /// The wallet's own USDC.
    fn tokens(&self, account: &Address) -> Usdc {
        self.runtime.block_on(async {
            let chain = self.ours();
            chain.token_balance(account, &chain.latest_block().await.unwrap()).await.unwrap()
        })
    }

    fn ours(&self) -> orien_chain::Chain {
        let facts = orien_chain::ChainFacts { escrow: self.escrow, ..*self.local.facts() };
        let limits = orien_chain::ChainLimits { answer_within: Duration::from_secs(60), ..Default::default() };
        orien_chain::Chain::new(facts, std::slice::from_ref(self.local.anvil.rpc()), limits).unwrap()
    }

    /// Deposits that our escrow logged.
    fn deposits(&self) -> usize {
        self.runtime.block_on(async {
            let chain = self.ours();
            let last = chain.latest_block().await.unwrap();
            let logs = chain.logs(0, last.number).await.unwrap();
            logs.iter().filter(|log| matches!(log.event, orien_chain::EscrowEvent::Deposited { .. })).count()
        })
    }

    fn address(&self) -> Address {
        self.done(&["address"])["address"].as_str().unwrap().parse().unwrap()
    }
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn ok(command: &mut Command) -> Value {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(command: &mut Command, code: &str) -> Value {
    let output = output(command);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(told["error"]["code"], code, "{told}");
    assert_eq!(output.status.code().map(i64::from), told["error"]["exitCode"].as_i64(), "{told}");
    told["error"].clone()
}

fn usdc(text: &str) -> Usdc {
    text.parse().unwrap()
}

#[test]
fn money_goes_into_the_escrow_and_comes_back_and_every_command_is_done_once() {
    let Some(purse) = Purse::start() else { return };
    let account = purse.address();
    let before = purse.done(&["balance"]);
    assert_eq!(
        (&before["usdc"], &before["escrow"]["balance"], &before["keys"][0]["state"]),
        (&"100".into(), &"0".into(), &"not named".into()),
        "{before}"
    );

    let planned = purse.done(&["deposit", "25", "--dry-run"]);
    assert_eq!((&planned["state"], purse.deposits()), (&"planned".into(), 0));
    let first = purse.done(&["deposit", "25", "--key", "one"]);
    assert_eq!((&first["state"], &first["amount"]), (&"final".into(), &"25".into()), "{first}");
    let again = purse.done(&["deposit", "25", "--key", "one"]);
    assert_eq!(again, first, "the same key gives the first answer");
    let other = purse.refused(&["deposit", "26", "--key", "one"], "key_reused");
    assert!(other["message"].as_str().unwrap().contains("amount=25"), "{other}");
    assert_eq!((purse.held(&account).balance, purse.tokens(&account)), (usdc("25"), usdc("75")));

    // Even without its records the wallet cannot pay twice under one key.
    std::fs::remove_dir_all(purse.at("wallet/transactions")).unwrap();
    let known = purse.done(&["deposit", "25", "--key", "one"]);
    assert_eq!((&known["state"], &known["transaction"]), (&"final".into(), &Value::Null), "{known}");
    assert_eq!((purse.held(&account).balance, purse.deposits()), (usdc("25"), 1));

    let lacking = purse.refused(&["deposit", "1000"], "insufficient_tokens");
    assert!(lacking["message"].as_str().unwrap().contains("925 are missing") && lacking["exitCode"] == 120, "{lacking}");
    purse.refused(&["deposit", "0"], "zero_amount");

    let key = local_key("another gateway").address().to_string();
    purse.done(&["authorize", &key]);
    let named = purse.done(&["balance", "--spending-key", &key]);
    assert_eq!(named["keys"][0]["state"], "may spend");
    purse.done(&["revoke", &key]);
    assert_eq!(purse.done(&["balance", "--spending-key", &key])["keys"][0]["state"], "revoked");
    purse.refused(&["deposit", "1", "--spending-key", &key], "key_revoked");
    purse.refused(&["authorize", &key], "key_known");

    purse.done(&["cap", "10"]);
    assert_eq!(purse.done(&["balance"])["escrow"]["dailyCap"], "10");
    purse.done(&["cap", "none"]);
    assert_eq!(purse.done(&["balance"])["escrow"]["dailyCap"], Value::Null);
    exits(&purse, &account);
}

fn exits(purse: &Purse, account: &Address) {
    purse.refused(&["withdraw"], "no_exit");
    let lacking = purse.refused(&["request-exit", "26"], "insufficient_escrow");
    assert!(lacking["message"].as_str().unwrap().contains("1 are missing"), "{lacking}");
    purse.done(&["request-exit", "10"]);
    assert_eq!(purse.done(&["balance"])["escrow"]["exiting"], "10");
    purse.refused(&["withdraw"], "exit_not_due");
    purse.done(&["cancel-exit"]);
    purse.refused(&["cancel-exit"], "no_exit");
    purse.done(&["request-exit", "all", "--key", "leave"]);
    assert_eq!(purse.held(account).exiting, usdc("25"));
    purse.runtime.block_on(purse.local.anvil.advance(3_700)).unwrap();
    let out = purse.done(&["withdraw"]);
    assert_eq!(out["state"], "final");
    assert_eq!((purse.held(account).balance, purse.tokens(account)), (Usdc::ZERO, usdc("100")));
    assert_eq!(purse.done(&["request-exit", "all", "--key", "leave"])["state"], "final", "what was done is not done again");
    assert_eq!(purse.held(account).exiting, Usdc::ZERO);
    withdrawals(purse, account);
}

/// The same by one word: the first call asks, a later one takes.
fn withdrawals(purse: &Purse, account: &Address) {
    purse.done(&["deposit", "25"]);
    let words = ["withdraw", "10", "--key", "home"];
    let asked = purse.done(&words);
    assert_eq!((&asked["action"], &asked["amount"], &asked["state"]), (&"request-exit".into(), &"10".into(), &"final".into()), "{asked}");
    assert_eq!((purse.held(account).exiting, purse.held(account).balance), (usdc("10"), usdc("25")));
    purse.refused(&words, "exit_not_due");
    purse.refused(&["withdraw", "11"], "other_exit");
    purse.runtime.block_on(purse.local.anvil.advance(3_700)).unwrap();
    let taken = purse.done(&words);
    assert_eq!((&taken["action"], &taken["state"]), (&"withdraw".into(), &"final".into()), "{taken}");
    assert_eq!((purse.held(account).balance, purse.tokens(account)), (usdc("15"), usdc("85")));
    assert_eq!(purse.done(&words), taken, "the same key gives the first answer, and asks for nothing anew");
    assert_eq!(purse.held(account).exiting, Usdc::ZERO);
    purse.refused(&["withdraw", "11", "--key", "home"], "key_reused");
}

#[test]
fn a_killed_deposit_goes_on_and_pays_once_wherever_it_was() {
    let Some(purse) = Purse::start() else { return };
    let account = purse.address();
    let anvil = &purse.local.anvil;
    for round in 0..3 {
        // No blocks: the transaction is sent and waits.
        purse.runtime.block_on(anvil.mine_every(0)).unwrap();
        let key = format!("round-{round}");
        let records = || {
            std::fs::read_dir(purse.at("wallet/transactions")).map_or(0, |entries| {
                entries
                    .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "json")))
                    .count()
            })
        };
        let before = records();
        let mut command = purse.wallet(&["deposit", "5", "--key", &key]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("a record", || (records() > before).then_some(()));
        if round > 0 {
            // Long enough to have been sent.
            std::thread::sleep(Duration::from_millis(500));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if round == 2 {
            // As if nobody had ever seen it.
            purse.runtime.block_on(anvil.drop_all_transactions()).unwrap();
        }
        purse.runtime.block_on(anvil.mine_every(1)).unwrap();
        // Something else first has to finish it.
        if round == 1 {
            purse.done(&["cap", "50"]);
        }
        let done = purse.done(&["deposit", "5", "--key", &key]);
        assert_eq!(done["state"], "final", "{done}");
        assert_eq!((purse.held(&account).balance, purse.deposits()), (Usdc::from_micros(5_000_000 * (round + 1)), round as usize + 1));
    }
}

#[test]
fn a_signed_deposit_is_carried_out_by_anybody_once_and_for_nobody_else() {
    let Some(purse) = Purse::start() else { return };
    let account = purse.address();
    let paper = purse.done(&["deposit", "7", "--offline", "--key", "paper"]);
    assert_eq!(paper["kind"], "orien-deposit/1");
    let file = |name: &str, text: &Value| {
        let path = purse.at(name);
        std::fs::write(&path, text.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, relayer) = (file("paper.json", &paper), purse.at("relayer"));
    purse.fund("relayer", "0.5");
    let relayer = ["--wallet", relayer.to_str().unwrap()];
    for (name, value) in [("amount", "8"), ("spendingKey", "0x00000000000000000000000000000000000000aa")] {
        let mut forged = paper.clone();
        forged[name] = value.into();
        purse.refused(&[&["relay", &file("forged.json", &forged)], &relayer[..]].concat(), "would_revert");
    }
    let mut elsewhere = paper.clone();
    elsewhere["chainId"] = 1.into();
    purse.refused(&[&["relay", &file("elsewhere.json", &elsewhere)], &relayer[..]].concat(), "other_escrow");
    let done = purse.done(&[&["relay", &good], &relayer[..]].concat());
    assert_eq!((&done["state"], &done["depositOf"]), (&"final".into(), &account.to_string().into()), "{done}");
    assert_eq!((purse.held(&account).balance, purse.tokens(&account)), (usdc("7"), usdc("93")));
    // A second relayer, and the account itself under the same key, find it done.
    let second = purse.done(&[&["relay", &good, "--key", "again"], &relayer[..]].concat());
    assert_eq!((&second["state"], &second["transaction"]), (&"final".into(), &Value::Null), "{second}");
    assert_eq!(purse.done(&["deposit", "7", "--key", "paper"])["transaction"], Value::Null);
    assert_eq!(purse.deposits(), 1);
}

#[test]
fn a_wallet_is_made_once_opens_with_its_password_only_and_its_refusals_say_what_is_missing() {
    let Some(purse) = Purse::start() else { return };
    purse.refused(&["new"], "wallet_exists");
    let network = purse.at("settlement/network.toml");
    let network = network.to_str().unwrap();
    refused(purse.wallet(&["cap", "1"]).env("ORIEN_WALLET_PASSWORD", "not this one"), "wrong_password");
    refused(purse.wallet(&["cap", "1"]).env_remove("ORIEN_WALLET_PASSWORD"), "no_password");
    refused(purse.wallet(&["balance"]).env_remove("ORIEN_RPC"), "no_rpc");
    refused(purse.wallet(&["balance"]).env("ORIEN_RPC", "http://127.0.0.1:9"), "chain_unanswered");
    let elsewhere = std::fs::read_to_string(network).unwrap().replace("31337", "31338");
    std::fs::write(purse.at("elsewhere.toml"), elsewhere).unwrap();
    let mismatch = purse.refused(&["balance", "--network", purse.at("elsewhere.toml").to_str().unwrap()], "chain_mismatch");
    assert!(mismatch["message"].as_str().unwrap().contains("31337"), "{mismatch}");
    // The ledger rail has no escrow.
    let ledger = purse.at("ledger");
    ok(purse.command().args(["init", "settlement", "--json", "--data-dir"]).arg(&ledger));
    purse.refused(&["balance", "--network", ledger.join("network.toml").to_str().unwrap()], "ledger_rail");

    // A key from elsewhere, in a file and in the environment; without gas it says how much is missing.
    let raw = purse.at("raw.key");
    private(&raw, &"42".repeat(32));
    let poor = purse.at("poor");
    let imported = purse.done(&["import", raw.to_str().unwrap(), "--wallet", poor.to_str().unwrap()]);
    let text = std::fs::read_to_string(imported["keystore"].as_str().unwrap()).unwrap();
    assert!(!text.contains(&"42".repeat(8)) && text.contains("scrypt"), "{text}");
    let from_environment = ok(purse.wallet(&["address"]).env("ORIEN_WALLET_KEY", "42".repeat(32)));
    assert_eq!(from_environment["address"], imported["address"]);
    let gas = purse.refused(&["cap", "1", "--wallet", poor.to_str().unwrap()], "insufficient_gas");
    assert!(gas["message"].as_str().unwrap().contains("ETH are missing"), "{gas}");

    let again =
        ["settlement", "deploy", "--chain", "base", "--data-dir", purse.at("settlement").to_str().unwrap(), "--json"].map(str::to_owned);
    let output = output(purse.command().args(again));
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("belongs to a network already"));
}

fn private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
