//! The arguments of the tools: what a model may say, and how each is described to it.
//!
//! Always true: an argument that no tool knows is refused, not ignored; amounts are read exactly.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use orien_protocol::money::Usdc;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// An amount of USDC: a JSON number or the same as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount(pub(super) Usdc);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decimal;
        impl Visitor<'_> for Decimal {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of USDC, such as 0.5")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map(Amount).map_err(|error| E::custom(format_args!("an amount of USDC: {error}")))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Amount, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Amount, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Amount, E> {
                // The shortest digits that mean this number, which are those that were written.
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Decimal)
    }
}

/// Longest wait, as the schemas say.
const WAIT_SECONDS: u32 = 300;

fn wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let asked = Option::<u32>::deserialize(deserializer)?;
    if asked.is_some_and(|seconds| seconds > WAIT_SECONDS) {
        return Err(D::Error::custom(format_args!("wait_s is at most {WAIT_SECONDS}")));
    }
    Ok(asked)
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0 })
    }
}

/// Arguments of `find_providers`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FindProviders {
    /// What a tool has to be able to do, such as "build" or "render"
    pub(super) capability: Option<String>,
    /// Id of a tool that has to be offered
    pub(super) tool: Option<String>,
    /// Highest price in USDC per minute
    pub(super) max_price_per_minute_usdc: Option<Amount>,
    /// Lowest uptime in percent
    #[schemars(range(min = 0, max = 100))]
    pub(super) min_uptime_percent: Option<f64>,
    /// Region that the provider names
    pub(super) region: Option<String>,
    /// Weakest confinement of tools that will do, such as "S2"
    pub(super) confinement: Option<String>,
    /// Order: price (default), start, uptime or reputation
    pub(super) sort: Option<String>,
    /// Most providers to list; 10 unless said
    #[schemars(range(min = 1, max = 50))]
    pub(super) limit: Option<u32>,
    /// next_cursor of an earlier answer, for the providers after it
    pub(super) cursor: Option<String>,
}

/// Arguments of `get_provider`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetProvider {
    /// Id or label of the provider
    pub(super) provider_id: String,
}

/// Arguments of `open_session`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenSession {
    /// Most that the session may cost in USDC, all runs together; never exceeded
    pub(super) budget_usdc: Amount,
    /// Id or label of the provider; left out, the cheapest that fits is chosen
    pub(super) provider_id: Option<String>,
    /// Tools that the provider has to offer
    pub(super) tools: Option<Vec<String>>,
    /// What the provider's tools have to be able to do
    pub(super) capability: Option<String>,
    /// Highest price in USDC per minute
    pub(super) max_price_per_minute_usdc: Option<Amount>,
    /// Lowest uptime of the provider in percent
    #[schemars(range(min = 0, max = 100))]
    pub(super) min_uptime_percent: Option<f64>,
    /// Region that the provider has to name
    pub(super) region: Option<String>,
    /// Weakest confinement of tools that will do, such as "S2"
    pub(super) confinement: Option<String>,
    /// What the session is for, in a sentence; kept with it
    pub(super) mission: Option<String>,
    /// Names and values of your own, kept with it
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// Seconds until the session ends by itself; 3600 unless said
    #[schemars(range(min = 10, max = 28800))]
    pub(super) expiry_seconds: Option<u64>,
    /// Repeat the call with the same id and it opens one session, not two
    pub(super) request_id: Option<String>,
}

/// Arguments of `quote_session`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuoteSession {
    /// Budget in USDC that the session would have
    pub(super) budget_usdc: Amount,
    /// Id or label of the provider; left out, the cheapest that fits is chosen
    pub(super) provider_id: Option<String>,
    /// Tools that the provider has to offer
    pub(super) tools: Option<Vec<String>>,
    /// What the provider's tools have to be able to do
    pub(super) capability: Option<String>,
    /// Highest price in USDC per minute
    pub(super) max_price_per_minute_usdc: Option<Amount>,
    /// Lowest uptime of the provider in percent
    #[schemars(range(min = 0, max = 100))]
    pub(super) min_uptime_percent: Option<f64>,
    /// Region that the provider has to name
    pub(super) region: Option<String>,
    /// Weakest confinement of tools that will do, such as "S2"
    pub(super) confinement: Option<String>,
}

/// Arguments that name a session.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSession {
    /// Id of the session
    pub(super) session_id: String,
}

/// Arguments of `top_up_session`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopUp {
    /// Id of the session
    pub(super) session_id: String,
    /// The new total budget in USDC, not what is added to it
    pub(super) budget_usdc: Amount,
    /// Repeat the call with the same id and it counts once
    pub(super) request_id: Option<String>,
}

