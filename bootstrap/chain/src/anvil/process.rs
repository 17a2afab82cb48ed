//! The process: found, started on a port of its own, told when blocks are made, and ended with its value, or with the process that has it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use alloy_primitives::{Bytes, U64, U256, keccak256};
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::UnixSeconds;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::AnvilError;
use crate::error::ChainError;
use crate::facts::{ChainLimits, RpcUrl};
use crate::rpc::node::Node;
use crate::rpc::wire::{theirs, word};
use crate::types::{TxHash, Wei};

/// How long it may take to listen; it needs a tenth of a second on an idle machine.
const START_WITHIN: Duration = Duration::from_secs(60);

/// Lines of its beginning that are looked through for the port.
const START_LINES: usize = 200;

/// Coins that everybody is given to pay gas with.
const PLENTY: Wei = Wei(10_u128.pow(24));

/// How a local chain is started.
#[derive(Clone, Debug)]
pub struct AnvilSettings {
    /// The program; looked for when it is not given.
    pub program: Option<PathBuf>,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Blocks by which `safe` is behind; `finalized` is twice as many behind.
    pub slots_in_epoch: u64,
    /// The time of its first block; now when it is not given. Its clock goes on from there.
    pub begins_at: Option<UnixSeconds>,
}

impl Default for AnvilSettings {
    fn default() -> Self {
        Self { program: None, chain_id: 31_337, slots_in_epoch: 1, begins_at: None }
    }
}

/// A running anvil. It makes a block for each transaction until told otherwise.
#[derive(Debug)]
pub struct Anvil {
    // Before the other, whose process it would end: values are dropped in this order.
    _guard: Child,
    _child: Child,
    _drains: JoinSet<()>,
    rpc: RpcUrl,
    node: Node,
    chain_id: u64,
}

/// Where anvil is: `ORIEN_ANVIL`, the PATH, or where `tests/clients/install` puts it.
pub fn find() -> Result<PathBuf, AnvilError> {
    if let Some(path) = std::env::var_os("ORIEN_ANVIL").map(PathBuf::from).filter(|path| path.is_file()) {
        return Ok(path);
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|folder| folder.join("anvil")).find(|path| path.is_file());
    if let Some(path) = on_path {
        return Ok(path);
    }
    let cache = parts().join("bin/anvil");
    if cache.is_file() { Ok(cache) } else { Err(AnvilError::Absent { cache }) }
}

