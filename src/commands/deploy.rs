//! `orien settlement deploy`: a new escrow on a chain, and the network file of the network around it.
//!
//! Always true: nothing is deployed for a data directory that has a network already; the file is written only after the deployed contract was found at a final block to be
//! what this program deploys; an interrupted deployment goes on under its key and never makes a second contract.

use std::path::Path;

use anyhow::{Context, bail};
use orien_bootstrap::{DataDir, Keys, Network, NetworkChain, RoleName, Settlement};
use orien_chain::call::{self, Setup};
use orien_chain::{Chain, ChainFacts, ChainLimits, Expected, Finality, Preset, RpcUrl};
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::{Millis, UnixSeconds};
use serde_json::{Value, json};

use crate::cli::DeployArgs;
use crate::client::fresh_key;
use crate::failure::{Failure, Told};
use crate::wallet::folder::{self, WalletFolder};
use crate::wallet::record::{Order, Record};
use crate::wallet::sending::{Done, Sender};
use crate::wallet::{key, reach};
use crate::{output, roles, show};

/// Usual distance between the newest and the final block, in seconds, where every block is final and where none is at once.
const LAG_LATEST_SECONDS: u64 = 10;
const LAG_SECONDS: u64 = 1800;

/// Where and how an escrow is deployed.
struct Plan {
    preset: Option<&'static Preset>,
    /// With no escrow yet.
    facts: ChainFacts,
    setup: Setup,
    nodes: Vec<RpcUrl>,
    finality_lag: Millis,
}

pub(crate) fn run(args: &DeployArgs) -> anyhow::Result<()> {
    super::runtime()?.block_on(deploy(args))
}

async fn deploy(args: &DeployArgs) -> anyhow::Result<()> {
    let path = roles::data_dir(RoleName::Settlement, args.data_dir.as_deref())?;
    // Its keys are made and kept now: the contract will name them.
    let data = DataDir::open(&path, RoleName::Settlement)?;
    let file = data.network_file();
    if file.exists() {
        let text = format!("{} belongs to a network already ({}); choose another --data-dir", path.display(), file.display());
        return Err(Told::coded(Failure::Other, "network_exists", text));
    }
    let keys = Keys::load_or_create(&data)?;
    let deployer = key::open(&args.wallet)?;
    let rpc: Vec<RpcUrl> = args.public_rpc.iter().map(|text| text.parse().context("--public-rpc")).collect::<anyhow::Result<_>>()?;
    let plan = plan(args, deployer.address(), keys.money().address())?;
    let Some((once, done)) = send(args, &plan, &deployer).await? else { return Ok(()) };
    let outcome = done.outcome();
    let escrow = outcome.contract.as_deref().context("the chain says that the transaction made no contract")?.parse()?;
    let facts = ChainFacts { escrow, escrow_block: outcome.block, ..plan.facts };
    let settlement = Settlement { peer: keys.peer().id(), signer: keys.money().address(), addresses: Vec::new() };
    let on = NetworkChain { facts, preset: plan.preset, rpc };
    let exit_delay = Millis::from_secs(args.exit_delay);
    let network = Network::new_evm(&args.name, settlement, on, exit_delay, plan.finality_lag, Vec::new())?;
    let chain = Chain::new(facts, &plan.nodes, ChainLimits::default()).map_err(reach::told)?;
    let expected = Expected { signer: plan.setup.signer, exit_delay: plan.setup.exit_delay };
    chain.preflight(&expected).await.map_err(reach::told)?;
    network.save(&file)?;
    output::note("  the contract is what this program deploys, and says what it was told");
    tell(args, &plan, &network, &file, (&once, &done))
}

fn plan(args: &DeployArgs, deployer: Address, signer: Address) -> anyhow::Result<Plan> {
    if args.sending.no_wait {
        bail!("a deployment is waited for until it is final: the network file says where it is; leave --no-wait out");
    }
    let preset = args.chain.as_deref().map(preset).transpose()?;
    let address = |flag: &str, text: &Option<String>| text.as_deref().map(|text| roles::address(flag, text)).transpose();
    let chain_id = preset.map(|preset| preset.chain_id).or(args.chain_id).context("say which chain with --chain or --chain-id")?;
    let token =
        address("--token", &args.token)?.or(preset.map(|preset| preset.token)).context("say which contract is USDC with --token")?;
    let finality = match &args.finality {
        Some(text) => text.parse().map_err(reach::told).context("--finality")?,
        None => preset.map_or(Finality::Finalized, |preset| preset.finality),
    };
    let operator = address("--operator", &args.operator)?.unwrap_or(deployer);
    let setup = Setup {
        token,
        operator,
        signer,
        platform: address("--platform", &args.platform)?.unwrap_or(operator),
        reserve: address("--reserve", &args.reserve)?.unwrap_or(operator),
        exit_delay: UnixSeconds(args.exit_delay),
    };
    if operator == signer {
        bail!("the operator replaces a signer whose key was stolen, so it cannot be the signer; name another with --operator");
    }
    let lag = args.finality_lag.or(preset.map(|preset| preset.finality_lag_seconds)).unwrap_or(match finality {
        Finality::Latest => LAG_LATEST_SECONDS,
        Finality::Safe | Finality::Finalized => LAG_SECONDS,
    });
    let facts = ChainFacts { chain_id, escrow: Address::default(), token, escrow_block: 0, finality };
    Ok(Plan { preset, facts, setup, nodes: reach::nodes(&args.rpc, &[])?, finality_lag: Millis::from_secs(lag) })
}

