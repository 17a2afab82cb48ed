//! A session's own endpoint: its rented tools as if they were the host's.
//!
//! Always true: a name is lower case, at most [`NAME_CHARS`] long, and means one tool; a schema says everything that the provider will check.

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};

use serde::Deserialize;

use super::catalogue::{self, BESIDE_RENTED};
use super::failure::Failure;
use super::inputs::Amount;
use super::schema;
use super::shapes::{ArgumentIn, Run, ToolIn};

/// Longest name of a tool: hosts put their own prefix before it and drop what is then too long.
const NAME_CHARS: usize = 40;
/// Longest description.
const DESCRIPTION_CHARS: usize = 1000;

/// The tools of a session's endpoint, by name: what it rents, and what goes with that.
pub(super) fn tools(rented: &[ToolIn]) -> Vec<Tool> {
    let mut tools: Vec<Tool> = names(rented).into_iter().map(|(name, tool)| native(name, tool)).collect();
    tools.extend(BESIDE_RENTED.iter().filter_map(|name| catalogue::named(name)).map(catalogue::without_session));
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools
}

/// The rented tool that a name means.
pub(super) fn meant<'a>(rented: &'a [ToolIn], name: &str) -> Option<&'a ToolIn> {
    names(rented).into_iter().find(|(own, _)| own == name).map(|(_, tool)| tool)
}

/// Each tool with a name of its own.
fn names(rented: &[ToolIn]) -> Vec<(String, &ToolIn)> {
    let mut named: Vec<(String, &ToolIn)> = Vec::with_capacity(rented.len());
    for tool in rented {
        let plain = plain(&tool.id);
        let taken = |name: &str| BESIDE_RENTED.contains(&name) || named.iter().any(|(other, _)| other == name);
        let mut name = plain.clone();
        let mut number = 2_usize;
        while taken(&name) {
            let suffix = format!("_{number}");
            let kept: String = plain.chars().take(NAME_CHARS.saturating_sub(suffix.len())).collect();
            name = format!("{kept}{suffix}");
            number = number.saturating_add(1);
        }
        named.push((name, tool));
    }
    named
}

fn plain(id: &str) -> String {
    let plain: String = id.chars().take(NAME_CHARS).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    if plain.is_empty() { "tool".to_owned() } else { plain }
}

fn native(name: String, tool: &ToolIn) -> Tool {
    let price = tool.price_per_minute.as_ref().map(|price| format!(" {} USDC per minute of running.", price.0)).unwrap_or_default();
    let fee = tool.call_fee.as_ref().filter(|fee| fee.0 != "0").map(|fee| format!(" {} USDC per run.", fee.0)).unwrap_or_default();
    let described: String = tool.description.chars().take(DESCRIPTION_CHARS).collect();
    let description = format!("{}.{price}{fee}", described.trim_end_matches('.'));
    let title = if tool.name.is_empty() { tool.id.clone() } else { tool.name.clone() };
    let annotations = ToolAnnotations::with_title(title.clone()).read_only(false).destructive(true).idempotent(false).open_world(true);
    Tool::new(name, description, arguments(&tool.args))
        .with_title(title)
        .with_raw_output_schema(schema::output::<Run>())
        .with_annotations(annotations)
}

/// What a run can be told beside the tool's own arguments.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Beside {
    pub(super) stdin: Option<String>,
    pub(super) max_cost_usdc: Option<Amount>,
    pub(super) timeout_seconds: Option<u64>,
}

