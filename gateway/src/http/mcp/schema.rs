//! JSON Schemas of arguments and results, made from the types and kept plain enough for every host.
//!
//! Always true: a schema is one self-contained object without references, and no type in it is a union with null.

use std::sync::Arc;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::failure::FailureJson;

/// The schema of a tool's arguments.
pub(super) fn input<T: JsonSchema>() -> Arc<JsonObject> {
    let mut schema = plain_schema::<T>(false);
    schema.remove("description");
    schema.entry("properties").or_insert_with(|| json!({}));
    Arc::new(schema)
}

/// The schema of a tool's structured result, which may also be a failure: clients check that too.
pub(super) fn output<T: JsonSchema>() -> Arc<JsonObject> {
    let mut schema = plain_schema::<T>(true);
    let failure = plain_schema::<FailureJson>(true);
    let required = |schema: &JsonObject| schema.get("required").cloned().unwrap_or_else(|| json!([]));
    let either = json!([{ "required": required(&schema) }, { "required": required(&failure) }]);
    if let (Some(own), Some(failures)) =
        (schema.get_mut("properties").and_then(Value::as_object_mut), failure.get("properties").and_then(Value::as_object))
    {
        for (name, property) in failures {
            own.entry(name).or_insert_with(|| property.clone());
        }
    }
    schema.remove("required");
    schema.remove("description");
    schema.insert("anyOf".to_owned(), either);
    Arc::new(schema)
}

fn plain_schema<T: JsonSchema>(serialized: bool) -> JsonObject {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        if serialized {
            settings.contract = schemars::generate::Contract::Serialize;
        }
    });
    let mut value = settings.into_generator().into_root_schema_for::<T>().to_value();
    plain(&mut value);
    match value {
        Value::Object(mut object) => {
            object.remove("title");
            object
        }
        _ => JsonObject::new(),
    }
}

/// Takes away what says "or null", formats that only Rust knows, and titles that repeat a type's name.
fn plain(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get("type")
                && let [first, _] = types.as_slice()
                && types.iter().any(|kind| kind == "null")
            {
                let kind = if first == "null" { types.get(1) } else { Some(first) };
                if let Some(kind) = kind.cloned() {
                    object.insert("type".to_owned(), kind);
                }
            }
            if let Some(Value::Array(options)) = object.get("anyOf")
                && let [a, b] = options.as_slice()
                && let Some(Value::Object(only)) = if b["type"] == "null" { Some(a.clone()) } else { None }
            {
                object.remove("anyOf");
                for (name, part) in only {
                    object.entry(name).or_insert(part);
                }
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            if object.get("format").is_some_and(|format| format.as_str().is_some_and(|format| format.starts_with(['u', 'i', 'd']))) {
                object.remove("format");
            }
            object.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Sample {
        /// A name
        name: String,
        #[schemars(skip_serializing_if = "Option::is_none")]
        count: Option<u32>,
        #[schemars(skip_serializing_if = "Option::is_none")]
        inner: Option<Inner>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Inner {
        flag: bool,
    }

    #[test]
    fn schemas_have_no_null_no_reference_and_name_what_is_required() {
        let schema = Value::Object(input::<Sample>().as_ref().clone());
        let text = schema.to_string();
        assert!(!text.contains("null") && !text.contains("$ref") && !text.contains("uint32"), "{text}");
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["required"], json!(["name"]));
        assert_eq!(schema["properties"]["count"]["type"], "integer");
        assert_eq!(schema["properties"]["inner"]["properties"]["flag"]["type"], "boolean");
        assert_eq!(schema["properties"]["name"]["description"], "A name");
    }

    #[test]
    fn a_result_is_what_was_asked_for_or_a_failure() {
        let schema = Value::Object(output::<Sample>().as_ref().clone());
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["anyOf"], json!([{ "required": ["name"] }, { "required": ["code", "detail", "next"] }]));
        assert!(schema["properties"]["code"].is_object() && schema["properties"]["name"].is_object(), "{schema}");
    }
}
