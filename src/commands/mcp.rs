//! `orien mcp`: the gateway's tools for a host that starts its MCP servers itself.
//!
//! Standard output belongs to the protocol; everything else goes to standard error.

use orien_gateway::McpSettings;
use tokio_util::sync::CancellationToken;

use crate::cli::{Ask, McpArgs};
use crate::client::Reach;
use crate::roles;

/// Serves until the host closes standard input, or a signal.
pub(crate) async fn run(args: McpArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let approve_above = args.approve_above.as_deref().map(|text| roles::amount("--approve-above", text)).transpose()?;
    // It finds its gateway as every other command does.
    let ask = Ask { gateway: args.gateway, ca_file: None, token_file: args.token_file, data_dir: args.data_dir, json: false, quiet: true };
    let Reach { base: gateway, token } = Reach::find(&ask)?;
    orien_gateway::serve_stdio(McpSettings { gateway, token, session: args.session, approve_above }, cancel).await?;
    Ok(())
}
