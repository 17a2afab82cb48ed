//! `orien init`: a data directory with keys and what else a role needs. Never overwrites.

use std::path::Path;

use anyhow::{Context, bail};
use orien_bootstrap::{DataDir, Keys, Network, NetworkChain, RoleName, Settlement};
use orien_chain::{Chain, ChainFacts, ChainLimits, Expected, Preset};
use orien_protocol::signing::Address;
use orien_protocol::time::{Millis, UnixSeconds};
use serde_json::json;

use super::deploy;
use crate::cli::{InitArgs, RoleName as CliRole};
use crate::wallet::reach;
use crate::{examples, output, roles};

pub(crate) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let role = match args.role {
        CliRole::Node => RoleName::Node,
        CliRole::Gateway => RoleName::Gateway,
        CliRole::Settlement => RoleName::Settlement,
        CliRole::Bootstrap => RoleName::Bootstrap,
    };
    let path = roles::data_dir(role, args.data_dir.as_deref())?;
    // Nothing is made for a role that could not start.
    if role != RoleName::Settlement && args.network.is_none() && !path.join("network.toml").exists() {
        bail!("say which network with --network FILE: the network.toml that `orien init settlement` made");
    }
    if role != RoleName::Settlement && args.chain.is_some() {
        bail!("only settlement makes a network: the others take its file, with --network FILE");
    }
    let data = DataDir::open(&path, role)?;
    let keys = Keys::load_or_create(&data)?;
    let network_file = data.network_file();
    let network = if network_file.exists() {
        Network::load(&network_file)?
    } else {
        let network = network_of(args, &keys)?;
        network.save(&network_file)?;
        network
    };
    let tools = (role == RoleName::Node).then(|| path.join("provider-config.json"));
    if let Some(tools) = tools.as_deref().filter(|tools| !tools.exists()) {
        std::fs::write(tools, examples::PROVIDER_CONFIG).with_context(|| format!("cannot write {}", tools.display()))?;
    }
    let (peer, money) = (keys.peer().id(), keys.money().address());
    if args.json {
        return output::json(&json!({
            "role": role.name(), "dataDir": path, "network": network.id().as_str(), "networkFile": network_file,
            "peerId": peer.to_string(), "moneyAddress": money.to_string(), "toolsFile": tools,
        }));
    }
    output::line(format!("data           {}", path.display()));
    output::line(format!("network        {} ({})", network.id(), network_file.display()));
    output::line(format!("peer id        {peer}"));
    output::line(format!("money address  {money}"));
    next_step(role, &path, &network_file, tools.as_deref());
    Ok(())
}

fn network_of(args: &InitArgs, keys: &Keys) -> anyhow::Result<Network> {
    if let Some(file) = &args.network {
        return Ok(Network::load(file)?);
    }
    let settlement = Settlement { peer: keys.peer().id(), signer: keys.money().address(), addresses: Vec::new() };
    if let (Some(chain), Some(escrow), Some(block)) = (&args.chain, &args.escrow, args.escrow_block) {
        return around_escrow(args, settlement, deploy::preset(chain)?, (roles::address("--escrow", escrow)?, block));
    }
    Ok(Network::new_ledger(&args.name, settlement, Vec::new())?)
}

/// The network around an escrow that stands already, once the chain says that it is ours.
fn around_escrow(
    args: &InitArgs,
    settlement: Settlement,
    preset: &'static Preset,
    (escrow, escrow_block): (Address, u64),
) -> anyhow::Result<Network> {
    let nodes = reach::nodes(&args.rpc, &[])?;
    let facts = ChainFacts { chain_id: preset.chain_id, escrow, token: preset.token, escrow_block, finality: preset.finality };
    let chain = Chain::new(facts, &nodes, ChainLimits::default())?;
    let expected = Expected { signer: settlement.signer, exit_delay: UnixSeconds(args.exit_delay) };
    super::runtime()?.block_on(chain.preflight(&expected))?;
    let on = NetworkChain { facts, preset: Some(preset), rpc: Vec::new() };
    let lag = Millis::from_secs(preset.finality_lag_seconds);
    Ok(Network::new_evm(&args.name, settlement, on, Millis::from_secs(args.exit_delay), lag, Vec::new())?)
}

fn next_step(role: RoleName, path: &Path, network_file: &Path, tools: Option<&Path>) {
    let path = path.display();
    output::line(match role {
        RoleName::Settlement => {
            format!("next           give {} to every peer, then: orien settlement --data-dir {path}", network_file.display())
        }
        RoleName::Bootstrap => format!("next           orien bootstrap --data-dir {path}"),
        RoleName::Node => {
            let tools = tools.map(|tools| tools.display().to_string()).unwrap_or_default();
            format!("next           edit {tools}, then: orien node --data-dir {path} --bootstrap ADDRESS")
        }
        RoleName::Gateway => format!("next           orien gateway --data-dir {path} --bootstrap ADDRESS"),
    });
}
