//! Lies about a chain, told by changing questions and answers on their way.

use alloy_primitives::Bytes;
use alloy_sol_types::SolCall;
use serde_json::{Value, json};

use crate::abi::{ChannelState, Escrow};
use crate::types::{EscrowAccount, EscrowChannel};

/// The hash of no block.
const OTHER_HASH: &str = "0xabababababababababababababababababababababababababababababababab";

/// What is not told as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lies {
    /// The newest block that is said to exist.
    pub(super) head: Option<u64>,
    /// The block that is said to be final.
    pub(super) finalized: Option<u64>,
    /// A block whose hash is said to be another.
    pub(super) other_hash: Option<u64>,
    /// Whether the last log is left out, and of all receipts of a block the last.
    pub(super) hide_logs: bool,
    /// Most logs that are answered at once; more is an error, as public nodes have it.
    pub(super) log_limit: Option<usize>,
    /// A block of which receipts are said to be of another.
    pub(super) moved: Option<u64>,
    /// What others are said to tip per gas.
    pub(super) tip: Option<u64>,
    /// What the escrow is said to hold of every account.
    pub(super) account: Option<EscrowAccount>,
    /// What the escrow is said to know of every channel.
    pub(super) channel: Option<EscrowChannel>,
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
        if let Some(limit) = self.log_limit.filter(|limit| method == "eth_getLogs" && logs_in(&answer) > *limit) {
            let message = format!("query returned more than {limit} results");
            return json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32005, "message": message } });
        }
        let Some(result) = answer.get_mut("result") else { return answer };
        let beyond = |number: &Value| self.head.is_some_and(|head| number_of(number).is_some_and(|number| number > head));
        match method {
            "eth_feeHistory" => {
                if let (Some(tip), Some(blocks)) = (self.tip, result["reward"].as_array_mut()) {
                    blocks.fill(json!([format!("{tip:#x}")]));
                }
            }
            "eth_getBlockByNumber" => {
                let number = number_of(&result["number"]);
                if beyond(&result["number"]) {
                    *result = Value::Null;
                } else if number.is_some() && number == self.other_hash {
                    result["hash"] = json!(OTHER_HASH);
                }
            }
            "eth_getBlockReceipts" => {
                if let (true, Some(receipts)) = (self.hide_logs, result.as_array_mut()) {
                    receipts.pop();
                }
                let receipts = result.as_array_mut().into_iter().flatten();
                receipts.filter(|receipt| self.has_moved(receipt)).for_each(|receipt| receipt["blockHash"] = json!(OTHER_HASH));
            }
            "eth_getTransactionReceipt" if self.has_moved(result) => result["blockHash"] = json!(OTHER_HASH),
            "eth_getTransactionReceipt" if beyond(&result["blockNumber"]) => *result = Value::Null,
            "eth_call" => {
                if let Some(told) = self.told(asked) {
                    *result = json!(Bytes::from(told));
                }
            }
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

impl Lies {
    /// Whether a receipt is of the block that is said to be another.
    fn has_moved(&self, receipt: &Value) -> bool {
        self.moved.is_some() && number_of(&receipt["blockNumber"]) == self.moved
    }

    /// What a call of the escrow is answered instead of the truth, if it is one that is lied about.
    fn told(&self, asked: &Value) -> Option<Vec<u8>> {
        let data = hex::decode(asked.pointer("/params/0/data")?.as_str()?.strip_prefix("0x")?).ok()?;
        if let (Some(held), Ok(_)) = (self.account, Escrow::accountsCall::abi_decode(&data)) {
            return Some(Escrow::accountsCall::abi_encode_returns(&Escrow::accountsReturn {
                balance: held.balance.micros(),
                locked: held.locked.micros(),
                exiting: held.exiting.micros(),
                exitAt: held.exit_at.0,
                dailyCap: held.daily_cap.micros(),
            }));
        }
        let channel = self.channel?;
        let ids = Escrow::channelsOfCall::abi_decode(&data).ok()?.ids;
        let state = ChannelState {
            redeemed: channel.redeemed.micros(),
            ceiling: channel.ceiling.micros(),
            redeemUntil: channel.redeem_until.0,
            locked: channel.locked.micros().try_into().ok()?,
            closed: channel.closed,
        };
        Some(Escrow::channelsOfCall::abi_encode_returns(&vec![state; ids.len()]))
    }
}

fn logs_in(answer: &Value) -> usize {
    answer["result"].as_array().map_or(0, Vec::len)
}

fn number_of(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}
