//! All four roles in one process, on loopback, with example tools: `orien dev`, and what `orien demo` works on.
//!
//! The roles talk to each other only over libp2p and HTTP, as they would on four hosts.

mod chain;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use orien_bootstrap::{DataDir, DoorFile, DoorSettings, Keys, Network, PeerConfig, RoleName, Settlement};
use orien_protocol::money::Usdc;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::chain::DevChain;
use crate::cli::{ChainName, DevArgs};
use crate::client::Client;
use crate::client::pointer::Pointer;
use crate::commands::open;
use crate::{examples, output, shutdown};

/// Longest wait for a role to open its door.
const START_TIME: Duration = Duration::from_secs(30);

/// Where a running development network keeps things, and how to reach its doors.
pub(crate) struct DevNetwork {
    roles: JoinSet<(RoleName, anyhow::Result<()>)>,
    /// Stops one role each.
    stops: Vec<(RoleName, CancellationToken)>,
    root: PathBuf,
    /// Where money is, unless it is the operator's credit. It ends after the roles.
    chain: Option<DevChain>,
    /// Removes a temporary root at the end.
    _temporary: Option<TempDir>,
}

/// What may differ between development networks.
pub(crate) struct DevPlan {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) tools: Option<PathBuf>,
    pub(crate) gateway_http: SocketAddr,
    pub(crate) credit: Usdc,
    /// A chain of its own; without one there is credit of the operator.
    pub(crate) chain: Option<ChainName>,
    /// From what amount on MCP hosts ask their user.
    pub(crate) approve_above: Option<Usdc>,
}

