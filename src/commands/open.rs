//! `orien open`: a link that lets a browser in once.

use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::json;

use crate::cli::OpenArgs;
use crate::client::Client;
use crate::output;

pub(crate) fn run(args: &OpenArgs) -> anyhow::Result<()> {
    let link = link(&Client::find(&args.ask)?)?;
    if args.ask.json {
        return output::json(&json!({ "url": link }));
    }
    output::line(&link);
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if args.print || !has_display {
        output::note("it works once, within two minutes");
        return Ok(());
    }
    // Whether a browser came up, nobody can tell; the link is on the terminal either way.
    let opened = Command::new("xdg-open").arg(&link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    if opened.is_err() {
        output::note("no browser could be started; open the link yourself: it works once, within two minutes");
    }
    Ok(())
}

/// A new login link of a door.
pub(crate) fn link(door: &Client) -> anyhow::Result<String> {
    let answer = door.post("/api/login-links", &json!({}), None)?;
    answer["url"].as_str().map(str::to_owned).context("the door answered without a link")
}
