//! Words of the commands for a funding wallet, and for whoever deploys an escrow.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::agent::seconds;

/// Which chain is asked.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct RpcArgs {
    /// A node of the chain (its JSON-RPC); may be repeated, and two are compared with each other [default: those in the network file]
    #[arg(long, env = "ORIEN_RPC", value_name = "URL", value_delimiter = ',', hide_env_values = true)]
    pub(crate) rpc: Vec<String>,
}

/// The network whose escrow a wallet deals with.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct AtEscrow {
    /// The network file [default: network.toml in the gateway's data directory]
    #[arg(long, env = "ORIEN_NETWORK")]
    pub(crate) network: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) rpc: RpcArgs,
    /// The gateway that spends for this wallet: its data directory [default as for `orien gateway`]
    #[arg(long, value_name = "DIR", env = "ORIEN_GATEWAY_DIR")]
    pub(crate) gateway: Option<PathBuf>,
}

/// Which wallet, and how its key is opened.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct WalletAt {
    /// The wallet's folder [default: `wallet` below $ORIEN_HOME or ~/.local/share/orien]
    #[arg(long, env = "ORIEN_WALLET", value_name = "DIR")]
    pub(crate) wallet: Option<PathBuf>,
    /// Another key file than the folder's: a keystore (version 3), or 64 hexadecimal digits; $ORIEN_WALLET_KEY may hold such digits too
    #[arg(long, env = "ORIEN_WALLET_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// A file with the keystore's password [default: $ORIEN_WALLET_PASSWORD, else it is asked for on a terminal]
    #[arg(long, env = "ORIEN_WALLET_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

/// How a transaction is sent and how far it is followed.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Sending {
    /// Repeat a command with the same key and it is carried out once; an interrupted one goes on [default: a new key, printed]
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Say what would be done and what it costs, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return when the transaction is in a block, without waiting until it is final
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Most that a unit of gas may cost, in gwei; at first twice what it costs now is offered [default: 500]
    #[arg(long, value_name = "GWEI")]
    pub(crate) max_fee: Option<u64>,
    /// Most gas that the transaction may use [default: enough for what it does on every chain that is known]
    #[arg(long, value_name = "UNITS")]
    pub(crate) gas_limit: Option<u64>,
}