impl DevNetwork {
    /// Starts settlement, bootstrap, node and gateway, and gives the gateway's account its credit once: as a grant, or as a deposit in an escrow.
    pub(crate) async fn start(plan: DevPlan) -> anyhow::Result<Self> {
        let (root, temporary) = match plan.data_dir {
            Some(path) => (path, None),
            None => {
                let folder = tempfile::Builder::new().prefix("orien-dev-").tempdir().context("no temporary directory")?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        private_folder(&root)?;
        let tools_file = match plan.tools {
            Some(path) => path,
            None => example_tools(&root)?,
        };
        let mut dev = Self { roles: JoinSet::new(), stops: Vec::new(), root, chain: None, _temporary: temporary };
        let network = match plan.chain {
            Some(ChainName::Anvil) => {
                let chain = DevChain::start(&dev.root, "dev").await?;
                chain.deposit(plan.credit).await?;
                dev.chain.insert(chain).network().clone()
            }
            None => dev.network()?,
        };
        dev.start_roles(network, tools_file, plan.gateway_http, plan.approve_above).await?;
        match &dev.chain {
            // A node that collects alone pays for its gas itself.
            Some(chain) => chain.give_gas(&dev.money_address(RoleName::Node)?.parse()?).await?,
            None => dev.grant(plan.credit).await?,
        }
        Ok(dev)
    }

    /// The network of this root: made at the first start out of settlement's keys.
    fn network(&self) -> anyhow::Result<Network> {
        let data = DataDir::open(&self.root.join("settlement"), RoleName::Settlement)?;
        if data.network_file().exists() {
            let network = Network::load(&data.network_file())?;
            if network.chain().is_some() {
                bail!("{} holds a network whose chain ended with the program that made it; choose another --data-dir", self.root.display());
            }
            return Ok(network);
        }
        let keys = Keys::load_or_create(&data)?;
        let settlement = Settlement { peer: keys.peer().id(), signer: keys.money().address(), addresses: Vec::new() };
        let network = Network::new_ledger("dev", settlement, Vec::new())?;
        network.save(&data.network_file())?;
        Ok(network)
    }

    async fn start_roles(
        &mut self,
        network: Network,
        tools_file: PathBuf,
        gateway_http: SocketAddr,
        approve_above: Option<Usdc>,
    ) -> anyhow::Result<()> {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = orien_bootstrap::Config { peer: self.peer(RoleName::Bootstrap, &network), door: DoorSettings::local(free) };
        let stop = self.stop_of(RoleName::Bootstrap);
        self.roles.spawn(async move { (RoleName::Bootstrap, orien_bootstrap::run(config, stop).await.map_err(Into::into)) });
        let health = self.door(RoleName::Bootstrap).await?.get("/health")?;
        let addresses: Vec<String> = serde_json::from_value(health["addresses"].clone()).context("the bootstrap peer has no addresses")?;
        let network = network.with_bootstrap(&addresses)?;

        let peer = self.peer(RoleName::Settlement, &network);
        let config = orien_settlement::Config {
            peer,
            door: DoorSettings::local(free),
            batch_interval: Duration::from_secs(2),
            chain: chain::settling(),
        };
        let stop = self.stop_of(RoleName::Settlement);
        self.roles.spawn(async move { (RoleName::Settlement, orien_settlement::run(config, stop).await.map_err(Into::into)) });

        let peer = self.peer(RoleName::Node, &network);
        let (ready, _) = oneshot::channel();
        let config = orien_node::Config { door: DoorSettings::local(free), ..orien_node::Config::new(peer, tools_file) };
        let stop = self.stop_of(RoleName::Node);
        self.roles.spawn(async move { (RoleName::Node, orien_node::run(config, stop, ready).await.map_err(Into::into)) });

        let peer = self.peer(RoleName::Gateway, &network);
        let account = self.chain.as_ref().map(DevChain::account);
        let config = orien_gateway::Config { peer, door: DoorSettings::local(gateway_http), account, approve_above };
        let stop = self.stop_of(RoleName::Gateway);
        self.roles.spawn(async move { (RoleName::Gateway, orien_gateway::run(config, stop).await.map_err(Into::into)) });
        for role in [RoleName::Settlement, RoleName::Node, RoleName::Gateway] {
            self.door(role).await?;
        }
        Ok(())
    }

    fn stop_of(&mut self, role: RoleName) -> CancellationToken {
        let stop = CancellationToken::new();
        self.stops.push((role, stop.clone()));
        stop
    }

    fn peer(&self, role: RoleName, network: &Network) -> PeerConfig {
        PeerConfig::loopback(role, self.root.join(role.name()), network.clone())
    }

    /// A client for the door of a role, as soon as it is open.
    pub(crate) async fn door(&mut self, role: RoleName) -> anyhow::Result<Client> {
        let folder = self.root.join(role.name());
        let begun = Instant::now();
        loop {
            if let Some(ended) = self.roles.try_join_next() {
                let (name, result) = ended.context("a role panicked")?;
                result.with_context(|| format!("{} did not start", name.name()))?;
                bail!("{} stopped while the network was starting", name.name());
            }
            if let Ok(file) = DoorFile::read(&folder)
                && file.pid == std::process::id()
            {
                return Client::open(file.address, &file.token_file);
            }
            if begun.elapsed() > START_TIME {
                bail!("{} did not open its door within {} s", role.name(), START_TIME.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Grants credit under a key of its own, so that a restart grants nothing more.
    async fn grant(&mut self, credit: Usdc) -> anyhow::Result<()> {
        let account = self.money_address(RoleName::Gateway)?;
        let settlement = self.door(RoleName::Settlement).await?;
        let grant = json!({ "account": account, "amount": credit.to_string() });
        tokio::task::spawn_blocking(move || settlement.post("/api/grants", &grant, Some("dev-first-credit"))).await??;
        Ok(())
    }

    /// The address of a role's money key.
    pub(crate) fn money_address(&self, role: RoleName) -> anyhow::Result<String> {
        crate::commands::keys::public_keys(&self.root.join(role.name())).map(|keys| keys.money_address)
    }

    /// Its chain, if it has one.
    pub(crate) const fn chain(&self) -> Option<&DevChain> {
        self.chain.as_ref()
    }

    /// Where everything is kept.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Stops the roles one after the other and reports the first failure. A node's sessions end with a voucher of the gateway and a claim at settlement, and all of them need to be
    /// introduced.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        for role in [RoleName::Node, RoleName::Gateway, RoleName::Settlement, RoleName::Bootstrap] {
            let Some((_, stop)) = self.stops.iter().find(|(name, _)| *name == role) else { continue };
            stop.cancel();
            while let Some(ended) = self.roles.join_next().await {
                let (name, result) = ended.context("a role panicked")?;
                if first.is_ok() {
                    first = result.with_context(|| format!("{} failed", name.name()));
                }
                if name == role {
                    break;
                }
            }
        }
        first
    }

    /// Waits until a role ends by itself, which none should.
    async fn first_end(&mut self) -> anyhow::Result<()> {
        let Some(ended) = self.roles.join_next().await else { bail!("no role runs") };
        let (name, result) = ended.context("a role panicked")?;
        result.with_context(|| format!("{} failed", name.name()))?;
        bail!("{} stopped by itself", name.name())
    }
}

fn private_folder(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("cannot make {}", path.display()))
}

fn example_tools(root: &Path) -> anyhow::Result<PathBuf> {
    let path = root.join("provider-config.json");
    if !path.exists() {
        std::fs::write(&path, examples::PROVIDER_CONFIG).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(path)
}

/// What an MCP host that starts its servers itself is told.
fn mcp_config(gateway: &Path) -> anyhow::Result<serde_json::Value> {
    let program = std::env::current_exe().context("this program has no path")?;
    let folder = std::path::absolute(gateway).context("the data directory has no path")?;
    Ok(json!({ "mcpServers": { "orien": { "command": program, "args": ["mcp", "--data-dir", folder] } } }))
}

/// `orien dev`.
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let approve_above = args.approve_above.as_deref().map(|text| crate::roles::amount("--approve-above", text)).transpose()?;
    let credit = crate::roles::amount("--credit", &args.credit)?;
    let plan = DevPlan { data_dir: args.data_dir, tools: args.tools, gateway_http: args.http, credit, chain: args.chain, approve_above };
    let mut dev = DevNetwork::start(plan).await?;
    // Others find it without being told; where that cannot be, it runs all the same.
    let pointer = Pointer::write(dev.root());
    let gateway = DoorFile::read(&dev.root().join("gateway"))?;
    let (address, token) = (gateway.address, gateway.token_file.display());
    let client = Client::open(address, &gateway.token_file)?;
    let link = tokio::task::spawn_blocking(move || open::link(&client)).await??;
    output::line(format!("console   {link}"));
    output::line(format!("token     {token}"));
    output::line(format!("try       curl -H \"Authorization: Bearer $(cat {token})\" http://{address}/api/providers"));
    output::line(format!("mcp       {}", mcp_config(&dev.root().join("gateway"))?));
    output::line(format!("data      {}", dev.root().display()));
    match dev.chain() {
        Some(chain) => {
            output::line(format!("chain     {}", chain.describe()));
            output::line(format!("escrow    {}, in which {} has {credit} for the gateway to spend", chain.escrow(), chain.account()));
            output::line(format!(
                "wallet    {}, with its password beside it: orien wallet balance {}",
                chain.wallet().display(),
                chain.words()
            ));
            output::line("money     of this chain alone: it is worth nothing and ends with this program");
        }
        None => output::line("money     credit of the ledger rail, granted by this program: not USDC"),
    }
    let stop = CancellationToken::new();
    let ended = tokio::select! {
        () = shutdown::watch(stop.clone()) => Ok(()),
        () = stop.cancelled() => Ok(()),
        ended = dev.first_end() => ended,
    };
    drop(pointer);
    dev.stop().await?;
    ended
}
