//! The arguments of a run, from the words of a command to a JSON object with the types that the tool declares.
//!
//! Always true: what is wrong with the words themselves, or with a file that they name, is found before any gateway is asked to do anything.

use std::io::Read;

use anyhow::Result;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::input;
use crate::cli::Call;
use crate::client::Client;
use crate::failure::{Failure, Told};
use crate::show::{each, harmless};

/// Longest text of arguments.
const ARGS_BYTES: u64 = 4 * 1024 * 1024;

/// What a call says, read and looked at as far as that goes without knowing the tool.
pub(crate) struct Words<'a> {
    /// All arguments, if they were given as JSON.
    json: Option<Box<RawValue>>,
    words: &'a [String],
    /// What the tool finds on its standard input.
    pub(super) input: Option<Box<dyn Read + Send>>,
}

/// What a tool is given.
pub(crate) struct Given {
    pub(crate) args: Box<RawValue>,
    pub(super) input: Option<Box<dyn Read + Send>>,
}

impl<'a> Words<'a> {
    /// Reads what is to be read and refuses what no tool could take.
    pub(crate) fn read(call: &'a Call) -> Result<Self> {
        let input = call.stdin.as_deref().map(input::open).transpose()?;
        let json = call.args_json.as_deref().map(whole).transpose()?;
        typed(&call.args, None)?;
        Ok(Self { json, words: &call.args, input })
    }

    /// Whether the tool's declaration decides how a word is sent.
    pub(crate) fn needs_tool(&self) -> bool {
        self.json.is_none() && self.words.iter().any(|word| word.split_once('=').is_some_and(|(name, _)| !name.ends_with(':')))
    }

    /// The arguments for a tool as an offer declares it.
    pub(crate) fn for_tool(self, tool: Option<&Value>) -> Result<Given> {
        Ok(Given { args: self.args(tool)?, input: self.input })
    }

    /// The arguments for the tool of a session.
    pub(super) fn for_session(&self, client: &Client, session: &str, call: &Call) -> Result<Box<RawValue>> {
        if !self.needs_tool() {
            return self.args(None);
        }
        let tools = client.get(&format!("/tools?sessionId={session}"))?;
        self.args(each(&tools["tools"]).find(|tool| tool["id"] == call.tool.as_str()))
    }

    fn args(&self, tool: Option<&Value>) -> Result<Box<RawValue>> {
        match &self.json {
            Some(json) => Ok(json.clone()),
            None => object(&typed(self.words, tool)?),
        }
    }
}

fn bad(text: impl std::fmt::Display) -> anyhow::Error {
    Told::coded(Failure::Other, "bad_arguments", text)
}

/// The object of `--args-json`.
fn whole(text: &str) -> Result<Box<RawValue>> {
    let text = match text.strip_prefix('@') {
        Some("-") => read("standard input", std::io::stdin())?,
        Some(path) => read(path, input::local(path)?)?,
        None => text.to_owned(),
    };
    let value: Box<RawValue> = serde_json::from_str(text.trim()).map_err(|error| bad(format!("--args-json is not JSON: {error}")))?;
    if value.get().starts_with('{') { Ok(value) } else { Err(bad("--args-json is not a JSON object")) }
}

/// Members as the text of a JSON object.
fn object(members: &[(&str, Box<RawValue>)]) -> Result<Box<RawValue>> {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{}:{}", json!(name), value.get())).collect();
    Ok(RawValue::from_string(format!("{{{}}}", members.join(",")))?)
}

/// All of a text; more than any tool takes is refused, not cut.
fn read(name: &str, from: impl Read) -> Result<String> {
    let mut text = String::new();
    let count = from.take(ARGS_BYTES.saturating_add(1)).read_to_string(&mut text).map_err(|error| input::unreadable(name, error))?;
    if u64::try_from(count).unwrap_or(u64::MAX) > ARGS_BYTES {
        Err(input::unreadable(name, "it is too long for arguments"))
    } else {
        Ok(text)
    }
}

/// Words such as `seconds=5` as members: what a tool takes as a number or a truth value is sent as one, everything else as text. What cannot be one is sent as text too, and the gateway says
/// what it wants instead.
fn typed<'a>(words: &'a [String], tool: Option<&Value>) -> Result<Vec<(&'a str, Box<RawValue>)>> {
    let mut members: Vec<(&str, Box<RawValue>)> = Vec::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(bad(format!("the argument `{}` is not NAME=VALUE", harmless(word))));
        };
        let (name, value) = match name.strip_suffix(':') {
            Some(name) => {
                (name, serde_json::from_str(value).map_err(|error| bad(format!("the value of `{}` is not JSON: {error}", harmless(name))))?)
            }
            None => {
                let kind = tool.and_then(|tool| each(&tool["args"]).find(|argument| argument["name"] == name)?["type"].as_str());
                (name, of_kind(kind, value)?)
            }
        };
        if members.iter().any(|(other, _)| *other == name) {
            return Err(bad(format!("the argument `{}` is given twice", harmless(name))));
        }
        members.push((name, value));
    }
    Ok(members)
}

fn of_kind(kind: Option<&str>, value: &str) -> Result<Box<RawValue>> {
    let fits: fn(&Value) -> bool = match kind {
        Some("integer" | "number") => Value::is_number,
        Some("boolean") => Value::is_boolean,
        _ => |_| false,
    };
    let is_exact = serde_json::from_str(value).is_ok_and(|value| fits(&value));
    Ok(RawValue::from_string(if is_exact { value.trim().to_owned() } else { json!(value).to_string() })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_what_the_tool_declares() {
        let tool = json!({ "args": [
            { "name": "n", "type": "integer" }, { "name": "x", "type": "number" }, { "name": "b", "type": "boolean" },
            { "name": "t", "type": "text" }, { "name": "f", "type": "file" },
        ] });
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let sent = |list: &[&str]| object(&typed(&words(list), Some(&tool)).unwrap()).unwrap().get().to_owned();
        // With the digits that were typed: neither rounded to a float nor cut.
        assert_eq!(sent(&["n=5", "x=1.50"]), r#"{"n":5,"x":1.50}"#);
        assert_eq!(sent(&["x=0.1234567890123456789012345", "y:=1.10"]), r#"{"x":0.1234567890123456789012345,"y":1.10}"#);
        assert_eq!(sent(&["b=true", "t=5", "f=a=b.txt"]), r#"{"b":true,"t":"5","f":"a=b.txt"}"#);
        assert_eq!(sent(&["raw:={\"a\":1}", "other=1", "a\"b=x"]), r#"{"raw":{"a":1},"other":"1","a\"b":"x"}"#);
        assert_eq!(sent(&[]), "{}");
        // What does not fit is for the gateway to refuse, with its own words.
        assert_eq!(sent(&["n=five", "b=1"]), r#"{"n":"five","b":"1"}"#);
        for bad in [&["n"][..], &["n=1", "n=2"], &["raw:=nonsense"]] {
            assert!(typed(&words(bad), Some(&tool)).is_err(), "{bad:?}");
        }
    }
}
