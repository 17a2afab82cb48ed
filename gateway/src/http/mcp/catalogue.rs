//! The tools that a host sees: names, descriptions, schemas and hints.
//!
//! Always true: the list is the same for everybody and always in the same order, so that hosts and models may cache it; each description can be read on its own.

use std::sync::LazyLock;

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;

use super::{inputs, quotes, schema, shapes};

/// Every tool of the gateway, by name.
static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let mut tools = vec![
        tool::<inputs::CancelRun, shapes::Run>(
            "cancel_run",
            "Cancel a run",
            "Stop a running tool of an ORIEN session; only the time until now is charged.",
            Hints { destructive: true, idempotent: true, ..CHANGES },
        ),
        tool::<inputs::OfSession, shapes::Session>(
            "end_session",
            "End a session",
            "End an ORIEN session: stops its runs, removes its workspace, and returns the final cost. Fetch results first.",
            Hints { destructive: true, idempotent: true, ..CHANGES },
        ),
        tool::<inputs::Extend, shapes::Session>(
            "extend_session",
            "Give a session more time",
            "Let an ORIEN session last longer than it would. Time alone costs nothing; the budget stays as it is.",
            Hints { idempotent: true, ..CHANGES },
        ),
        tool::<inputs::FindProviders, shapes::Providers>(
            "find_providers",
            "Find providers",
            "List machines on the ORIEN network that rent out tools, with prices per minute; filter by capability, tool, price or region.",
            LOOKS,
        ),
        tool::<inputs::GetFile, shapes::Piece>(
            "get_file",
            "Get a file",
            "Read a file, or a piece of it, from the workspace of an ORIEN session.",
            LOOKS,
        ),
        tool::<inputs::GetProvider, shapes::Provider>(
            "get_provider",
            "Look at a provider",
            "Show one ORIEN provider with all its tools, their arguments and prices, before a session is opened.",
            LOOKS,
        ),
        tool::<inputs::GetRun, shapes::Run>(
            "get_run",
            "Look at a run",
            "Status, exit code, cost and new output of a run; works after a reconnect and for detached runs.",
            LOOKS,
        ),
        tool::<inputs::ListFiles, shapes::Files>("list_files", "List files", "List the files in the workspace of an ORIEN session.", LOOKS),
        tool::<inputs::OfSession, shapes::Tools>(
            "list_tools_in_session",
            "List rented tools",
            "List the tools that an ORIEN session rents, with the arguments that run_tool takes for each.",
            LOOKS,
        ),
        tool::<inputs::OpenSession, shapes::Session>(
            "open_session",
            "Open a session",
            "Rent the tools of an ORIEN provider within a hard USDC budget. Returns a session_id that is good until the session is ended or expires \
             (an hour unless said otherwise); unused budget comes back.",
            Hints { open_world: true, ..CHANGES },
        ),
        tool::<inputs::PutFile, shapes::Stored>(
            "put_file",
            "Put a file",
            "Write a file into the workspace of an ORIEN session, for its tools to read.",
            Hints { destructive: true, idempotent: true, ..CHANGES },
        ),
        tool::<inputs::QuoteSession, quotes::Quote>(
            "quote_session",
            "Quote a session",
            "Say with which ORIEN provider a session would be, what its tools cost, and whether the money is there; nothing is opened or spent.",
            LOOKS,
        ),
        tool::<inputs::RunTool, shapes::Run>(
            "run_tool",
            "Run a tool",
            "Run a rented tool in an ORIEN session, charged by the second. Waits up to wait_s for the end, else returns a run_id for get_run. \
             Cancelling this call, or dropping its connection, stops the tool; with detach true it goes on.",
            Hints { open_world: true, destructive: true, ..CHANGES },
        ),
        tool::<inputs::OfSession, shapes::Session>(
            "session_status",
            "Look at a session",
            "Budget, cost so far, what remains, and the newest runs of an ORIEN session.",
            LOOKS,
        ),
        tool::<inputs::TopUp, shapes::Session>(
            "top_up_session",
            "Raise a budget",
            "Set a higher total budget for an ORIEN session that runs out of money.",
            Hints { idempotent: true, ..CHANGES },
        ),
    ];
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools
});

/// Tools that a session's own endpoint has beside the rented ones.
pub(super) const BESIDE_RENTED: [&str; 8] =
    ["cancel_run", "end_session", "extend_session", "get_file", "get_run", "list_files", "put_file", "session_status"];

/// What a host may assume about a tool.
struct Hints {
    read_only: bool,
    destructive: bool,
    idempotent: bool,
    open_world: bool,
}

const LOOKS: Hints = Hints { read_only: true, destructive: false, idempotent: true, open_world: false };
const CHANGES: Hints = Hints { read_only: false, destructive: false, idempotent: false, open_world: false };

fn tool<I: JsonSchema, O: JsonSchema>(name: &'static str, title: &str, description: &'static str, hints: Hints) -> Tool {
    let Hints { read_only, destructive, idempotent, open_world } = hints;
    let annotations =
        ToolAnnotations::with_title(title).read_only(read_only).destructive(destructive).idempotent(idempotent).open_world(open_world);
    Tool::new(name, description, schema::input::<I>())
        .with_title(title)
        .with_raw_output_schema(schema::output::<O>())
        .with_annotations(annotations)
}

/// Every tool of the gateway.
pub(super) fn all() -> &'static [Tool] {
    &TOOLS
}

/// One of them.
pub(super) fn named(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// A tool whose session is known: its schema without `session_id`.
pub(super) fn without_session(tool: &Tool) -> Tool {
    let mut schema: JsonObject = tool.input_schema.as_ref().clone();
    if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        properties.remove("session_id");
    }
    if let Some(required) = schema.get_mut("required").and_then(serde_json::Value::as_array_mut) {
        required.retain(|name| name != "session_id");
    }
    let mut tool = tool.clone();
    tool.input_schema = schema.into();
    tool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_are_few_sorted_and_say_everything_about_themselves() {
        let tools = all();
        assert!((10..=15).contains(&tools.len()), "{}", tools.len());
        assert!(tools.windows(2).all(|pair| pair[0].name < pair[1].name));
        for tool in tools {
            let name = &tool.name;
            assert!(name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(
                tool.title.is_some() && tool.description.as_ref().is_some_and(|text| text.contains("ORIEN") || text.contains("run")),
                "{name}"
            );
            assert_eq!(tool.input_schema["type"], "object", "{name}");
            assert!(tool.input_schema["properties"].is_object(), "{name}");
            let output = tool.output_schema.as_ref().unwrap();
            assert!(output["type"] == "object" && output["properties"]["code"].is_object(), "{name}");
            let text = serde_json::to_string(tool).unwrap();
            assert!(!text.contains("$ref") && !text.contains("null"), "{text}");
            let hints = tool.annotations.as_ref().unwrap();
            assert!(hints.read_only_hint.is_some() && hints.destructive_hint.is_some() && hints.idempotent_hint.is_some(), "{name}");
        }
    }

    #[test]
    fn every_argument_is_described() {
        for tool in all() {
            for (name, property) in tool.input_schema["properties"].as_object().unwrap() {
                assert!(property["description"].as_str().is_some_and(|text| text.len() > 5), "{}.{name}: {property}", tool.name);
            }
        }
    }

    #[test]
    fn a_tool_of_a_known_session_does_not_ask_for_it() {
        for name in BESIDE_RENTED {
            let tool = without_session(named(name).unwrap());
            assert!(!serde_json::to_string(&tool.input_schema).unwrap().contains("session_id"), "{name}");
        }
    }
}
