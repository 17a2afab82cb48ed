//! From command line to running roles: which directory, which network file, which ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use orien_bootstrap::{DoorSettings, Network, PeerConfig, RoleName};
use orien_chain::{RpcUrl, Wei};
use orien_door::TlsFiles;
use orien_net::NetLimits;
use orien_node::chain::{CollectPolicy, SendingRules};
use orien_protocol::credit::CreditPolicy;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::Millis;
use orien_settlement::ChainConfig;
use orien_settlement::onchain::Works;
use orien_settlement::paying::{Policy, Rules};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cli::{GatewayArgs, NodeArgs, PayingArgs, PeerArgs, SettlementArgs};

/// Usual port of a bootstrap peer; the others take a free one.
const BOOTSTRAP_PORT: u16 = 4001;

/// What every data directory has.
const PEER_KEY: &str = "peer.key";

/// The folder that holds one data directory per role.
pub(crate) fn home() -> anyhow::Result<PathBuf> {
    if let Some(home) = std::env::var_os("ORIEN_HOME") {
        return Ok(PathBuf::from(home));
    }
    if let Some(data) = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(data).join("orien"));
    }
    match std::env::var_os("HOME").filter(|path| !path.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/orien")),
        None => bail!("there is no HOME, XDG_DATA_HOME or ORIEN_HOME: say where to keep data with --data-dir"),
    }
}

/// The data directory of a role.
pub(crate) fn data_dir(role: RoleName, given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => Ok(home()?.join(role.name())),
    }
}

/// The data directory of a role that is there already: a folder with one for each role, as `orien dev` makes it, stands for the one in it.
pub(crate) fn home_of(role: RoleName, given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = data_dir(role, given)?;
    let inner = folder.join(role.name());
    Ok(if !folder.join(PEER_KEY).exists() && inner.join(PEER_KEY).exists() { inner } else { folder })
}

const fn door_port(role: RoleName) -> u16 {
    match role {
        RoleName::Bootstrap => 8401,
        RoleName::Gateway => 8402,
        RoleName::Node => 8403,
        RoleName::Settlement => 8404,
    }
}

/// The peer and the door that the common flags describe.
pub(crate) fn peer(role: RoleName, args: &PeerArgs) -> anyhow::Result<(PeerConfig, DoorSettings)> {
    let data_dir = data_dir(role, args.data_dir.as_deref())?;
    let network_file = args.network.clone().unwrap_or_else(|| data_dir.join("network.toml"));
    let advice = "; make a network with `orien init settlement`, or pass the file of an existing one with --network";
    let network = Network::load(&network_file).with_context(|| format!("no network{advice}"))?;
    let port = if role == RoleName::Bootstrap { BOOTSTRAP_PORT } else { 0 };
    let everywhere = || vec![format!("/ip4/0.0.0.0/tcp/{port}"), format!("/ip4/0.0.0.0/udp/{port}/quic-v1")];
    let peer = PeerConfig {
        role,
        data_dir,
        network: Some(network),
        listen: if args.listen.is_empty() { everywhere() } else { args.listen.clone() },
        external: args.external.clone(),
        bootstrap: args.bootstrap.clone(),
        rpc: args.rpc.iter().map(|url| url.parse().context("--rpc")).collect::<anyhow::Result<Vec<RpcUrl>>>()?,
        limits: NetLimits::default(),
    };
    let address = args.http.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, door_port(role))));
    let tls = args.tls_cert.clone().zip(args.tls_key.clone()).map(|(certificate, key)| TlsFiles { certificate, key });
    let door = DoorSettings { address, allow_remote: args.allow_remote_http, tls, extra_hosts: Vec::new() };
    Ok((peer, door))
}

/// An address on the command line.
pub(crate) fn address(what: &str, text: &str) -> anyhow::Result<Address> {
    text.parse().with_context(|| format!("{what} `{text}`"))
}

/// An amount of USDC on the command line.
pub(crate) fn amount(flag: &str, text: &str) -> anyhow::Result<Usdc> {
    text.parse().with_context(|| format!("{flag} `{text}`"))
}

/// Runs a node until `cancel`.
pub(crate) async fn node(args: NodeArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let (peer, door) = peer(RoleName::Node, &args.peer)?;
    let tools_file = args.tools.unwrap_or_else(|| peer.data_dir.join("provider-config.json"));
    let payout = args.payout.map(|text| address("--payout", &text)).transpose()?;
    let credit =
        CreditPolicy { cap: amount("--credit-cap", &args.credit_cap)?, unredeemed_cap: amount("--unredeemed-cap", &args.unredeemed_cap)? };
    // A lock takes a while to be final, so half of what may wait is early enough.
    let lock_at = Usdc::from_micros(credit.unredeemed_cap.micros() / 2);
    let sending = SendingRules { fee_cap: Wei::from_gwei(args.fee_cap), ..SendingRules::default() };
    let collect = CollectPolicy { lock_at, sending, ..CollectPolicy::default() };
    let config = orien_node::Config { door, payout, credit, collect, ..orien_node::Config::new(peer, tools_file) };
    // The door file tells others what `ready` would; nobody waits for it here.
    let (ready, _) = oneshot::channel();
    Ok(orien_node::run(config, cancel, ready).await?)
}

/// Runs a gateway until `cancel`.
pub(crate) async fn gateway(args: GatewayArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let (peer, door) = peer(RoleName::Gateway, &args.peer)?;
    let account = args.account.map(|text| address("--account", &text)).transpose()?;
    let approve_above = args.approve_above.map(|text| amount("--approve-above", &text)).transpose()?;
    Ok(orien_gateway::run(orien_gateway::Config { peer, door, account, approve_above }, cancel).await?)
}

/// Runs a settlement until `cancel`.
pub(crate) async fn settlement(args: SettlementArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let (peer, door) = peer(RoleName::Settlement, &args.peer)?;
    let batch_interval = std::time::Duration::from_secs(args.batch_seconds.max(1));
    let chain = ChainConfig { works: works(&args.paying)?, ..ChainConfig::default() };
    Ok(orien_settlement::run(orien_settlement::Config { peer, door, batch_interval, chain }, cancel).await?)
}

/// When settlement sends transactions.
fn works(args: &PayingArgs) -> anyhow::Result<Works> {
    let optional = |flag: &str, text: &Option<String>| text.as_deref().map(|text| amount(flag, text)).transpose();
    let policy = Policy {
        amount: amount("--redeem-amount", &args.redeem_amount)?,
        age: Millis::from_secs(args.redeem_age),
        gas_percent: args.gas_percent,
        coin_price: optional("--coin-price", &args.coin_price)?,
        dust: amount("--dust", &args.dust)?,
        payout_cap: optional("--payout-cap", &args.payout_cap)?,
        day_cap: optional("--day-cap", &args.day_cap)?,
        ..Policy::default()
    };
    Ok(Works { policy, rules: Rules::with_fee_cap_gwei(args.fee_cap), ..Works::default() })
}

/// Runs a bootstrap peer until `cancel`.
pub(crate) async fn bootstrap(args: PeerArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let (peer, door) = peer(RoleName::Bootstrap, &args)?;
    Ok(orien_bootstrap::run(orien_bootstrap::Config { peer, door }, cancel).await?)
}