/// What every command that sends something takes.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Acting {
    #[command(flatten)]
    pub(crate) escrow: AtEscrow,
    #[command(flatten)]
    pub(crate) wallet: WalletAt,
    #[command(flatten)]
    pub(crate) sending: Sending,
    /// Print JSON on standard output, progress on standard error
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum WalletCommand {
    /// Make a wallet: a key of its own, in an encrypted keystore
    New {
        #[command(flatten)]
        wallet: WalletAt,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a key from elsewhere into the wallet's encrypted keystore
    Import {
        /// A keystore (version 3), or a file with 64 hexadecimal digits that nobody else can open
        from: PathBuf,
        /// A file with the password of the keystore that is imported [default: as for the wallet's own]
        #[arg(long, value_name = "FILE")]
        from_password_file: Option<PathBuf>,
        #[command(flatten)]
        wallet: WalletAt,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the wallet's address
    Address {
        #[command(flatten)]
        wallet: WalletAt,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the wallet has, on its own and in the escrow
    Balance {
        /// Another account than the wallet's
        #[arg(long, value_name = "ADDRESS")]
        account: Option<String>,
        /// Also show whether this key may spend; may be repeated [default: the gateway's]
        #[arg(long, value_name = "ADDRESS")]
        spending_key: Vec<String>,
        #[command(flatten)]
        escrow: AtEscrow,
        #[command(flatten)]
        wallet: WalletAt,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put USDC into the escrow, for a gateway's spending key to promise to providers
    Deposit {
        /// USDC, such as 25 or 0.5
        amount: String,
        /// The key that may spend it [default: the gateway's]
        #[arg(long, value_name = "ADDRESS")]
        spending_key: Option<String>,
        /// Send nothing: print a signed document that anybody can carry out with `orien wallet relay`
        #[arg(long, conflicts_with_all = ["dry_run", "no_wait", "max_fee"])]
        offline: bool,
        /// How long the signed deposit is good for, such as 1h or 7d
        #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "1d")]
        valid_for: u64,
        #[command(flatten)]
        acting: Acting,
    },
    /// Carry out a deposit that somebody signed with `deposit --offline`, and pay its gas
    Relay {
        /// The document; `-` for standard input
        document: PathBuf,
        #[command(flatten)]
        acting: Acting,
    },
    /// Ask for USDC back; it can be withdrawn after the exit delay
    RequestExit {
        /// USDC, or `all`
        amount: String,
        #[command(flatten)]
        acting: Acting,
    },
    /// Take the request for an exit back
    CancelExit {
        #[command(flatten)]
        acting: Acting,
    },
    /// Take what was asked for, once the exit delay is over; with an amount, ask for it first if nothing was asked for yet
    Withdraw {
        /// USDC, or `all`: what is asked for by the first call, and taken by a later one [default: what was asked for]
        amount: Option<String>,
        #[command(flatten)]
        acting: Acting,
    },
    /// Let a key promise this wallet's USDC in the escrow
    Authorize {
        /// The key's address [default: the gateway's]
        spending_key: Option<String>,
        #[command(flatten)]
        acting: Acting,
    },
    /// End a key for good: it can promise nothing new
    Revoke {
        /// The key's address
        spending_key: String,
        #[command(flatten)]
        acting: Acting,
    },
    /// Cap what may be reserved of this wallet's USDC in a day
    Cap {
        /// USDC, or `none`
        amount: String,
        #[command(flatten)]
        acting: Acting,
    },
}

impl WalletCommand {
    /// Whether JSON is printed.
    pub(crate) const fn json(&self) -> bool {
        match self {
            Self::New { json, .. } | Self::Import { json, .. } | Self::Address { json, .. } | Self::Balance { json, .. } => *json,
            Self::Deposit { acting, .. }
            | Self::Relay { acting, .. }
            | Self::RequestExit { acting, .. }
            | Self::CancelExit { acting }
            | Self::Withdraw { acting, .. }
            | Self::Authorize { acting, .. }
            | Self::Revoke { acting, .. }
            | Self::Cap { acting, .. } => acting.json,
        }
    }
}

/// A new escrow and the network around it.
#[derive(Args, Debug)]
pub(crate) struct DeployArgs {
    /// The name of the new network
    #[arg(long, default_value = "private")]
    pub(crate) name: String,
    /// The chain: arc, arc-testnet, base, base-sepolia, ethereum, sepolia or arbitrum [default: what --chain-id and --token say]
    #[arg(long, value_name = "PRESET")]
    pub(crate) chain: Option<String>,
    /// Without --chain: the chain's id
    #[arg(long, value_name = "ID", required_unless_present = "chain", conflicts_with = "chain")]
    pub(crate) chain_id: Option<u64>,
    /// The USDC contract [default: the preset's]
    #[arg(long, value_name = "ADDRESS", required_unless_present = "chain")]
    pub(crate) token: Option<String>,
    /// What counts as final: finalized, safe or latest [default: the preset's, else finalized]
    #[arg(long)]
    pub(crate) finality: Option<String>,
    /// How far the final block lags behind the newest, at most, such as 30m [default: the preset's]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) finality_lag: Option<u64>,
    /// May change the settlement's signer and, after the exit delay, who receives fees [default: the deploying wallet]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) operator: Option<String>,
    /// Receives seven tenths of the fees [default: the operator]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) platform: Option<String>,
    /// Receives three tenths of the fees [default: the operator]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) reserve: Option<String>,
    /// Time between asking for an exit and getting it, from 1h to 30d
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "1d")]
    pub(crate) exit_delay: u64,
    /// The settlement's data directory, whose money key becomes the signer [default as for `orien settlement`]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A node that every peer may use, written into the network file; may be repeated [default: none, each names its own]
    #[arg(long, value_name = "URL")]
    pub(crate) public_rpc: Vec<String>,
    #[command(flatten)]
    pub(crate) rpc: RpcArgs,
    #[command(flatten)]
    pub(crate) wallet: WalletAt,
    #[command(flatten)]
    pub(crate) sending: Sending,
    /// Print JSON on standard output, progress on standard error
    #[arg(long)]
    pub(crate) json: bool,
}
