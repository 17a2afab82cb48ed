//! The chain of `orien dev --chain anvil`: on this machine, with a token, an escrow, and a funding wallet that pays for the gateway.
//!
//! Always true: nothing on it is worth anything, and it ends with the program. What the wallet does is what `orien wallet` does.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use orien_bootstrap::{DataDir, Keys, Network, NetworkChain, RoleName, Settlement, secrets};
use orien_chain::Chain;
use orien_chain::anvil::{LocalChain, LocalSettings};
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::Millis;
use orien_settlement::ChainConfig;
use orien_settlement::onchain::Works;
use orien_settlement::paying::Policy;

use crate::cli::{Acting, AtEscrow, RpcArgs, WalletAt};
use crate::client::fresh_key;
use crate::commands::wallet::{Wish, put_in};
use crate::wallet::folder::keystore_in;

/// What the wallet has at first, beside what is deposited.
const POCKET: u64 = 1_000_000_000;
/// Seconds between blocks; the block that stays is two behind.
const BLOCK_SECONDS: u64 = 1;
/// How far the final block is behind at most, with room for a machine that is busy.
const FINALITY_LAG: Millis = Millis::from_secs(30);

/// How often settlement looks for new blocks.
const POLL: Duration = Duration::from_millis(500);

/// A chain with everything that a development network needs of it.
pub(crate) struct DevChain {
    local: LocalChain,
    network: Network,
    /// The folder of the funding wallet.
    wallet: PathBuf,
    account: Address,
    /// Where the gateway keeps its spending key.
    gateway: PathBuf,
    network_file: PathBuf,
}

impl DevChain {
    /// Starts anvil, deploys token and escrow for the settlement in `root`, and makes a wallet that has money.
    pub(crate) async fn start(root: &Path, name: &str) -> anyhow::Result<Self> {
        let data = DataDir::open(&root.join(RoleName::Settlement.name()), RoleName::Settlement)?;
        if data.network_file().exists() {
            bail!(
                "{} holds an earlier network, whose chain ended with the program that made it; choose another --data-dir",
                root.display()
            );
        }
        let keys = Keys::load_or_create(&data)?;
        let signer = keys.money().address();
        let settings = LocalSettings { block_seconds: Some(BLOCK_SECONDS), ..LocalSettings::new(signer) };
        let local = LocalChain::start(&settings).await?;
        let settlement = Settlement { peer: keys.peer().id(), signer, addresses: Vec::new() };
        let on = NetworkChain { facts: *local.facts(), preset: None, rpc: vec![local.anvil.rpc().clone()] };
        let exit_delay = Millis::from_secs(settings.exit_delay.0);
        let network = Network::new_evm(name, settlement, on, exit_delay, FINALITY_LAG, Vec::new())?;
        network.save(&data.network_file())?;
        local.anvil.give_gas(&signer).await?;
        let wallet = root.join("wallet");
        let secret = secrets::new_money_secret()?;
        let account = MoneyKey::from_bytes(&secret)?.address();
        let chain =
            Self { local, network, wallet, account, gateway: root.join(RoleName::Gateway.name()), network_file: data.network_file() };
        chain.make_wallet(&secret)?;
        Ok(chain)
    }

    /// A keystore like any other; its password lies beside it, because nothing behind it is worth anything.
    fn make_wallet(&self, secret: &[u8; 32]) -> anyhow::Result<()> {
        super::private_folder(&self.wallet)?;
        let password = fresh_key()?;
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.password_file());
        made.and_then(|mut file| writeln!(file, "{password}")).context("cannot write the wallet's password")?;
        Ok(secrets::write_money_key(&keystore_in(&self.wallet), secret, Some(&password))?)
    }

    fn password_file(&self) -> PathBuf {
        self.wallet.join("password")
    }

    /// The network around it.
    pub(crate) const fn network(&self) -> &Network {
        &self.network
    }

    /// The account that pays for the gateway.
    pub(crate) const fn account(&self) -> Address {
        self.account
    }

    /// The funding wallet's folder.
    pub(crate) fn wallet(&self) -> &Path {
        &self.wallet
    }

    /// The chain, for looking.
    pub(crate) const fn chain(&self) -> &Chain {
        self.local.chain()
    }

    /// The escrow contract.
    pub(crate) fn escrow(&self) -> Address {
        self.local.facts().escrow
    }

    /// The words with which `orien wallet` finds all of it.
    pub(crate) fn words(&self) -> String {
        let (wallet, password) = (self.wallet.display(), self.password_file());
        format!(
            "--wallet {wallet} --password-file {} --network {} --gateway {}",
            password.display(),
            self.network_file.display(),
            self.gateway.display()
        )
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> String {
        format!("{} (anvil, id {}), with {}", self.local.anvil.rpc().as_str(), self.local.facts().chain_id, self.local.token().describe())
    }

    /// Gives an address coins to pay gas with.
    pub(crate) async fn give_gas(&self, to: &Address) -> anyhow::Result<()> {
        Ok(self.local.anvil.give_gas(to).await?)
    }

    /// Gives the wallet money and puts some of it into the escrow, for the gateway's key to spend.
    pub(crate) async fn deposit(&self, amount: Usdc) -> anyhow::Result<()> {
        // The gateway has not been started; its keys are made here, as it would make them.
        drop(Keys::load_or_create(&DataDir::open(&self.gateway, RoleName::Gateway)?)?);
        self.local.fund(&self.account, amount.plus(Usdc::from_micros(POCKET))?).await?;
        let acting = Acting {
            escrow: AtEscrow { network: Some(self.network_file.clone()), rpc: RpcArgs::default(), gateway: Some(self.gateway.clone()) },
            wallet: WalletAt { wallet: Some(self.wallet.clone()), key_file: None, password_file: Some(self.password_file()) },
            ..Acting::default()
        };
        put_in(&Wish { amount: amount.to_string(), spending_key: None, valid_for: 3_600 }, &acting).await
    }
}

/// Settlement of a development network: it pays out as soon as there is something to pay, since nobody minds the gas.
pub(super) fn settling() -> ChainConfig {
    let policy = Policy { amount: Usdc::from_micros(1), ..Policy::default() };
    ChainConfig { works: Works { policy, ..Works::default() }, poll: POLL }
}
