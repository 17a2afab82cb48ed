//! Words of what an operator asks of a settlement.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug, Clone)]
pub(crate) struct AtSettlement {
    /// The settlement's data directory, or the one given to `orien dev` [default as for `orien settlement`]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum SettlementCommand {
    /// Deploy a new escrow on a chain, and make the network around it
    Deploy(Box<super::DeployArgs>),
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
    /// Show how settlement is: on a chain how far it is read, what waits, what is on its way, and what needs a look
    Status {
        #[command(flatten)]
        at: AtSettlement,
    },
    /// Compare the books with the chain, now
    Reconcile {
        /// Go on after a halt if both say the same; only when you know what it came from
        #[arg(long)]
        clear: bool,
        #[command(flatten)]
        at: AtSettlement,
    },
    /// List transactions of settlement's own, newest first
    Transactions {
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

impl SettlementCommand {
    /// Whether JSON was asked for.
    pub(crate) const fn json(&self) -> bool {
        match self {
            Self::Deploy(args) => args.json,
            Self::Grant { at, .. }
            | Self::Account { at, .. }
            | Self::Ledger { at }
            | Self::Batch { at }
            | Self::Status { at }
            | Self::Reconcile { at, .. }
            | Self::Transactions { at }
            | Self::Batches { at, .. }
            | Self::Payouts { at, .. } => at.json,
        }
    }
}
