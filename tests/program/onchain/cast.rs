//! A network on a chain of this machine, set up as its operator, its providers and its agents would: by the program's own commands.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use orien_chain::anvil::{LocalChain, LocalSettings, chain_for_test, find, local_key};
use orien_chain::{Chain, ChainFacts, ChainLimits, EscrowAccount, EscrowFees};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::kit::{Door, PATIENCE, Role, orien, wait_for};

/// The password of every wallet.
const PASSWORD: &str = "correct horse battery";
/// USDC that every wallet has before it deposits.
const POCKET: &str = "100";
/// Longest wait for all sessions to be final on chain: a block a second, two until one is final.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// Every provider has prices of its own, and none comes out even.
const TOOLS: &str = r#"{
  "providerId": "PROVIDER", "name": "Chain bench", "pricePerMinute": PRICE, "meteringIntervalSeconds": 1, "minimumCharge": MINIMUM,
  "capacity": { "sessions": 16, "runsPerSession": 4 },
  "tools": [
    { "id": "say", "command": "echo {words}", "callFee": 0.001137, "resourceLimits": { "cpu": "1", "memory": "256MB" },
      "args": [{ "name": "words", "type": "text", "required": true }] }
  ]
}"#;

/// Price of a minute and minimum of a session.
const PRICES: [(&str, &str); 4] = [("0.470001", "0.007839"), ("0.6", "0.01"), ("0.333333", "0.000007"), ("1.2", "0.0201")];

/// Whether there is anvil; says loudly if not, and fails where everything is demanded.
#[expect(clippy::print_stderr, reason = "whoever runs the tests has to see that a part of them did not run")]
pub(crate) fn is_chain_here() -> bool {
    let Err(error) = find() else { return true };
    assert!(std::env::var_os("ORIEN_EVERY_CLIENT").is_none_or(|value| value != "1"), "{error}");
    eprintln!("NOT TESTED: {error}; or run tests/clients/install chain");
    false
}

pub(crate) struct ChainCast {
    root: TempDir,
    runtime: Runtime,
    local: LocalChain,
    /// Of the network, whose escrow is its own.
    facts: ChainFacts,
    pub(crate) network: PathBuf,
    bootstrap_address: String,
    _bootstrap: Role,
    pub(crate) settlement: Role,
    pub(crate) nodes: Vec<Role>,
    pub(crate) gateways: Vec<Role>,
    /// Funding wallets, by gateway.
    pub(crate) accounts: Vec<Address>,
    /// Where providers are paid.
    pub(crate) payouts: Vec<Address>,
}

