//! What `orien run` looks at before a session is opened, and costs something.
//!
//! Always true: every local file and folder, every path and every word that the command has to use later was looked at once; what only the provider can know is checked by the gateway against
//! the offer, in the request that opens the session (`firstRun`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rustix::fs::{Access, access};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{input, output};
use crate::cli::RunArgs;
use crate::client::{Client, escaped};
use crate::commands::providers::wishes;
use crate::commands::session::arguments::{Given, Words};
use crate::commands::session::copy::{check_remote, foresee};
use crate::commands::session::open;
use crate::failure::{Failure, Told};
use crate::show::each;

/// How long a session of a command that is gone stays open.
const IDLE_SECONDS: u64 = 600;

/// The request for the session, and the run that it is for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    #[serde(flatten)]
    session: Value,
    first_run: FirstRun,
}

/// What the provider's offer has to take.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FirstRun {
    tool_id: String,
    /// As text: a number is sent with the digits that were typed.
    args: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost: Option<String>,
}

/// What a job needs, all of it there.
pub(super) struct Prepared {
    /// The request for the session.
    pub(super) order: Order,
    /// What the tool is given.
    pub(super) given: Given,
    /// The longest that the tool may run, seconds, if that is less than what was asked for.
    pub(super) cut_to: Option<f64>,
}

/// Looks at everything.
pub(super) fn prepare(client: &Client, args: &RunArgs) -> Result<Prepared> {
    for word in &args.inputs {
        let (local, path) = input(word);
        foresee(local, path)?;
    }
    for word in &args.outputs {
        let (path, local) = output(word);
        check_remote(path.trim_end_matches('/'))?;
        check_writable(local)?;
    }
    let words = Words::read(&args.call)?;
    let tool = if words.needs_tool() || args.call.timeout.is_some() { tool(client, args)? } else { None };
    let given = words.for_tool(tool.as_ref())?;
    // One job has one provider; and if this command is killed, the session ends by itself soon.
    let failover = args.failover.or(Some(false));
    let idle = args.idle_timeout.or((!args.keep).then_some(IDLE_SECONDS));
    let provider = args.provider.as_deref().unwrap_or("auto");
    let session = open::order(provider, &args.opening, (idle, failover), std::slice::from_ref(&args.call.tool));
    let first_run = FirstRun { tool_id: args.call.tool.clone(), args: given.args.clone(), max_cost: args.call.max_cost.clone() };
    let longest = tool.as_ref().and_then(|tool| tool["maxDurationSeconds"].as_f64());
    let is_cut = |longest: &f64| args.call.timeout.is_some_and(|asked| Duration::from_secs(asked).as_secs_f64() > *longest);
    Ok(Prepared { order: Order { session, first_run }, given, cut_to: longest.filter(is_cut) })
}

/// The tool as the provider that will probably be chosen offers it; the gateway holds the arguments against the one that is.
fn tool(client: &Client, args: &RunArgs) -> Result<Option<Value>> {
    let provider = match &args.provider {
        Some(id) => client.get(&format!("/api/providers/{}", escaped(id)))?,
        None => {
            let listed = client.get(&format!("/api/providers?limit=1{}", wishes(Some(&args.call.tool), &args.opening.wish)))?;
            listed["providers"][0].clone()
        }
    };
    Ok(each(&provider["tools"]).find(|tool| tool["id"] == args.call.tool.as_str()).cloned())
}

/// Whether something can be written to a place that need not be there yet.
fn check_writable(target: &str) -> Result<()> {
    let refused = |place: &Path, why: &str| {
        Err(Told::coded(Failure::Copying, "unwritable_file", format!("nothing can be written to {target}: {} {why}", place.display())))
    };
    let target = PathBuf::from(target);
    let mut place = target.as_path();
    // A file that is there is replaced, in its folder.
    if !place.is_dir() {
        place = parent(place);
    }
    while std::fs::symlink_metadata(place).is_err() && place != Path::new(".") && place != Path::new("/") {
        place = parent(place);
    }
    if !place.is_dir() {
        return refused(place, "is no folder");
    }
    if access(place, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return refused(place, "is not yours to write in");
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
