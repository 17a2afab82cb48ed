//! The standard input of a tool, out of a file or this command's own.
//!
//! Always true: every block says where in the whole it belongs, so that one that is sent again is taken once.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::client::{Client, Problem};
use crate::failure::{Failure, Told};
use crate::output;
use crate::show::harmless;

/// Bytes sent at once. What a person types is sent as it comes.
const BLOCK_BYTES: usize = 256 * 1024;

/// Where the input comes from: a file, or `-` for standard input.
pub(super) fn open(word: &str) -> Result<Box<dyn Read + Send>> {
    match word {
        "-" => Ok(Box::new(std::io::stdin())),
        path => Ok(Box::new(local(path)?)),
    }
}

/// A file of this machine.
pub(super) fn local(path: &str) -> Result<File> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    // A folder can be opened, and then not be read.
    if file.metadata().is_ok_and(|facts| facts.is_dir()) { Err(unreadable(path, "it is a folder")) } else { Ok(file) }
}

/// A file of this machine that cannot be read.
pub(super) fn unreadable(path: &str, why: impl std::fmt::Display) -> anyhow::Error {
    Told::coded(Failure::Copying, "unreadable_file", format!("cannot read {}: {why}", harmless(path)))
}

/// Sends it beside whatever else is done, until it ends or the tool wants no more.
pub(super) fn feed(client: &Client, run: &str, from: Box<dyn Read + Send>) -> Result<()> {
    let (client, run) = (client.clone(), run.to_owned());
    let sending = move || {
        if let Err(error) = send(&client, &run, from) {
            output::error(&error.context("the tool's input broke off"));
        }
    };
    // It is not waited for: a read from a terminal ends when the process does.
    std::thread::Builder::new().name("input".to_owned()).spawn(sending).map(drop).context("cannot send the input")
}

fn send(client: &Client, run: &str, mut from: impl Read) -> Result<()> {
    let (mut block, mut offset) = (vec![0; BLOCK_BYTES], 0_u64);
    loop {
        let count = from.read(&mut block).context("cannot read it")?;
        let path = format!("/executions/{run}/stdin?offset={offset}&end={}", count == 0);
        match client.post_bytes(&path, block.get(..count).unwrap_or_default()) {
            Ok(_) if count == 0 => return Ok(()),
            Ok(state) => offset = received(&state).unwrap_or_else(|| offset.saturating_add(u64::try_from(count).unwrap_or(0))),
            // A tool need not read all that it is given.
            Err(error) if error.downcast_ref::<Problem>().is_some_and(|problem| problem.status == 410) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn received(state: &Value) -> Option<u64> {
    state["received"].as_u64()
}
