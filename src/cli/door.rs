//! Words of the commands for a door: tokens for agents, and a link for a browser.

use clap::{Args, Subcommand, ValueEnum};

use super::agent::{Ask, seconds};

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScopeName {
    /// Look at everything
    Read,
    /// Run tools and move files in every session
    Run,
    /// Open sessions up to a cap, and run in them
    Spend,
    /// Everything, tokens included
    Admin,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once
    Create {
        /// What it is for
        #[arg(long)]
        name: String,
        /// What it may do; may be repeated
        #[arg(long, value_enum, required = true, value_delimiter = ',')]
        scope: Vec<ScopeName>,
        /// For spend: most that it may commit in all, in USDC
        #[arg(long)]
        cap: Option<String>,
        /// How long it is good for, such as 30d, 12h or 15m [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires: Option<u64>,
        #[command(flatten)]
        ask: Ask,
    },
    /// List the tokens there are, without their secrets
    List {
        #[command(flatten)]
        ask: Ask,
    },
    /// Take a token back, at once
    Revoke {
        /// Its id, such as tok_0123456789abcdef
        id: String,
        #[command(flatten)]
        ask: Ask,
    },
}

impl TokenCommand {
    /// What every command can be told.
    pub(crate) const fn ask(&self) -> &Ask {
        match self {
            Self::Create { ask, .. } | Self::List { ask } | Self::Revoke { ask, .. } => ask,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// Only print the link
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) ask: Ask,
}
