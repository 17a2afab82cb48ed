//! The JSON that callers see. The owner's field names and meaning come first in each; what follows them is ours.
//!
//! Always true: money is a JSON number with exact decimals, time is RFC 3339, a length of time is seconds.

mod provider;
mod run;
mod session;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

pub(crate) use provider::{ProviderJson, ToolJson};
pub(crate) use run::{ExecutionJson, LISTED_ARGS_BYTES, Shown, StartedJson, run_status};
pub(crate) use session::{SessionJson, status};

/// A list under a name, as callers expect one.
pub(crate) fn list(name: &str, items: &impl Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(format!("{{{}:{}}}", Value::from(name), serde_json::to_string(items)?))
}
