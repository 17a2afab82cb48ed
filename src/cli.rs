//! What can be said on the command line. Every flag of a role can also be given as an environment variable; secrets never are flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Rent named tools on machines you do not own, by the second, with a hard USDC budget.
#[derive(Parser, Debug)]
#[command(
    name = "orien",
    version,
    about,
    max_term_width = 110,
    after_help = "Try it: `orien demo` does the whole main job and exits; `orien dev` starts everything on loopback and stays."
)]
pub(crate) struct Cli {
    /// Log what happens, not only what is wrong (finer: set ORIEN_LOG, e.g. ORIEN_LOG=debug)
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value = "text", env = "ORIEN_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Provide tools: announce them, run them confined, meter, earn
    Node(NodeArgs),
    /// Rent tools: a local HTTP door for an agent
    Gateway(GatewayArgs),
    /// Operate a network's money: reserve budgets, check receipts, split, pay out
    Settlement(SettlementArgs),
    /// Introduce peers to each other and keep the offer catalogue
    Bootstrap(PeerArgs),
    /// Run all four roles on loopback with example tools, and stay
    Dev(DevArgs),
    /// Do the whole main job once on real input, show receipts and split, and exit
    Demo(DemoArgs),
    /// Make a data directory for a role: keys, network file, example configuration
    Init(InitArgs),
    /// Show what runs in a data directory, from its local doors
    Status(StatusArgs),
    /// Recompute a settlement batch from its published evidence alone
    Audit(AuditArgs),
    /// Show the public side of a data directory's keys
    Keys(KeysArgs),
    /// Work with a provider's tool configuration
    Tools {
        #[command(subcommand)]
        command: ToolsCommand,
    },
    /// Show how strongly this host can confine tools, by trying it, and what stands in the way
    Doctor(DoctorArgs),
    /// Measure this host
    Bench {
        #[command(subcommand)]
        command: BenchCommand,
    },
}

impl Command {
    /// Roles tell what they do; one-shot commands only what is wrong.
    pub(crate) const fn usual_log_level(&self) -> &'static str {
        match self {
            Self::Node(_) | Self::Gateway(_) | Self::Bootstrap(_) => "info",
            Self::Settlement(args) if args.command.is_none() => "info",
            Self::Demo(_) => "error",
            _ => "warn",
        }
    }
}

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
    /// The local HTTP door [default: 127.0.0.1 with 8401 bootstrap, 8402 gateway, 8403 node, 8404 settlement]
    #[arg(long, env = "ORIEN_HTTP")]
    pub(crate) http: Option<SocketAddr>,
    /// Let the HTTP door be bound to something other than loopback; put TLS in front of it
    #[arg(long)]
    pub(crate) allow_remote_http: bool,
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
}

#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    /// The account that pays [default: the address of this gateway's own money key]
    #[arg(long, env = "ORIEN_ACCOUNT")]
    pub(crate) account: Option<String>,
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
}

#[derive(Args, Debug, Clone)]
pub(crate) struct AtSettlement {
    /// The settlement's data directory [default as for `orien settlement`]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum SettlementCommand {
    /// Grant credit to an account (ledger rail)
    Grant {
        /// The account's address
        account: String,
        /// USDC, such as 25 or 0.5
        amount: String,
        /// The key that may spend it [default: the account itself]
        #[arg(long)]
        spending_key: Option<String>,
        /// Most that the account may reserve in a day, in USDC [default: as before]
        #[arg(long)]
        daily_cap: Option<String>,
        /// Repeat a grant with the same key and it counts once [default: a new one]
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        at: AtSettlement,
    },
    /// Show what an account has
    Account {
        /// The account's address
        account: String,
        #[command(flatten)]
        at: AtSettlement,
    },
    /// Show the sums of the ledger
    Ledger {
        #[command(flatten)]
        at: AtSettlement,
    },
    /// Make a batch of what was redeemed since the last one
    Batch {
        #[command(flatten)]
        at: AtSettlement,
    },
    /// List batches, or print one with all its evidence (what `orien audit` reads)
    Batches {
        /// One batch
        id: Option<String>,
        #[command(flatten)]
        at: AtSettlement,
    },
    /// List payouts
    Payouts {
        /// Print CSV instead of a table
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        /// Mark what is payable as exported, and print just that
        #[arg(long)]
        export: bool,
        /// Repeat an export with the same key and it prints the same payouts again [default: a new one]
        #[arg(long, requires = "export")]
        key: Option<String>,
        #[command(flatten)]
        at: AtSettlement,
    },
}

#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// Keep everything here [default: a temporary directory, removed at the end]
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The tools on offer [default: the example tools]
    #[arg(long)]
    pub(crate) tools: Option<PathBuf>,
    /// The gateway's HTTP door
    #[arg(long, default_value = "127.0.0.1:8402")]
    pub(crate) http: SocketAddr,
    /// Credit granted to the gateway's account at the first start
    #[arg(long, default_value = "100")]
    pub(crate) credit: String,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
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
    /// For the other roles: the network file that the settlement operator gave out
    #[arg(long, env = "ORIEN_NETWORK")]
    pub(crate) network: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// A role's data directory, or a folder with several [default: $ORIEN_HOME or ~/.local/share/orien]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// A batch with its evidence, as `orien settlement batches ID --json` prints it; `-` for standard input
    pub(crate) file: PathBuf,
    /// Also demand that it belongs to the network of this file
    #[arg(long)]
    pub(crate) network: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysArgs {
    /// A role's data directory
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Fail when the host confines less than this
    #[arg(long, value_enum, default_value = "s2")]
    pub(crate) min_level: LevelName,
    /// First of the users that tools run as when this is started as root [default: as the node's]
    #[arg(long)]
    pub(crate) first_user: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LevelName {
    S0,
    S1,
    S2,
    S3,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// What confinement costs: starting a program plainly, confined, and with bubblewrap if it is installed
    Sandbox {
        /// Runs of each kind
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
        runs: u32,
        /// The program to start
        #[arg(long, default_value = "/bin/true")]
        program: PathBuf,
        /// Memory that the starting process holds in the second half, in MiB; 0 leaves that half out
        #[arg(long, default_value_t = 1024)]
        parent_mib: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What an agent waits for: opening sessions and running a tool that does nothing, through a gateway's HTTP, beside the floors
    Runs {
        /// Runs at each number of callers
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        runs: u32,
        /// Callers at once; several numbers are measured one after the other
        #[arg(long, value_delimiter = ',', default_value = "1,10,50", value_parser = clap::value_parser!(u16).range(1..=1024))]
        concurrency: Vec<u16>,
        /// Sessions to open and end
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        openings: u32,
        /// Samples of each floor
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..=100_000))]
        floor_runs: u32,
        /// The program that the tool starts
        #[arg(long, default_value = "/bin/true")]
        program: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum ToolsCommand {
    /// Show what a provider configuration would offer, or every fault in it with line and fix
    Check {
        /// The configuration, such as provider-config.json
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
