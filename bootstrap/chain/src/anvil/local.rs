//! A whole local chain: anvil, a token, the escrow, and a bank that gives everybody money.

use std::time::Duration;

use alloy_primitives::U64;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::UnixSeconds;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::AnvilError;
use super::process::{Anvil, AnvilSettings, local_key};
use super::token::{self, LocalToken};
use crate::call::{self, Setup};
use crate::chain::Chain;
use crate::error::ChainError;
use crate::facts::{ChainFacts, ChainLimits, Finality, RpcUrl};
use crate::preflight::Expected;
use crate::rpc::wire::theirs;
use crate::transaction::Transaction;
use crate::types::{At, Receipt, Wei};

/// Gas for anything that is done here; setting up USDC needs five millions.
const GAS: u64 = 8_000_000;

/// How long a transaction may wait for its block.
const BLOCK_WITHIN: Duration = Duration::from_secs(60);

/// Blocks after the deployment until it is final, whatever that means here.
const SETTLING: u64 = 3;

/// How a local chain is set up.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// The process.
    pub anvil: AnvilSettings,
    /// Seconds between blocks; without them a block is made for each transaction.
    pub block_seconds: Option<u64>,
    /// Which block counts as one that stays.
    pub finality: Finality,
    /// The token; the real one if it is installed, when nothing is said.
    pub token: Option<LocalToken>,
    /// Settlement's signer.
    pub signer: Address,
    /// Receives seven tenths of the fees.
    pub platform: Address,
    /// Receives three tenths of the fees.
    pub reserve: Address,
    /// Seconds between asking for an exit and taking it.
    pub exit_delay: UnixSeconds,
}

impl LocalSettings {
    /// The usual: a block for each transaction, final two blocks later, a day's exit delay.
    pub fn new(signer: Address) -> Self {
        Self {
            anvil: AnvilSettings::default(),
            block_seconds: None,
            finality: Finality::Finalized,
            token: None,
            signer,
            platform: local_key("platform").address(),
            reserve: local_key("reserve").address(),
            exit_delay: UnixSeconds(86_400),
        }
    }
}

/// A local chain with token and escrow.
#[derive(Debug)]
pub struct LocalChain {
    /// The process, for everything that only a local chain can do.
    pub anvil: Anvil,
    chain: Chain,
    bank: Bank,
    token: LocalToken,
    expected: Expected,
}

impl LocalChain {
    /// Starts anvil, deploys token and escrow, and waits until they are final.
    pub async fn start(settings: &LocalSettings) -> Result<Self, AnvilError> {
        let anvil = Anvil::start(&settings.anvil).await?;
        let bank = Bank { key: local_key("bank") };
        anvil.give_gas(&bank.address()).await?;
        let kind = settings.token.unwrap_or_else(LocalToken::available);
        let token = kind.deploy(&anvil, &bank).await?;
        let setup = Setup {
            token,
            operator: bank.address(),
            signer: settings.signer,
            platform: settings.platform,
            reserve: settings.reserve,
            exit_delay: settings.exit_delay,
        };
        let deployed = bank.send(&anvil, "deploying the escrow", None, call::deploy_escrow(&setup)?).await?;
        let escrow = deployed.contract.ok_or_else(|| failed("deploying the escrow", "no contract was made"))?;
        let facts = ChainFacts { chain_id: anvil.chain_id(), escrow, token, escrow_block: deployed.block, finality: settings.finality };
        let chain = Chain::new(facts, std::slice::from_ref(anvil.rpc()), local_limits())?;
        anvil.mine(SETTLING * settings.anvil.slots_in_epoch.max(1)).await?;
        if let Some(seconds) = settings.block_seconds {
            anvil.set_automine(false).await?;
            anvil.mine_every(seconds).await?;
        }
        let expected = Expected { signer: settings.signer, exit_delay: settings.exit_delay };
        Ok(Self { anvil, chain, bank, token: kind, expected })
    }

    /// The chain, spoken to directly.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The chain, spoken to through other nodes: proxies before this one.
    pub fn through(&self, rpc: &[RpcUrl], limits: ChainLimits) -> Result<Chain, ChainError> {
        Chain::new(*self.chain.facts(), rpc, limits)
    }

    /// Chain, escrow and token.
    pub const fn facts(&self) -> &ChainFacts {
        self.chain.facts()
    }

    /// What a preflight of it expects.
    pub const fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Which token it has.
    pub const fn token(&self) -> LocalToken {
        self.token
    }

    /// The key that made token and escrow: the operator.
    pub const fn operator(&self) -> &MoneyKey {
        &self.bank.key
    }

    /// Gives an address money, and coins to pay gas with.
    pub async fn fund(&self, to: &Address, amount: Usdc) -> Result<(), AnvilError> {
        self.anvil.give_gas(to).await?;
        self.mint(to, amount).await
    }

    /// Gives an address money.
    pub async fn mint(&self, to: &Address, amount: Usdc) -> Result<(), AnvilError> {
        let token = self.facts().token;
        self.bank.send(&self.anvil, "minting", Some(&token), token::mint(to, amount)).await.map(drop)
    }

