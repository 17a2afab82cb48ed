//! Words of the commands for a door: tokens for agents, and a link for a browser.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Which running role's door.
#[derive(Args, Debug)]
pub(crate) struct AtDoor {
    /// The data directory of the role, or a folder with one named gateway [default: $ORIEN_HOME or ~/.local/share/orien]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

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
        #[arg(long)]
        expires: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: AtDoor,
    },
    /// List the tokens there are, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: AtDoor,
    },
    /// Take a token back, at once
    Revoke {
        /// Its id, such as tok_0123456789abcdef
        id: String,
        #[command(flatten)]
        at: AtDoor,
    },
}

#[derive(Args, Debug)]
pub(crate) struct OpenArgs {
    /// Only print the link
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) at: AtDoor,
}
