//! What can be said on the command line. Every flag of a role can also be given as an environment variable; secrets never are flags.

mod agent;
mod door;
mod earnings;
mod host;
mod mcp;
mod roles;
mod settlement;
mod wallet;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use agent::{Ask, Call, CompletionsArgs, ManArgs, OneSession, Opening, ProvidersArgs, RunArgs, SessionCommand, SortName, Wish};
pub(crate) use door::{OpenArgs, TokenCommand};
pub(crate) use earnings::{AtNode, EarningsArgs, EarningsCommand};
pub(crate) use host::{AuditArgs, BenchCommand, DoctorArgs, KeysArgs, LevelName, StatusArgs, ToolsCommand};
pub(crate) use mcp::McpArgs;
pub(crate) use roles::{ChainName, DemoArgs, DevArgs, GatewayArgs, InitArgs, NodeArgs, PayingArgs, PeerArgs, RoleName, SettlementArgs};
pub(crate) use settlement::{AtSettlement, SettlementCommand};
pub(crate) use wallet::{Acting, AtEscrow, DeployArgs, RpcArgs, Sending, WalletAt, WalletCommand};

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
    Settlement(Box<SettlementArgs>),
    /// Introduce peers to each other and keep the offer catalogue
    Bootstrap(PeerArgs),
    /// Show what a provider earned, and collect it on the chain without settlement
    Earnings(EarningsArgs),
    /// Show who offers which tools at what price, the best first
    Providers(ProvidersArgs),
    /// Do a whole job: open a session, upload, run a tool, stream its output, download, end; the exit code is the tool's
    Run(Box<RunArgs>),
    /// Work in sessions: open, run, copy files, look at logs and receipts, end
    Session {
        #[command(subcommand)]
        command: Box<SessionCommand>,
    },
    /// Run all four roles on loopback with example tools, and stay
    Dev(DevArgs),
    /// Do the whole main job once on real input, show receipts and split, and exit
    Demo(DemoArgs),
    /// Serve a gateway's tools to an MCP host on standard input and output
    Mcp(McpArgs),
    /// Make a data directory for a role: keys, network file, example configuration
    Init(InitArgs),
    /// Keep a funding wallet: put USDC into the escrow, name spending keys, take USDC back
    Wallet {
        #[command(subcommand)]
        command: Box<WalletCommand>,
    },
    /// Make, list and take back tokens for agents
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Print a link that lets a browser in once, and open it if there is a display
    Open(OpenArgs),
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
    /// Print the completions of a shell, such as: orien completions bash > ~/.local/share/bash-completion/completions/orien
    Completions(CompletionsArgs),
    /// Write the manual pages into a folder
    Man(ManArgs),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