/// Where the parts of a local chain are installed.
pub(super) fn parts() -> PathBuf {
    if let Some(folder) = std::env::var_os("ORIEN_CLIENTS") {
        return PathBuf::from(folder).join("chain");
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("orien-clients/chain")
}

/// A key that everybody who knows its label has. For local chains only.
pub fn local_key(label: &str) -> MoneyKey {
    let mut bytes = keccak256(format!("orien local chain: {label}")).0;
    loop {
        // One of 2^128 hashes is no key.
        if let Ok(key) = MoneyKey::from_bytes(&bytes) {
            return key;
        }
        bytes = keccak256(bytes).0;
    }
}

impl Anvil {
    /// Starts it.
    pub async fn start(settings: &AnvilSettings) -> Result<Self, AnvilError> {
        let program = settings.program.clone().map_or_else(find, Ok)?;
        let failed = |reason: String| AnvilError::NotStarted { program: program.clone(), reason };
        let mut child = command(&program, settings).spawn().map_err(|error| failed(error.to_string()))?;
        let guard = guard(&child).map_err(|error| failed(format!("nothing would end it with us: {error}")))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed("its output cannot be read".to_owned()));
        };
        let (mut output, mut errors) = (BufReader::new(stdout).lines(), BufReader::new(stderr).lines());
        let address = match timeout(START_WITHIN, listening(&mut output)).await {
            Ok(Some(address)) => address,
            Ok(None) => {
                let said = timeout(Duration::from_secs(1), errors.next_line()).await;
                return Err(failed(said.ok().and_then(Result::ok).flatten().unwrap_or_else(|| "it ended".to_owned())));
            }
            Err(_) => return Err(failed(format!("it did not listen within {} s", START_WITHIN.as_secs()))),
        };
        let rpc: RpcUrl = format!("http://{address}").parse()?;
        let node = Node::new(&rpc, &ChainLimits { answer_within: Duration::from_secs(60), ..ChainLimits::default() })?;
        // It writes a line for every request, and would stop when nobody reads them.
        let mut drains = JoinSet::new();
        drains.spawn(drain(output));
        drains.spawn(drain(errors));
        Ok(Self { _guard: guard, _child: child, _drains: drains, rpc, node, chain_id: settings.chain_id })
    }

    /// Where it is spoken to.
    pub const fn rpc(&self) -> &RpcUrl {
        &self.rpc
    }

    /// EIP-155 chain id.
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    pub(super) const fn node(&self) -> &Node {
        &self.node
    }

    async fn tell(&self, method: &'static str, params: Value) -> Result<Value, AnvilError> {
        Ok(self.node.ask(method, params).await?)
    }

    /// Makes blocks, a second apart.
    pub async fn mine(&self, blocks: u64) -> Result<(), AnvilError> {
        self.tell("anvil_mine", json!([U64::from(blocks)])).await.map(drop)
    }

    /// Whether each transaction makes a block at once.
    pub async fn set_automine(&self, on: bool) -> Result<(), AnvilError> {
        self.tell("evm_setAutomine", json!([on])).await.map(drop)
    }

    /// Makes a block every so many seconds, whether there are transactions or not; zero to stop.
    pub async fn mine_every(&self, seconds: u64) -> Result<(), AnvilError> {
        self.tell("evm_setIntervalMining", json!([seconds])).await.map(drop)
    }

    /// Lets time pass, and makes a block that shows it.
    pub async fn advance(&self, seconds: u64) -> Result<(), AnvilError> {
        self.tell("evm_increaseTime", json!([U64::from(seconds)])).await?;
        self.mine(1).await
    }

    /// Replaces the last blocks by as many others, in which none of their transactions is.
    pub async fn reorganise(&self, depth: u64) -> Result<(), AnvilError> {
        self.tell("anvil_reorg", json!([depth, []])).await.map(drop)
    }

    /// Forgets a transaction that waits for a block. Whether it was there.
    pub async fn drop_transaction(&self, transaction: &TxHash) -> Result<bool, AnvilError> {
        Ok(!self.tell("anvil_dropTransaction", json!([word(transaction.hash())])).await?.is_null())
    }

    /// Forgets all transactions that wait.
    pub async fn drop_all_transactions(&self) -> Result<(), AnvilError> {
        self.tell("anvil_dropAllTransactions", json!([])).await.map(drop)
    }

    /// Gives an address coins to pay gas with.
    pub async fn give_gas(&self, to: &Address) -> Result<(), AnvilError> {
        self.set_native_balance(to, PLENTY).await
    }

    /// Sets the coins of an address.
    pub async fn set_native_balance(&self, of: &Address, amount: Wei) -> Result<(), AnvilError> {
        self.tell("anvil_setBalance", json!([theirs(of), U256::from(amount.0)])).await.map(drop)
    }

    /// Puts code at an address.
    pub async fn set_code(&self, of: &Address, code: &[u8]) -> Result<(), AnvilError> {
        self.tell("anvil_setCode", json!([theirs(of), Bytes::copy_from_slice(code)])).await.map(drop)
    }

    /// Sets what the next block asks of everybody, per gas.
    pub async fn set_base_fee(&self, base_fee: Wei) -> Result<(), AnvilError> {
        self.tell("anvil_setNextBlockBaseFeePerGas", json!([U256::from(base_fee.0)])).await.map(drop)
    }

    /// Asks anything of it, for what is not above.
    pub async fn ask(&self, method: &'static str, params: Value) -> Result<Value, ChainError> {
        self.node.ask(method, params).await
    }
}

fn command(program: &Path, settings: &AnvilSettings) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--host", "127.0.0.1", "--port", "0", "--accounts", "1", "--order", "fees"])
        .args(["--chain-id", &settings.chain_id.to_string()])
        .args(["--slots-in-an-epoch", &settings.slots_in_epoch.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(time) = settings.begins_at {
        command.args(["--timestamp", &time.0.to_string()]);
    }
    command
}

/// A process that ends anvil when we are gone, however that came about: it waits at a pipe whose other end nobody but us holds, which is closed even when we are killed. It is in a group of its own, so
/// that what is typed at a terminal ends us and not it.
fn guard(anvil: &Child) -> std::io::Result<Child> {
    let process = anvil.id().ok_or_else(|| std::io::Error::other("it has ended"))?;
    Command::new("/bin/sh")
        .args(["-c", "read -r _; kill -9 \"$0\"", &process.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// The address that it says it listens on.
async fn listening(output: &mut Lines<BufReader<impl AsyncRead + Unpin>>) -> Option<String> {
    for _ in 0..START_LINES {
        let line = output.next_line().await.ok()??;
        if let Some(address) = line.strip_prefix("Listening on ") {
            return Some(address.trim().to_owned());
        }
    }
    None
}

async fn drain(mut lines: Lines<BufReader<impl AsyncRead + Unpin>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::trace!(target: "anvil", "{line}");
    }
}
