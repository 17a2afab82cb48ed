//! `orien mcp`: the gateway's tools for a host that starts its MCP servers itself.
//!
//! Standard output belongs to the protocol; everything else goes to standard error.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use orien_bootstrap::{DoorFile, RoleName};
use orien_gateway::McpSettings;
use tokio_util::sync::CancellationToken;

use crate::cli::McpArgs;
use crate::roles;

/// The variable that a token may stand in; never a flag, for those are seen by every process.
const TOKEN: &str = "ORIEN_TOKEN";
/// Largest token file: a token and a line end, with room for longer ones.
const TOKEN_FILE_LIMIT: u64 = 4096;

/// Serves until the host closes standard input, or a signal.
pub(crate) async fn run(args: McpArgs, cancel: CancellationToken) -> anyhow::Result<()> {
    let approve_above = args.approve_above.as_deref().map(|text| roles::amount("--approve-above", text)).transpose()?;
    let data_dir = roles::data_dir(RoleName::Gateway, args.data_dir.as_deref())?;
    let door = DoorFile::read(&data_dir);
    let gateway = match (args.gateway, &door) {
        (Some(gateway), _) => gateway,
        (None, Ok(door)) => format!("http://{}", door.address),
        (None, Err(_)) => bail!("no gateway runs in {}; start one, or say where it is with --gateway or --data-dir", data_dir.display()),
    };
    let given = std::env::var(TOKEN).ok().filter(|token| !token.trim().is_empty());
    let token = match (&args.token_file, given, &door) {
        (Some(file), _, _) => read_token(file)?,
        (None, Some(token), _) => token.trim().to_owned(),
        (None, None, Ok(door)) => orien_door::Token::read(&door.token_file)?.expose().to_owned(),
        (None, None, Err(_)) => bail!("no token for {gateway}: set {TOKEN}, or name a file with --token-file"),
    };
    orien_gateway::serve_stdio(McpSettings { gateway, token, session: args.session, approve_above }, cancel).await?;
    Ok(())
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let opened = std::fs::File::open(file).with_context(|| format!("cannot read the token in {}", file.display()))?;
    opened.take(TOKEN_FILE_LIMIT).read_to_string(&mut text).with_context(|| format!("there is no token in {}", file.display()))?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        bail!("there is no token in {}", file.display());
    }
    Ok(token.to_owned())
}
