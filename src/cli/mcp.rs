//! Words of `orien mcp`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct McpArgs {
    /// The gateway's address, such as http://127.0.0.1:8402 [default: the one that runs here]
    #[arg(long, env = "ORIEN_GATEWAY")]
    pub(crate) gateway: Option<String>,
    /// The data directory of the gateway, or the one given to `orien dev` [default: $ORIEN_HOME or ~/.local/share/orien, and every `orien dev` that runs]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A file with a token of the gateway [default: the token in ORIEN_TOKEN, else that of the gateway that runs here]
    #[arg(long, env = "ORIEN_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Show the rented tools of this session as if they were the host's own
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Let the host ask its user before more than this is committed at once, in USDC [default: never]
    #[arg(long, value_name = "USDC", env = "ORIEN_APPROVE_ABOVE")]
    pub(crate) approve_above: Option<String>,
}
