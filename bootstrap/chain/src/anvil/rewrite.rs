//! Lies about a chain, told by changing questions and answers on their way.

use serde_json::{Value, json};

/// What is not told as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lies {
    /// The newest block that is said to exist.
    pub(super) head: Option<u64>,
    /// The block that is said to be final.
    pub(super) finalized: Option<u64>,
    /// A block whose hash is said to be another.
    pub(super) other_hash: Option<u64>,
    /// Whether the last log is left out.
    pub(super) hide_logs: bool,
}

impl Lies {
    /// The question that is asked instead.
    pub(super) fn question(&self, mut request: Value) -> Value {
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        let place = match method.as_str() {
            "eth_getBlockByNumber" => 0,
            "eth_call" | "eth_getTransactionCount" | "eth_getBalance" | "eth_getCode" => 1,
            _ => return request,
        };
        let Some(block) = request.pointer_mut(&format!("/params/{place}")) else { return request };
        let tag = block.as_str().unwrap_or_default().to_owned();
        match (tag.as_str(), self.head, self.finalized) {
            ("finalized" | "safe", _, Some(number))
            | ("latest" | "pending" | "finalized" | "safe", Some(number), None)
            | ("latest" | "pending", Some(number), _) => {
                *block = json!(format!("{number:#x}"));
            }
            _ => {}
        }
        request
    }

    /// The answer that is given instead.
    pub(super) fn answer(&self, asked: &Value, mut answer: Value) -> Value {
        let method = asked["method"].as_str().unwrap_or_default();
        let Some(result) = answer.get_mut("result") else { return answer };
        let beyond = |number: &Value| self.head.is_some_and(|head| number_of(number).is_some_and(|number| number > head));
        match method {
            "eth_getBlockByNumber" => {
                let number = number_of(&result["number"]);
                if beyond(&result["number"]) {
                    *result = Value::Null;
                } else if number.is_some() && number == self.other_hash {
                    result["hash"] = json!(format!("0x{}", "ab".repeat(32)));
                }
            }
            "eth_getTransactionReceipt" if beyond(&result["blockNumber"]) => *result = Value::Null,
            "eth_getLogs" => {
                if let Some(logs) = result.as_array_mut() {
                    logs.retain(|log| !beyond(&log["blockNumber"]));
                    if self.hide_logs {
                        logs.pop();
                    }
                }
            }
            "eth_blockNumber" => {
                if let (true, Some(head)) = (beyond(result), self.head) {
                    *result = json!(format!("{head:#x}"));
                }
            }
            _ => {}
        }
        answer
    }
}

fn number_of(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}