/// A chain by its name.
pub(crate) fn preset(name: &str) -> anyhow::Result<&'static Preset> {
    Preset::named(name)
        .with_context(|| format!("there is no chain `{name}`; known are {}; for another give its --chain-id and --token", Preset::names()))
}

/// Deploys, or goes on with it. None when it was only to be said what would be done.
async fn send(args: &DeployArgs, plan: &Plan, deployer: &MoneyKey) -> anyhow::Result<Option<(String, Done)>> {
    let chain = Chain::new(plan.facts, &plan.nodes, ChainLimits::default()).map_err(reach::told)?;
    chain.check_chain_id().await.map_err(reach::told)?;
    let last = chain.final_block().await.map_err(reach::told)?;
    chain.check_token(&last).await.map_err(reach::told)?;
    let folder = WalletFolder::open(&folder::place(args.wallet.wallet.as_deref())?)?;
    let once = args.sending.key.clone().map_or_else(fresh_key, Ok)?;
    let facts = facts_of(plan);
    let mut record = Record::find(&folder, &once, (plan.facts.chain_id, &deployer.address()), "deploy", &facts)?;
    let coin = reach::coin(plan.facts.chain_id);
    let sender = Sender { chain: &chain, key: deployer, folder: &folder, sending: &args.sending, coin };
    let mut order = Order::new(None, &call::deploy_escrow(&plan.setup).map_err(reach::told)?, call::DEPLOY_GAS);
    if record.is_fresh() {
        order.gas_limit = sender.limit_for(order.gas_limit, None, &order.data()?).await?;
        sender.finish_earlier(&once).await?;
        let most = sender.weigh(&order).await?;
        say(plan, deployer.address());
        output::note(format!("  gas at most {} units, {most} {coin}", order.gas_limit));
        if args.sending.dry_run {
            output::note("  nothing was sent (--dry-run)");
            return Ok(None);
        }
        output::note(format!("  if this is interrupted, the same command with --key {once} goes on"));
    }
    Ok(Some((once, sender.carry_out(&mut record, &order).await?)))
}

fn say(plan: &Plan, deployer: Address) {
    let setup = &plan.setup;
    output::note(format!("deploying an escrow on chain {}, from {deployer}", plan.facts.chain_id));
    output::note(format!("  holds     the token {}", setup.token));
    output::note(format!(
        "  operator  {}: may change the signer, and after the exit delay who receives fees; nothing else",
        setup.operator
    ));
    output::note(format!("  signer    {}: settlement's allowances", setup.signer));
    output::note(format!("  fees      7 % to {}, 3 % to {}", setup.platform, setup.reserve));
    output::note(format!("  exit      {} after it is asked for", show::seconds(setup.exit_delay.0)));
}

fn facts_of(plan: &Plan) -> Value {
    let setup = &plan.setup;
    json!({
        "token": setup.token.to_string(), "operator": setup.operator.to_string(), "signer": setup.signer.to_string(),
        "platform": setup.platform.to_string(), "reserve": setup.reserve.to_string(), "exitDelaySeconds": setup.exit_delay.0,
    })
}

fn tell(args: &DeployArgs, plan: &Plan, network: &Network, file: &Path, (once, done): (&str, &Done)) -> anyhow::Result<()> {
    let outcome = done.outcome();
    let escrow = outcome.contract.as_deref().unwrap_or_default();
    if args.json {
        let mut answer = facts_of(plan);
        for (name, value) in [
            ("action", json!("deploy")),
            ("network", json!(network.id().as_str())),
            ("networkFile", json!(file)),
            ("chainId", json!(plan.facts.chain_id)),
            ("escrow", json!(escrow)),
            ("transaction", json!(outcome.transaction)),
            ("block", json!(outcome.block)),
            ("gasUsed", json!(outcome.gas_used)),
            ("fee", json!(outcome.fee.to_string())),
            ("key", json!(once)),
        ] {
            answer[name] = value;
        }
        return output::json(&answer);
    }
    output::line(format!("network        {} ({})", network.id(), file.display()));
    output::line(format!("escrow         {escrow}"));
    output::line(format!("transaction    {} in block {}", outcome.transaction.as_deref().unwrap_or_default(), outcome.block));
    output::line(format!("gas            {} units, {} {}", outcome.gas_used, outcome.fee, reach::coin(plan.facts.chain_id)));
    output::line("next           give that file to every peer; settlement's own address pays the gas of batches, so send it some:");
    output::line(format!("               {}", plan.setup.signer));
    Ok(())
}
