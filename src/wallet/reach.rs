//! From words on the command line to an escrow that can be asked: which network, which nodes of its chain, and whether they are what the network file says.

use std::path::{Path, PathBuf};

use anyhow::Context;
use orien_bootstrap::{Network, RoleName};
use orien_chain::{Chain, ChainError, ChainFacts, ChainLimits, Expected, Preflight, RpcUrl};
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;

use crate::cli::{AtEscrow, RpcArgs};
use crate::failure::{Failure, Told};
use crate::{commands, roles};

/// An escrow in reach.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) network: Network,
    pub(crate) facts: ChainFacts,
    pub(crate) chain: Chain,
    /// What was found at the contracts.
    pub(crate) found: Preflight,
    /// What gas is paid in.
    pub(crate) coin: &'static str,
}

/// The nodes of a chain that are asked: those on the command line or in the environment, else those that the network file names.
pub(crate) fn nodes(args: &RpcArgs, hints: &[RpcUrl]) -> anyhow::Result<Vec<RpcUrl>> {
    if args.rpc.is_empty() && hints.is_empty() {
        let text = "no node of the chain is known: name one with --rpc URL or ORIEN_RPC";
        return Err(Told::coded(Failure::Other, "no_rpc", text));
    }
    if args.rpc.is_empty() {
        return Ok(hints.to_vec());
    }
    // The text may hold a key, so the error does not show it.
    args.rpc.iter().map(|text| text.parse().context("--rpc")).collect()
}

/// The gateway's data directory.
pub(crate) fn gateway(at: &AtEscrow) -> anyhow::Result<PathBuf> {
    roles::data_dir(RoleName::Gateway, at.gateway.as_deref())
}

/// The network file: what was said, else the gateway's.
pub(crate) fn network(at: &AtEscrow) -> anyhow::Result<(Network, ChainFacts)> {
    let path = match &at.network {
        Some(path) => path.clone(),
        None => gateway(at)?.join("network.toml"),
    };
    let network = Network::load(&path).context("no network; pass its file with --network")?;
    let Some(facts) = network.chain().copied() else {
        let text = format!(
            "{} is on the ledger rail: its money is credit that the operator grants, and there is no escrow to put USDC into",
            network.name()
        );
        return Err(Told::coded(Failure::Other, "ledger_rail", text));
    };
    Ok((network, facts))
}

/// Connects, and checks that chain and contracts are what the network file says.
pub(crate) async fn reach(at: &AtEscrow) -> anyhow::Result<Reached> {
    let (network, facts) = network(at)?;
    let nodes = nodes(&at.rpc, network.rpc())?;
    let chain = Chain::new(facts, &nodes, ChainLimits::default()).map_err(told)?;
    let expected = Expected { signer: network.settlement().signer, exit_delay: UnixSeconds(network.exit_delay().0 / 1000) };
    let found = chain.preflight(&expected).await.map_err(told)?;
    let coin = coin(facts.chain_id);
    Ok(Reached { network, facts, chain, found, coin })
}

/// The spending key that is meant: what was said, else the gateway's.
pub(crate) fn spending_key(given: Option<&str>, at: &AtEscrow) -> anyhow::Result<Address> {
    if let Some(text) = given {
        return roles::address("the spending key", text);
    }
    let folder = gateway(at)?;
    let keys = gateway_key(&folder).with_context(|| {
        format!("no gateway at {}; name its key with --spending-key, or its data directory with --gateway", folder.display())
    })?;
    Ok(keys)
}

/// The spending key of a gateway's data directory.
pub(crate) fn gateway_key(folder: &Path) -> anyhow::Result<Address> {
    let keys = commands::keys::public_keys(folder)?;
    keys.money_address.parse().context("the gateway's key")
}

/// What gas is paid in.
pub(crate) const fn coin(chain_id: u64) -> &'static str {
    // Arc, its test network and its own development chains.
    if matches!(chain_id, 5042 | 5_042_001 | 5_042_002) { "USDC" } else { "ETH" }
}

/// A failure of the chain, with its code.
pub(crate) fn told(error: ChainError) -> anyhow::Error {
    Told::coded(Failure::Other, error.code(), error)
}
