//! `orien token`: makes, lists and takes back tokens, through the door of the running role.

use anyhow::{Context, bail};
use orien_bootstrap::DoorFile;
use serde_json::{Value, json};

use crate::cli::{AtDoor, TokenCommand};
use crate::client::Client;
use crate::{output, roles};

pub(crate) fn run(command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { name, scope, cap, expires, json, at } => {
            let scopes: Vec<String> = scope.iter().map(|scope| format!("{scope:?}").to_lowercase()).collect();
            let mut body = json!({ "name": name, "scopes": scopes });
            if let Some(cap) = cap {
                body["cap"] = Value::from(cap);
            }
            if let Some(expires) = expires {
                body["expiresInSeconds"] = Value::from(seconds(&expires)?);
            }
            let made = door(&at)?.post("/api/tokens", &body, None)?;
            if json {
                return output::json(&made);
            }
            output::line(text(&made["token"]));
            output::note(format!("{} made; this is the only time that it is shown", text(&made["id"])));
            Ok(())
        }
        TokenCommand::List { json, at } => {
            let list = door(&at)?.get("/api/tokens")?;
            if json {
                return output::json(&list);
            }
            let tokens = list["tokens"].as_array().map_or(&[][..], Vec::as_slice);
            if tokens.is_empty() {
                output::note("there are no tokens but the owner's");
            }
            tokens.iter().for_each(show);
            Ok(())
        }
        TokenCommand::Revoke { id, at } => {
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                bail!("`{id}` is no token's id; `orien token list` shows them");
            }
            door(&at)?.delete(&format!("/api/tokens/{id}"))?;
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

/// The door of the role that runs in a data directory.
pub(crate) fn door(at: &AtDoor) -> anyhow::Result<Client> {
    let given = match &at.data_dir {
        Some(path) => path.clone(),
        None => roles::home()?,
    };
    let below = given.join("gateway");
    let file = DoorFile::read(&given).or_else(|_| DoorFile::read(&below));
    let file = file.with_context(|| format!("nothing runs in {} or {}", given.display(), below.display()))?;
    Client::open(file.address, &file.token_file)
}

/// A length of time such as 30d, 12h, 15m or 90s.
fn seconds(text: &str) -> anyhow::Result<u64> {
    let advice = || format!("`{text}` is no length of time; write 30d, 12h, 15m or 90s");
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).with_context(advice)?;
    let unit: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => bail!(advice()),
    };
    let count: u64 = digits.parse().ok().with_context(advice)?;
    count.checked_mul(unit).with_context(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, length) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(seconds(text).unwrap(), length);
        }
        for text in ["", "d", "30", "-1d", "1.5h", "3w", "99999999999999999999d", "18446744073709551615d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
