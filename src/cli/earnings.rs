//! Words of what a provider asks about its earnings.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug, Clone)]
pub(crate) struct AtNode {
    /// The node's data directory, or the one given to `orien dev` [default as for `orien node`]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct EarningsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EarningsCommand>,
    /// How many sessions are listed, the newest first
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) at: AtNode,
}

impl EarningsArgs {
    /// Whether JSON was asked for.
    pub(crate) const fn json(&self) -> bool {
        match &self.command {
            Some(EarningsCommand::Collect { at, .. }) => at.json,
            None => self.at.json,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum EarningsCommand {
    /// Redeem on the chain, without settlement, what is promised and not redeemed; the node's own key pays the gas
    Collect {
        /// Do not wait until the transaction is final
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        at: AtNode,
    },
}
