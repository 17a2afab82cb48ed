//! What an audit finds wrong, and how a readable field is compared with what a document proves.

use std::fmt::{Debug, Display};

use serde::{Deserialize, Serialize};

use super::lines::{AllowanceLine, CloseLine, JobLine, ReceiptLine, SessionLine, TotalsLine, VoucherLine, WorkLine};

/// Findings that are told one by one; a file that was made up is wrong everywhere.
const FINDINGS_LIMIT: usize = 200;
/// Characters of a value that are repeated.
const SHOWN_CHARS: usize = 120;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which field or document, as a path in the file.
    pub about: String,
    /// What is wrong with it.
    pub text: String,
}

/// Findings in the making.
#[derive(Debug, Default)]
pub(super) struct Findings {
    told: Vec<Finding>,
    more: usize,
}

impl Findings {
    pub(super) fn add(&mut self, about: impl Display, text: impl Display) {
        if self.told.len() < FINDINGS_LIMIT {
            self.told.push(Finding { about: about.to_string(), text: text.to_string() });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Compares a value of the file with what was recomputed.
    pub(super) fn same<T: PartialEq + Debug>(&mut self, about: impl Display, found: &T, expected: &T) {
        if found != expected {
            self.add(about, format_args!("the file says {}, the documents give {}", shown(found), shown(expected)));
        }
    }

    /// Compares a line of the file with the line that its document gives.
    pub(super) fn line<L: Line>(&mut self, about: &str, found: &L, expected: &L) {
        found.compare(expected, about, self);
    }

    pub(super) fn finish(mut self) -> Vec<Finding> {
        if self.more > 0 {
            self.told.push(Finding { about: "file".to_owned(), text: format!("{} more things are wrong", self.more) });
        }
        self.told
    }
}

fn shown(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let mut short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// A part of the file with fields to compare.
pub(super) trait Line {
    /// Reports every field that differs.
    fn compare(&self, expected: &Self, about: &str, findings: &mut Findings);
}

/// Compares field by field. Naming them all in a pattern makes a new field that nobody compares a compile error.
macro_rules! compared {
    ($($line:ident { $($field:ident = $name:literal),+ $(; $part:ident)* })+) => {$(
        impl Line for $line {
            fn compare(&self, expected: &Self, about: &str, findings: &mut Findings) {
                let Self { $($field,)+ $($part: _,)* } = self;
                $(findings.same(format_args!("{about}.{}", $name), $field, &expected.$field);)+
            }
        }
    )+};
}

compared! {
    SessionLine {
        id = "id", channel_id = "channelId", terms_hash = "termsHash", agent_id = "agentId", account = "account", spending_key = "spendingKey",
        provider_id = "providerId", claim_key = "claimKey", payout_address = "payoutAddress", offer_hash = "offerHash", prices = "prices",
        minimum_charge = "minimumCharge", metering_interval_ms = "meteringIntervalMs", time_tolerance_ms = "timeToleranceMs",
        runs_at_once = "runsAtOnce", confinement = "confinement", issued_at_ms = "issuedAtMs", work_until = "workUntil",
        redeem_until = "redeemUntil", evidence = "evidence"
    }
    AllowanceLine { ceiling = "ceiling", work_until = "workUntil", redeem_until = "redeemUntil", evidence = "evidence" }
    JobLine {
        execution_id = "executionId", tool_id = "toolId", hash = "hash", max_cost = "maxCost", max_duration_ms = "maxDurationMs",
        issued_at_ms = "issuedAtMs", evidence = "evidence"
    }
    CloseLine { total = "total", evidence = "evidence" }
    ReceiptLine {
        number = "number", hash = "hash", previous = "previous", at_ms = "atMs", confinement = "confinement", charged = "charged",
        evidence = "evidence"; work; voucher
    }
    WorkLine {
        execution_id = "executionId", job = "job", tool_id = "toolId", effective_ms = "effectiveMs", cpu_ms = "cpuMs",
        peak_memory_bytes = "peakMemoryBytes", bytes_in = "bytesIn", bytes_out = "bytesOut", output_hash = "outputHash", charge = "charge",
        end_reason = "endReason", end_party = "endParty", exit_code = "exitCode"
    }
    VoucherLine { total = "total", receipt_number = "receiptNumber", receipt_hash = "receiptHash", evidence = "evidence" }
    TotalsLine {
        receipts = "receipts", executions = "executions", charged = "charged", total_cost = "totalCost", provider_payout = "providerPayout",
        platform_fee = "platformFee", reserve = "reserve"
    }
}
