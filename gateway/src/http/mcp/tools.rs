//! From the name of a tool to what it does.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::call::Call;
use super::failure::Failure;
use super::reply::Reply;
use super::{files, providers, quotes, runs, sessions};

/// Calls a tool of the catalogue.
pub(super) async fn call(call: &Call, name: &str, arguments: Map<String, Value>) -> Result<Reply, Failure> {
    match name {
        "cancel_run" => runs::cancel(call, read(arguments)?).await,
        "end_session" => sessions::end(call, read(arguments)?).await,
        "extend_session" => sessions::extend(call, read(arguments)?).await,
        "find_providers" => providers::find(call, read(arguments)?).await,
        "get_file" => files::get(call, read(arguments)?).await,
        "get_provider" => providers::get(call, read(arguments)?).await,
        "get_run" => runs::get(call, read(arguments)?).await,
        "list_files" => files::list(call, read(arguments)?).await,
        "list_tools_in_session" => sessions::tools(call, read(arguments)?).await,
        "open_session" => sessions::open(call, read(arguments)?).await,
        "put_file" => files::put(call, read(arguments)?).await,
        "quote_session" => quotes::quote(call, read(arguments)?).await,
        "run_tool" => runs::run(call, read(arguments)?).await,
        "session_status" => sessions::status(call, read(arguments)?).await,
        "top_up_session" => sessions::top_up(call, read(arguments)?).await,
        _ => Err(Failure::new("unknown_tool", "there is no such tool")),
    }
}

fn read<T: DeserializeOwned>(mut arguments: Map<String, Value>) -> Result<T, Failure> {
    // Models send null for what they leave out.
    arguments.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(arguments)).map_err(|error| Failure::arguments(&error))
}
