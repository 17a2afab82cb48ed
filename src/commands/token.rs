//! `orien token`: makes, lists and takes back tokens, through the door of the running role.

use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::TokenCommand;
use crate::client::Client;
use crate::output;

pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, scope, cap, expires, ask } => {
            let scopes: Vec<String> = scope.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
            let mut body = json!({ "name": name, "scopes": scopes });
            if let Some(cap) = cap {
                body["cap"] = Value::from(cap);
            }
            if let Some(seconds) = expires {
                body["expiresInSeconds"] = Value::from(seconds);
            }
            let made = Client::find(&ask)?.post("/api/tokens", &body, None)?;
            if ask.json {
                return output::json(&made);
            }
            output::line(text(&made["token"]));
            output::note(format!("{} made; this is the only time that it is shown", text(&made["id"])));
            Ok(())
        }
        TokenCommand::List { ask } => {
            let list = Client::find(&ask)?.get("/api/tokens")?;
            if ask.json {
                return output::json(&list);
            }
            let tokens = list["tokens"].as_array().map_or(&[][..], Vec::as_slice);
            if tokens.is_empty() {
                output::note("there are no tokens but the owner's");
            }
            tokens.iter().for_each(show);
            Ok(())
        }
        TokenCommand::Revoke { id, ask } => {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                bail!("`{id}` is no token's id; `orien token list` shows them");
            }
            Client::find(&ask)?.delete(&format!("/api/tokens/{id}"))?;
            output::note(format!("{id} opens nothing any more"));
            Ok(())
        }
    }
}

fn show(token: &Value) {
    let scopes: Vec<String> = token["scopes"].as_array().map_or(&[][..], Vec::as_slice).iter().map(text).collect();
    let cap = token.get("cap").map(|cap| format!(" (cap {cap} USDC)")).unwrap_or_default();
    let ends = match (&token["expiresAt"], token["isExpired"] == true) {
        (Value::Null, _) => "no end".to_owned(),
        (at, true) => format!("ended {}", text(at)),
        (at, false) => format!("ends {}", text(at)),
    };
    let used = if token["lastUsedAt"].is_null() { "never used".to_owned() } else { format!("used {}", text(&token["lastUsedAt"])) };
    output::line(format!("{}  {:<24} {}{cap}  {ends}, {used}", text(&token["id"]), text(&token["name"]), scopes.join(",")));
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