    /// Lets the token serve an address no more, or again.
    pub async fn set_blocklisted(&self, account: &Address, listed: bool) -> Result<(), AnvilError> {
        let token = self.facts().token;
        self.bank.send(&self.anvil, "listing", Some(&token), token::block_list(account, listed)).await.map(drop)
    }

    /// Deposits an account's own money under a spending key, and waits for the block.
    pub async fn deposit(&self, account: &MoneyKey, amount: Usdc, spending_key: &Address) -> Result<Receipt, AnvilError> {
        let facts = *self.facts();
        self.send(account, &facts.token, call::approve(&facts.escrow, amount)).await?;
        self.send(account, &facts.escrow, call::deposit(amount, spending_key)).await
    }

    /// Sends a call and waits for its block; one that reverts is an error.
    pub async fn send(&self, key: &MoneyKey, to: &Address, data: Vec<u8>) -> Result<Receipt, AnvilError> {
        send(&self.anvil, Some(&self.chain), key, "a call", Some(to), data).await
    }

    /// Makes blocks until what happened so far is final.
    pub async fn settle(&self) -> Result<(), AnvilError> {
        let latest = self.chain.latest_block().await?;
        for _ in 0..100 {
            if self.chain.final_block().await?.number >= latest.number {
                return Ok(());
            }
            self.anvil.mine(1).await?;
        }
        Err(failed("settling", "the final block stays behind"))
    }

    /// The time by the chain's newest block.
    pub async fn now(&self) -> Result<UnixSeconds, AnvilError> {
        Ok(self.chain.latest_block().await?.time)
    }

    /// The next nonce of an address by the newest block.
    pub async fn nonce(&self, of: &Address) -> Result<u64, AnvilError> {
        Ok(self.chain.nonce(of, At::Latest).await?)
    }
}

/// Limits for a node on this machine: waits are short, patience is not.
fn local_limits() -> ChainLimits {
    ChainLimits { answer_within: Duration::from_secs(60), ..ChainLimits::default() }
}

/// Whoever deploys and mints.
#[derive(Debug)]
pub(super) struct Bank {
    key: MoneyKey,
}

impl Bank {
    pub(super) const fn address(&self) -> Address {
        self.key.address()
    }

    pub(super) async fn send(&self, anvil: &Anvil, what: &str, to: Option<&Address>, data: Vec<u8>) -> Result<Receipt, AnvilError> {
        send(anvil, None, &self.key, what, to, data).await
    }

    pub(super) async fn deploy(&self, anvil: &Anvil, what: &str, code: Vec<u8>) -> Result<Address, AnvilError> {
        let receipt = self.send(anvil, what, None, code).await?;
        receipt.contract.ok_or_else(|| failed(what, "no contract was made"))
    }
}

/// Signs and sends a transaction with the nonce that comes next, and waits for its block. Whoever uses one key from two places at once gets in its own way.
async fn send(
    anvil: &Anvil,
    chain: Option<&Chain>,
    key: &MoneyKey,
    what: &str,
    to: Option<&Address>,
    data: Vec<u8>,
) -> Result<Receipt, AnvilError> {
    let nobody = Address::default();
    let facts = chain.map_or_else(
        || ChainFacts { chain_id: anvil.chain_id(), escrow: nobody, token: nobody, escrow_block: 0, finality: Finality::Latest },
        |chain| *chain.facts(),
    );
    let direct = Chain::new(facts, std::slice::from_ref(anvil.rpc()), local_limits())?;
    let nonce: U64 = anvil.node().ask("eth_getTransactionCount", json!([theirs(&key.address()), "pending"])).await?;
    let fees = direct.fees_now().await?;
    let tip = Wei(fees.tip.0.max(1_000_000_000));
    let transaction = Transaction {
        chain_id: facts.chain_id,
        nonce: nonce.to(),
        to: to.copied(),
        gas_limit: GAS,
        max_fee: Wei(fees.base_fee.times(2).0.saturating_add(tip.0)),
        max_priority_fee: tip,
        value: Wei::ZERO,
        data,
    };
    let signed = transaction.sign(key);
    let sent = direct.send_raw(&signed.raw).await?;
    let begun = Instant::now();
    while begun.elapsed() < BLOCK_WITHIN {
        if let Some(receipt) = direct.receipt(&signed.hash).await? {
            if receipt.success {
                return Ok(receipt);
            }
            let why = match &transaction.to {
                Some(to) => direct.simulate(&key.address(), to, &transaction.data).await?.err().map(|revert| revert.name),
                None => None,
            };
            return Err(failed(what, &why.unwrap_or_else(|| "it was reverted".to_owned())));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(failed(what, &format!("no block took it; the node said {sent:?}")))
}

pub(super) fn failed(what: &str, reason: &str) -> AnvilError {
    AnvilError::Failed { what: what.to_owned(), reason: reason.to_owned() }
}