/// The same with the schema of each. A tool's own argument of that name comes first, and then there is none of ours.
fn properties_beside() -> [(&'static str, Value); 3] {
    [
        ("stdin", json!({ "type": "string", "description": "Text that the tool finds on its standard input" })),
        ("max_cost_usdc", json!({ "type": "number", "minimum": 0, "description": "Most that this run may cost in USDC" })),
        ("timeout_seconds", json!({ "type": "integer", "minimum": 1, "description": "Seconds after which the run is stopped" })),
    ]
}

/// Takes what a run is told beside the tool's arguments out of these.
pub(super) fn beside(tool: &ToolIn, args: &mut Map<String, Value>) -> Result<Beside, Failure> {
    let mut ours = Map::new();
    for (name, _) in properties_beside() {
        let is_own = tool.args.iter().any(|argument| argument.name == name);
        if let Some(value) = (!is_own).then(|| args.remove(name)).flatten().filter(|value| !value.is_null()) {
            ours.insert(name.to_owned(), value);
        }
    }
    serde_json::from_value(Value::Object(ours)).map_err(|error| Failure::arguments(&error))
}

/// The schema of a tool's typed arguments, and of what a run is told beside them.
fn arguments(args: &[ArgumentIn]) -> JsonObject {
    let mut properties: Map<String, Value> = args.iter().map(|argument| (argument.name.clone(), property(argument))).collect();
    for (name, property) in properties_beside() {
        properties.entry(name).or_insert(property);
    }
    let required: Vec<&str> = args.iter().filter(|argument| argument.required).map(|argument| argument.name.as_str()).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("required".to_owned(), required.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    schema
}

fn property(argument: &ArgumentIn) -> Value {
    let mut property = match argument.r#type.as_str() {
        "integer" => json!({ "type": "integer" }),
        "number" => json!({ "type": "number" }),
        "boolean" => json!({ "type": "boolean" }),
        "choice" => json!({ "type": "string", "enum": argument.choices.as_deref().unwrap_or_default() }),
        "file" => json!({ "type": "string", "minLength": 1 }),
        // No longer in characters than in bytes; the provider counts bytes.
        _ => json!({ "type": "string", "maxLength": argument.max_bytes }),
    };
    let about_files = "Path of a file in the session's workspace, put there with put_file or made by a tool";
    let description = match (argument.r#type.as_str(), argument.description.as_str()) {
        ("file", "") => about_files.to_owned(),
        ("file", text) => format!("{text}. {about_files}"),
        (_, text) => text.to_owned(),
    };
    if let Some(members) = property.as_object_mut() {
        members.retain(|_, value| !value.is_null());
        if !description.is_empty() {
            members.insert("description".to_owned(), description.into());
        }
        for (name, bound) in [("minimum", argument.minimum), ("maximum", argument.maximum)] {
            if let Some(bound) = bound {
                members.insert(name.to_owned(), bound.into());
            }
        }
    }
    property
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(id: &str, args: Value) -> ToolIn {
        serde_json::from_value(
            json!({ "id": id, "name": "", "description": "Does it.", "args": args, "pricePerMinute": 0.06, "callFee": 0 }),
        )
        .unwrap()
    }

    #[test]
    fn names_fit_every_host_and_each_means_one_tool() {
        let ids = ["Render-Scene", "render.scene", "get_run", "", &"long".repeat(20), &"long".repeat(21)];
        let rented: Vec<ToolIn> = ids.iter().map(|id| tool(id, json!([]))).collect();
        let names: Vec<String> = names(&rented).into_iter().map(|(name, _)| name).collect();
        assert_eq!(&names[..4], ["render_scene", "render_scene_2", "get_run_2", "tool"]);
        assert!(names.iter().all(|name| name.len() <= NAME_CHARS), "{names:?}");
        let different: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), ids.len());
        for (name, id) in names.iter().zip(ids) {
            assert_eq!(meant(&rented, name).unwrap().id, id);
        }
        assert!(meant(&rented, "end_session").is_none());
    }

    #[test]
    fn schemas_say_what_the_provider_checks() {
        let args = json!([
            { "name": "n", "type": "integer", "required": true, "minimum": 0, "maximum": 300, "description": "How long" },
            { "name": "mode", "type": "choice", "choices": ["a", "b"], "required": false },
            { "name": "f", "type": "file", "required": true, "description": "The scene" },
            { "name": "t", "type": "text", "maxBytes": 9 },
            { "name": "b", "type": "boolean" },
        ]);
        let rented = [tool("x", args)];
        let listed = tools(&rented);
        assert!(listed.windows(2).all(|pair| pair[0].name < pair[1].name) && listed.len() == 1 + BESIDE_RENTED.len());
        let native = listed.iter().find(|tool| tool.name == "x").unwrap();
        assert_eq!(native.description.as_deref(), Some("Does it. 0.06 USDC per minute of running."));
        let schema = Value::Object(native.input_schema.as_ref().clone());
        assert_eq!(schema["required"], json!(["n", "f"]));
        assert_eq!(schema["properties"]["n"], json!({ "type": "integer", "minimum": 0, "maximum": 300, "description": "How long" }));
        assert_eq!(schema["properties"]["mode"], json!({ "type": "string", "enum": ["a", "b"] }));
        assert_eq!(schema["properties"]["t"], json!({ "type": "string", "maxLength": 9 }));
        assert_eq!(schema["properties"]["b"], json!({ "type": "boolean" }));
        assert!(schema["properties"]["f"]["description"].as_str().unwrap().starts_with("The scene. Path of a file"));
        assert_eq!(
            (&schema["properties"]["stdin"]["type"], &schema["properties"]["max_cost_usdc"]["type"]),
            (&json!("string"), &json!("number"))
        );
    }

    #[test]
    fn a_run_is_told_of_its_input_and_limits_unless_the_tool_has_arguments_of_these_names() {
        let mut args = json!({ "n": 1, "stdin": "abc", "max_cost_usdc": 0.1, "timeout_seconds": null }).as_object().unwrap().clone();
        let told = beside(&tool("x", json!([{ "name": "n", "type": "integer" }])), &mut args).unwrap();
        assert_eq!((told.stdin.as_deref(), told.max_cost_usdc.unwrap().0.micros(), told.timeout_seconds), (Some("abc"), 100_000, None));
        assert_eq!(Value::Object(args), json!({ "n": 1 }));
        let own = tool("x", json!([{ "name": "stdin", "type": "integer" }]));
        let mut args = json!({ "stdin": 7 }).as_object().unwrap().clone();
        assert!(beside(&own, &mut args).unwrap().stdin.is_none());
        assert_eq!(Value::Object(args), json!({ "stdin": 7 }));
        assert_eq!(Value::Object(arguments(&own.args))["properties"]["stdin"]["type"], "integer");
        let mut args = json!({ "stdin": 7 }).as_object().unwrap().clone();
        assert_eq!(beside(&tool("x", json!([])), &mut args).unwrap_err().code(), "invalid_arguments");
    }
}
