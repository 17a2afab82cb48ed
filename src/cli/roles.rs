//! Words of the commands that run roles, or make their data directories.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::SettlementCommand;

#[derive(Args, Debug, Clone, Default)]
pub(crate) struct PeerArgs {
    /// Where keys and records are kept [default: the role's folder below $ORIEN_HOME or ~/.local/share/orien]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The network file [default: network.toml in the data directory]
    #[arg(long, env = "ORIEN_NETWORK")]
    pub(crate) network: Option<PathBuf>,
    /// A bootstrap peer, such as /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo...; may be repeated, adds to the network file's
    #[arg(long, env = "ORIEN_BOOTSTRAP", value_delimiter = ',')]
    pub(crate) bootstrap: Vec<String>,
    /// Where to listen for peers; may be repeated [default: every interface, TCP and QUIC, a free port (bootstrap: 4001)]
    #[arg(long, env = "ORIEN_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,
    /// An address under which others reach this peer, when it differs from where it listens; may be repeated
    #[arg(long, env = "ORIEN_EXTERNAL", value_delimiter = ',')]
    pub(crate) external: Vec<String>,
    /// A node of the network's chain (its JSON-RPC); may be repeated, and two are compared with each other [default: those in the network file]
    #[arg(long, env = "ORIEN_RPC", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    pub(crate) rpc: Vec<String>,
    /// The local HTTP door [default: 127.0.0.1 with 8401 bootstrap, 8402 gateway, 8403 node, 8404 settlement]
    #[arg(long, env = "ORIEN_HTTP")]
    pub(crate) http: Option<SocketAddr>,
    /// Let the HTTP door be bound to something other than loopback without TLS; put TLS in front of it
    #[arg(long)]
    pub(crate) allow_remote_http: bool,
    /// A certificate (PEM, with those between it and its root): callers from other machines then have to speak TLS
    #[arg(long, env = "ORIEN_TLS_CERT", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, env = "ORIEN_TLS_KEY", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    /// The tools on offer [default: provider-config.json in the data directory]
    #[arg(long, env = "ORIEN_TOOLS")]
    pub(crate) tools: Option<PathBuf>,
    /// Where earnings go [default: payoutAddress of the configuration, else the address of this node's own money key]
    #[arg(long, env = "ORIEN_PAYOUT")]
    pub(crate) payout: Option<String>,
    /// Most work of one account without a voucher, in USDC, however much it has redeemed
    #[arg(long, default_value = "10")]
    pub(crate) credit_cap: String,
    /// Most promised and not yet redeemed value of one account, in USDC
    #[arg(long, default_value = "100")]
    pub(crate) unredeemed_cap: String,
    /// When this node collects by itself: never offer more than this per gas, in gwei
    #[arg(long, default_value_t = 500, value_name = "GWEI")]
    pub(crate) fee_cap: u64,
}

#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    /// The account that pays [default: the address of this gateway's own money key]
    #[arg(long, env = "ORIEN_ACCOUNT")]
    pub(crate) account: Option<String>,
    /// Let MCP hosts ask their user before more than this is committed at once, in USDC [default: never]
    #[arg(long, value_name = "USDC", env = "ORIEN_APPROVE_ABOVE")]
    pub(crate) approve_above: Option<String>,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SettlementArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SettlementCommand>,
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    /// Seconds between batches
    #[arg(long, default_value_t = 60)]
    pub(crate) batch_seconds: u64,
    #[command(flatten)]
    pub(crate) paying: PayingArgs,
}

/// When settlement sends transactions, in a network with a chain.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options in a network with a chain")]
pub(crate) struct PayingArgs {
    /// Send what waits as soon as it comes to this, in USDC
    #[arg(long, default_value = "10", value_name = "USDC")]
    pub(crate) redeem_amount: String,
    /// Send what waits when something waits for so many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) redeem_age: u64,
    /// Send what waits when gas is at most this share of it, in percent; needs --coin-price; 0 to leave this out
    #[arg(long, default_value_t = 1, value_name = "PERCENT")]
    pub(crate) gas_percent: u8,
    /// What a whole coin of the chain costs, in USDC; 1 on Arc
    #[arg(long, value_name = "USDC")]
    pub(crate) coin_price: Option<String>,
    /// Leave claims below this to their payees, in USDC
    #[arg(long, default_value = "0", value_name = "USDC")]
    pub(crate) dust: String,
    /// Never pay more than this to one payee in one transaction, in USDC [default: no cap]
    #[arg(long, value_name = "USDC")]
    pub(crate) payout_cap: Option<String>,
    /// Never redeem more than this in a day (UTC), in USDC [default: no cap]
    #[arg(long, value_name = "USDC")]
    pub(crate) day_cap: Option<String>,
    /// Never offer more than this per gas, in gwei
    #[arg(long, default_value_t = 500, value_name = "GWEI")]
    pub(crate) fee_cap: u64,
}

/// A chain that a development network brings with it.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainName {
    /// A chain on this machine, made by anvil
    Anvil,
}

#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// Have money on a chain: token, escrow and a funding wallet, all of them made here [default: credit of the ledger rail]
    #[arg(long, value_enum)]
    pub(crate) chain: Option<ChainName>,
    /// Keep everything here [default: a temporary directory, removed at the end]
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The tools on offer [default: the example tools]
    #[arg(long)]
    pub(crate) tools: Option<PathBuf>,
    /// The gateway's HTTP door
    #[arg(long, default_value = "127.0.0.1:8402")]
    pub(crate) http: SocketAddr,
    /// Credit of the gateway's account at the first start, in USDC: granted, or deposited in the escrow
    #[arg(long, default_value = "100")]
    pub(crate) credit: String,
    /// Let MCP hosts ask their user before more than this is committed at once, in USDC [default: never]
    #[arg(long, value_name = "USDC")]
    pub(crate) approve_above: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Have money on a chain, and end in a payout that is final on it [default: credit of the ledger rail]
    #[arg(long, value_enum)]
    pub(crate) chain: Option<ChainName>,
    /// Print a summary as JSON on standard output, progress on standard error
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleName {
    Node,
    Gateway,
    Settlement,
    Bootstrap,
}

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// Which role
    #[arg(value_enum)]
    pub(crate) role: RoleName,
    /// Where [default as for the role]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// For settlement: the name of the new network
    #[arg(long, default_value = "private")]
    pub(crate) name: String,
    /// For settlement: around an escrow that stands on this chain already (a new one: `orien settlement deploy`) [default: the ledger rail]
    #[arg(long, value_name = "PRESET", requires = "escrow")]
    pub(crate) chain: Option<String>,
    /// With --chain: the escrow contract, whose signer is this settlement's money key
    #[arg(long, value_name = "ADDRESS", requires_all = ["chain", "escrow_block"])]
    pub(crate) escrow: Option<String>,
    /// With --chain: the block that it was deployed in
    #[arg(long, value_name = "NUMBER", requires = "escrow")]
    pub(crate) escrow_block: Option<u64>,
    /// With --chain: the time between asking for an exit and getting it, as the escrow has it
    #[arg(long, value_name = "TIME", value_parser = super::agent::seconds, default_value = "1d")]
    pub(crate) exit_delay: u64,
    #[command(flatten)]
    pub(crate) rpc: super::RpcArgs,
    /// For the other roles: the network file that the settlement operator gave out
    #[arg(long, env = "ORIEN_NETWORK")]
    pub(crate) network: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
