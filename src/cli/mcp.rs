//! Words of `orien mcp`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct McpArgs {
    /// The gateway's address [default: where the gateway of the data directory says that it is]
    #[arg(long, env = "ORIEN_GATEWAY")]
    pub(crate) gateway: Option<String>,
    /// The gateway's data directory [default: gateway below $ORIEN_HOME or ~/.local/share/orien]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A file with a token [default: $ORIEN_TOKEN, else the token file of the gateway's data directory]
    #[arg(long, env = "ORIEN_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Show the rented tools of this session as if they were the host's own
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Let the host ask its user before more than this is committed at once, in USDC [default: never]
    #[arg(long, value_name = "USDC", env = "ORIEN_APPROVE_ABOVE")]
    pub(crate) approve_above: Option<String>,
}