impl ChainCast {
    /// A chain, an escrow that an operator's wallet deployed, bootstrap and settlement. None where there is no chain to be had.
    pub(crate) fn start() -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // Its own escrow is not used: the network's is deployed by the program.
        let settings = LocalSettings { block_seconds: Some(1), ..LocalSettings::new(local_key("nobody").address()) };
        let local = runtime.block_on(chain_for_test(&settings))?;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let rpc = local.anvil.rpc().as_str().to_owned();
        let command = |words: &[&str]| {
            let mut command = program(root.path().to_str().unwrap(), &rpc);
            command.args(words);
            run_json(&mut command)
        };
        let operator = at("operator");
        let made = command(&["wallet", "new", "--json", "--wallet", operator.to_str().unwrap()]);
        let operator_address: Address = made["address"].as_str().unwrap().parse().unwrap();
        runtime.block_on(local.anvil.give_gas(&operator_address)).unwrap();
        let (id, token) = (local.facts().chain_id.to_string(), local.facts().token.to_string());
        let (settlement, wallet) = (at("settlement"), operator.to_str().unwrap());
        let data = settlement.to_str().unwrap();
        let deploy = ["settlement", "deploy", "--name", "chain", "--chain-id", &id, "--token", &token, "--wallet", wallet];
        let more = ["--finality-lag", "1m", "--public-rpc", &rpc, "--data-dir", data, "--json"];
        let made = command(&[&deploy[..], &more].concat());
        let network = PathBuf::from(made["networkFile"].as_str().unwrap());
        let facts = ChainFacts { escrow: made["escrow"].as_str().unwrap().parse().unwrap(), ..*local.facts() };
        let signer: Address = made["signer"].as_str().unwrap().parse().unwrap();
        runtime.block_on(local.anvil.give_gas(&signer)).unwrap();
        let bootstrap = Role::start("bootstrap", &at("bootstrap"), &["--network", network.to_str().unwrap()]);
        let bootstrap_address = bootstrap.door().get("/health").ok()["addresses"][0].as_str().unwrap().to_owned();
        let words = ["--bootstrap", &bootstrap_address, "--batch-seconds", "1", "--redeem-amount", "0.000001"];
        let settlement = Role::start("settlement", &settlement, &words);
        let (nodes, gateways, accounts, payouts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let _bootstrap = bootstrap;
        Some(Self { root, runtime, local, facts, network, bootstrap_address, _bootstrap, settlement, nodes, gateways, accounts, payouts })
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A provider that is paid at an address of nobody else's.
    pub(crate) fn add_node(&mut self) {
        let number = self.nodes.len();
        let tools = self.at(&format!("node{number}.json"));
        let (price, minimum) = PRICES[number % PRICES.len()];
        let text = TOOLS.replace("PROVIDER", &format!("chain_{number}")).replace("PRICE", price).replace("MINIMUM", minimum);
        std::fs::write(&tools, text).unwrap();
        let payout = local_key(&format!("payout {number}")).address();
        let words = ["--tools", tools.to_str().unwrap(), "--payout", &payout.to_string()];
        let role = self.role("node", &format!("node{number}"), &words);
        self.nodes.push(role);
        self.payouts.push(payout);
    }

    /// An agent with a funding wallet, out of which it deposits for its gateway's key.
    pub(crate) fn add_gateway(&mut self, deposit: &str) {
        let number = self.gateways.len();
        let made = self.json(&["wallet", "new", "--json", "--wallet", self.at(&format!("wallet{number}")).to_str().unwrap()]);
        let account: Address = made["address"].as_str().unwrap().parse().unwrap();
        self.runtime.block_on(self.local.fund(&account, POCKET.parse().unwrap())).unwrap();
        self.accounts.push(account);
        self.start_gateway(account);
        let done = self.wallet(number, &["deposit", deposit]);
        assert_eq!(done["state"], "final", "{done}");
    }

    /// Another gateway that spends for the account of one that is there.
    pub(crate) fn add_gateway_of(&mut self, owner: usize) {
        let account = self.accounts[owner];
        self.accounts.push(account);
        self.start_gateway(account);
        let keys = self.json(&["keys", "--json", "--data-dir", self.gateways[self.gateways.len() - 1].folder.to_str().unwrap()]);
        self.wallet(owner, &["authorize", keys["moneyAddress"].as_str().unwrap()]);
    }

    fn start_gateway(&mut self, account: Address) {
        let name = format!("gateway{}", self.gateways.len());
        let role = self.role("gateway", &name, &["--account", &account.to_string()]);
        self.gateways.push(role);
    }

    fn role(&self, role: &'static str, name: &str, more: &[&str]) -> Role {
        let mut words = vec!["--network", self.network.to_str().unwrap(), "--bootstrap", &self.bootstrap_address];
        words.extend(more);
        Role::start(role, &self.at(name), &words)
    }

    /// Opens a session as soon as it can be: a deposit is looked for until settlement has it.
    pub(crate) fn open(&self, door: &Door, order: &Value) -> String {
        wait_for("a session", || {
            let answer = door.post("/api/sessions", order);
            (answer.status < 300).then(|| answer.body["id"].as_str().unwrap().to_owned())
        })
    }

    /// How a gateway names a provider.
    pub(crate) fn provider_id(&self, node: usize) -> String {
        let keys = self.json(&["keys", "--json", "--data-dir", self.nodes[node].folder.to_str().unwrap()]);
        keys["peerId"].as_str().unwrap().to_owned()
    }

    /// The program with this chain and the wallets' password, and its answer.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let mut command = program(self.root.path().to_str().unwrap(), self.local.anvil.rpc().as_str());
        command.args(words);
        run_json(&mut command)
    }

    /// A command of an agent's wallet.
    #[track_caller]
    pub(crate) fn wallet(&self, agent: usize, words: &[&str]) -> Value {
        let (wallet, gateway) = (self.at(&format!("wallet{agent}")), self.at(&format!("gateway{agent}")));
        let at = [
            "--wallet",
            wallet.to_str().unwrap(),
            "--gateway",
            gateway.to_str().unwrap(),
            "--network",
            self.network.to_str().unwrap(),
            "--json",
        ];
        self.json(&[&["wallet"], words, &at].concat())
    }

    /// A command for settlement.
    #[track_caller]
    pub(crate) fn settlement_json(&self, words: &[&str]) -> Value {
        self.json(&[&["settlement"], words, &["--json", "--data-dir", self.settlement.folder.to_str().unwrap()]].concat())
    }

    /// How settlement and its chain are.
    pub(crate) fn status(&self) -> Value {
        self.settlement_json(&["status"])
    }