/// Arguments of `extend_session`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Extend {
    /// Id of the session
    pub(super) session_id: String,
    /// Seconds from now that it shall last at least
    #[schemars(range(min = 10, max = 28800))]
    pub(super) expiry_seconds: u64,
    /// Repeat the call with the same id and it counts once
    pub(super) request_id: Option<String>,
}

/// Arguments of `run_tool`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunTool {
    /// Id of the session
    pub(super) session_id: String,
    /// Id of the tool, as list_tools_in_session gives it
    pub(super) tool_id: String,
    /// Arguments of the tool, as list_tools_in_session describes them
    #[serde(default)]
    pub(super) args: Map<String, Value>,
    /// Text for the tool's standard input, if it reads that
    pub(super) stdin: Option<String>,
    /// Most that this run may cost in USDC
    pub(super) max_cost_usdc: Option<Amount>,
    /// Seconds after which the run is stopped
    #[schemars(range(min = 1))]
    pub(super) timeout_seconds: Option<u64>,
    /// Seconds to wait for the end before a handle is returned; 45 unless said
    #[schemars(range(min = 0, max = 300))]
    #[serde(default, deserialize_with = "wait")]
    pub(super) wait_s: Option<u32>,
    /// Return a handle at once and let the run go on whatever happens to this call
    #[serde(default)]
    pub(super) detach: bool,
    /// Repeat the call with the same id and the tool runs once
    pub(super) request_id: Option<String>,
}

/// Arguments of `get_run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetRun {
    /// Id of the run
    pub(super) run_id: String,
    /// log_cursor of an earlier answer, for the lines after it; left out, the last lines
    pub(super) log_cursor: Option<u64>,
    /// Seconds to wait for the end; 0 unless said
    #[schemars(range(min = 0, max = 300))]
    #[serde(default, deserialize_with = "wait")]
    pub(super) wait_s: Option<u32>,
}

/// Arguments of `cancel_run`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelRun {
    /// Id of the run
    pub(super) run_id: String,
}

/// Arguments of `list_files`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListFiles {
    /// Id of the session
    pub(super) session_id: String,
    /// Folder to list; left out, the whole workspace
    pub(super) path: Option<String>,
    /// next_cursor of an earlier answer, for the files after it
    pub(super) cursor: Option<String>,
}

/// Arguments of `put_file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutFile {
    /// Id of the session
    pub(super) session_id: String,
    /// Path in the workspace, such as "src/main.c"
    pub(super) path: String,
    /// Content as text
    pub(super) text: Option<String>,
    /// Content as base64, instead of text
    pub(super) base64: Option<String>,
    /// Whether it may be run as a program
    #[serde(default)]
    pub(super) executable: bool,
}

/// Arguments of `get_file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetFile {
    /// Id of the session
    pub(super) session_id: String,
    /// Path in the workspace
    pub(super) path: String,
    /// Byte to begin with; 0 unless said
    pub(super) offset: Option<u64>,
    /// Most bytes to return; 8192 unless said
    #[schemars(range(min = 1, max = 16384))]
    pub(super) max_bytes: Option<u32>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_exact_however_they_are_written() {
        let read = |value: Value| serde_json::from_value::<Amount>(value).map(|amount| amount.0.micros());
        for (value, micros) in
            [(json!(0.5), 500_000), (json!("0.5"), 500_000), (json!(3), 3_000_000), (json!(0.000_001), 1), (json!(0.1), 100_000)]
        {
            assert_eq!(read(value.clone()).unwrap(), micros, "{value}");
        }
        for value in [json!(-1), json!(0.000_000_1), json!("x"), json!(true), json!(null), json!([1]), json!(1e300)] {
            assert!(read(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn a_wait_is_as_long_as_the_schema_says_and_no_longer() {
        let read = |seconds: u32| serde_json::from_value::<GetRun>(json!({ "run_id": "r", "wait_s": seconds }));
        assert!(read(300).is_ok_and(|input| input.wait_s == Some(300)));
        assert!(read(301).is_err_and(|error| error.to_string().contains("at most 300")));
        assert!(serde_json::from_value::<GetRun>(json!({ "run_id": "r" })).is_ok_and(|input| input.wait_s.is_none()));
    }

    #[test]
    fn an_unknown_argument_is_refused() {
        let error = serde_json::from_value::<CancelRun>(json!({ "run_id": "r", "force": true })).unwrap_err();
        assert!(error.to_string().contains("force"), "{error}");
    }
}
