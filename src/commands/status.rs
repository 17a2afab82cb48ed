//! `orien status`: what the local doors of a data directory say. Exit code 1 when a role that left a door file does not answer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use orien_bootstrap::DoorFile;
use serde_json::{Value, json};

use crate::cli::StatusArgs;
use crate::client::Client;
use crate::{output, roles};

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let root = match &args.data_dir {
        Some(path) => path.clone(),
        None => roles::home()?,
    };
    let found: Vec<Value> = candidates(&root).iter().filter_map(|folder| look(folder)).collect();
    if found.is_empty() {
        bail!("nothing runs in {}: no role has opened a door there", root.display());
    }
    let all_answer = found.iter().all(|role| role["health"]["status"] == "ok");
    if args.json {
        output::json(&json!({ "roles": found }))?;
    } else {
        for role in &found {
            show(role);
        }
    }
    Ok(if all_answer { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The directory itself, or the roles below it.
fn candidates(root: &Path) -> Vec<PathBuf> {
    ["bootstrap", "settlement", "node", "gateway"].iter().map(|role| root.join(role)).chain([root.to_owned()]).collect()
}

fn look(folder: &Path) -> Option<Value> {
    let door = DoorFile::read(folder).ok()?;
    let health = Client::open(door.address, &door.token_file).and_then(|client| client.get("/health"));
    let health = health.unwrap_or_else(|error| json!({ "status": "no answer", "reason": format!("{error:#}") }));
    Some(
        json!({ "role": door.role, "peerId": door.peer_id, "address": door.address, "pid": door.pid, "dataDir": folder, "health": health }),
    )
}

fn show(role: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    output::line(format!(
        "{:<11} {:<10} http://{}  pid {}",
        text(&role["role"]),
        text(&role["health"]["status"]),
        text(&role["address"]),
        role["pid"]
    ));
    let Some(facts) = role["health"].as_object() else { return };
    for (name, value) in facts.iter().filter(|(name, _)| name.as_str() != "status") {
        output::line(format!("            {name}: {}", text(value)));
    }
}