    /// Waits until so many sessions are paid out and no reservation is left.
    pub(crate) fn all_settled(&self, sessions: usize) -> Vec<Value> {
        let door = self.settlement.door();
        let begun = Instant::now();
        loop {
            let mut lines: Vec<Value> = Vec::new();
            let mut after = String::new();
            loop {
                let page = door.get(&format!("/api/settlements?limit=100{after}")).ok();
                lines.extend(page["settlements"].as_array().unwrap().clone());
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            let ledger = door.get("/api/ledger").ok();
            if lines.len() == sessions && ledger["liveChannels"] == 0 {
                return lines;
            }
            assert!(begun.elapsed() < SETTLED_WITHIN, "{} of {sessions} are settled: {ledger} {}", lines.len(), self.status());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until settlement has read that so many keys may spend an account.
    pub(crate) fn knows_keys(&self, agent: usize, keys: usize) {
        let (door, account) = (self.settlement.door(), self.accounts[agent]);
        wait_for("the spending keys", || {
            let known = door.get(&format!("/api/accounts/{account}")).ok();
            (known["spendingKeys"].as_array().unwrap().len() == keys).then_some(())
        });
    }

    /// Settlement's own key, which sends its transactions.
    pub(crate) fn signer(&self) -> Address {
        let keys = self.json(&["keys", "--json", "--data-dir", self.settlement.folder.to_str().unwrap()]);
        keys["moneyAddress"].as_str().unwrap().parse().unwrap()
    }

    /// Asks the chain.
    pub(crate) fn ask<T>(&self, question: impl AsyncFnOnce(Chain) -> T) -> T {
        self.runtime.block_on(question(self.chain()))
    }

    /// The chain's facts, with the network's escrow.
    pub(crate) const fn facts(&self) -> &ChainFacts {
        &self.facts
    }

    /// A command for settlement as a person would type it, with all that it prints.
    pub(crate) fn settlement_said(&self, words: &[&str]) -> Output {
        let mut command = program(self.root.path().to_str().unwrap(), self.local.anvil.rpc().as_str());
        command.arg("settlement").args(words).args(["--data-dir", self.settlement.folder.to_str().unwrap()]).output().unwrap()
    }

    fn chain(&self) -> Chain {
        let limits = ChainLimits { answer_within: PATIENCE, ..ChainLimits::default() };
        Chain::new(self.facts, std::slice::from_ref(self.local.anvil.rpc()), limits).unwrap()
    }

    /// The network's escrow.
    pub(crate) fn escrow(&self) -> Address {
        self.facts.escrow
    }

    /// What the escrow has of an account at the newest block.
    pub(crate) fn held(&self, account: &Address) -> EscrowAccount {
        let chain = self.chain();
        self.runtime.block_on(async { chain.account(account, &chain.latest_block().await.unwrap()).await.unwrap() })
    }

    /// The token's balance of an address at the newest block.
    pub(crate) fn tokens(&self, of: &Address) -> Usdc {
        let chain = self.chain();
        self.runtime.block_on(async { chain.token_balance(of, &chain.latest_block().await.unwrap()).await.unwrap() })
    }

    /// Fees that the escrow owes.
    pub(crate) fn fees(&self) -> EscrowFees {
        let chain = self.chain();
        self.runtime.block_on(async { chain.fees(&chain.latest_block().await.unwrap()).await.unwrap() })
    }

    /// A node that collects alone pays for its gas.
    pub(crate) fn give_gas_to_node(&self, node: usize) {
        let keys = self.json(&["keys", "--json", "--data-dir", self.nodes[node].folder.to_str().unwrap()]);
        let address: Address = keys["moneyAddress"].as_str().unwrap().parse().unwrap();
        self.runtime.block_on(self.local.anvil.give_gas(&address)).unwrap();
    }

    /// No more blocks.
    pub(crate) fn stand_still(&self) {
        self.runtime.block_on(self.local.anvil.mine_every(0)).unwrap();
    }

    /// A block a second again.
    pub(crate) fn go_on(&self) {
        self.runtime.block_on(self.local.anvil.mine_every(1)).unwrap();
    }

    /// Time passes on the chain.
    pub(crate) fn advance(&self, seconds: u64) {
        self.runtime.block_on(self.local.anvil.advance(seconds)).unwrap();
    }
}

pub(super) fn program(home: &str, rpc: &str) -> Command {
    let mut command = orien();
    command.env("ORIEN_HOME", home).env("ORIEN_RPC", rpc).env("ORIEN_WALLET_PASSWORD", PASSWORD).stdin(Stdio::null());
    command
}

#[track_caller]
pub(super) fn run_json(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!(String::from_utf8_lossy(&output.stdout)))
}
