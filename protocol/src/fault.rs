//! Why a peer refused or failed: a stable number, text for people, and the missing amount where money is short.
//!
//! Numbers are never reused. A reader that does not know a number still has the text.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::money::Usdc;

/// Longest text of a fault in bytes; it comes from a peer and ends up in logs and answers.
pub const FAULT_TEXT_LIMIT: usize = 512;

macro_rules! codes {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal;)*) => {
        /// What kind of fault, as a stable number.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct FaultCode(pub u16);

        impl FaultCode {
            $($(#[$doc])* pub const $constant: Self = Self($number);)*

            /// Every code known here.
            pub const ALL: &'static [Self] = &[$(Self($number),)*];

            /// The stable name used in HTTP answers.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $name,)*
                    _ => "unknown_fault",
                }
            }
        }
    };
}

codes! {
    /// The bytes or the combination of fields make no sense.
    MALFORMED = 1, "malformed";
    /// A signature is wrong.
    BAD_SIGNATURE = 2, "bad_signature";
    /// The caller is not who the document names.
    NOT_YOURS = 3, "not_yours";
    /// It belongs to another network, chain or settlement.
    WRONG_NETWORK = 4, "wrong_network";
    /// No such thing here.
    NOT_FOUND = 5, "not_found";
    /// The same id was used for something else.
    CONFLICT = 6, "conflict";
    /// Not possible in this state.
    WRONG_STATE = 7, "wrong_state";
    /// Every slot is taken; try again later or elsewhere.
    BUSY = 8, "busy";
    /// Too large.
    TOO_LARGE = 9, "too_large";
    /// It failed on the other side, through no fault of the caller.
    INTERNAL = 10, "internal";
    /// The clocks are too far apart.
    CLOCKS = 11, "clocks_apart";
    /// The times do not fit the rules of the network.
    TIMES = 12, "times_refused";
    /// The offer that the terms name is not current any more.
    OFFER_CHANGED = 13, "offer_changed";
    /// The session has ended or its time is over.
    SESSION_ENDED = 14, "session_ended";
    /// The tool is not offered.
    UNKNOWN_TOOL = 20, "unknown_tool";
    /// An argument is missing, unknown or has a wrong value.
    BAD_ARGUMENTS = 21, "bad_arguments";
    /// The tool could not be started.
    SETUP_FAILED = 22, "setup_failed";
    /// The agent took the job back before it ran.
    CANCELLED = 23, "cancelled";
    /// The job did not ask for standard input.
    STDIN_NOT_WANTED = 24, "stdin_not_wanted";
    /// The budget cannot pay for it.
    BUDGET_EXHAUSTED = 30, "budget_exhausted";
    /// The account cannot reserve so much.
    INSUFFICIENT_FUNDS = 31, "insufficient_funds";
    /// The account owes this provider from an earlier session.
    DEBT = 32, "debt";
    /// Too much is waiting for redemption; settle first.
    UNREDEEMED = 33, "unredeemed_limit";
    /// The account's daily cap is reached.
    DAILY_CAP = 34, "daily_cap";
    /// The allowance does not fit the terms.
    BAD_ALLOWANCE = 35, "bad_allowance";
    /// A receipt does not follow from what was agreed.
    BAD_RECEIPT = 36, "bad_receipt";
    /// A voucher does not follow from the receipts.
    BAD_VOUCHER = 37, "bad_voucher";
    /// One side's history is older than what the other holds of it.
    HISTORY_LOST = 38, "history_lost";
    /// No such path in the workspace.
    NO_SUCH_FILE = 40, "no_such_file";
    /// The path leaves the workspace or is not a plain file.
    BAD_PATH = 41, "bad_path";
    /// The workspace is full.
    WORKSPACE_FULL = 42, "workspace_full";
    /// The bytes that arrived are not the ones announced.
    HASH_MISMATCH = 43, "hash_mismatch";
    /// The file is not the one any more that was asked for.
    FILE_CHANGED = 44, "file_changed";
    /// No upload to this path broke off there.
    WRONG_OFFSET = 45, "wrong_offset";
    /// The chain cannot be read now.
    CHAIN_UNREADABLE = 50, "chain_unreadable";
    /// The account does not let this spending key promise its money, or not any more.
    KEY_NOT_AUTHORIZED = 51, "key_not_authorized";
    /// The escrow does not know this settlement signer, or not any more.
    SIGNER_NOT_CURRENT = 52, "signer_not_current";
}

impl fmt::Debug for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

/// A refusal or failure, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What kind.
    pub code: FaultCode,
    /// For people.
    pub text: String,
    /// How much money is short, where that is the reason.
    pub missing: Option<Usdc>,
}

impl Fault {
    /// A fault with a text, which is cut at [`FAULT_TEXT_LIMIT`].
    pub fn new(code: FaultCode, text: impl fmt::Display) -> Self {
        let mut text = text.to_string();
        cut(&mut text);
        Self { code, text, missing: None }
    }

    /// The same fault, naming the missing amount.
    pub fn missing(mut self, amount: Usdc) -> Self {
        self.missing = Some(amount);
        self
    }

    /// The same fault made safe to show: text cut and control characters replaced. For faults that came from a peer.
    pub fn tamed(mut self) -> Self {
        self.text = self.text.chars().take(FAULT_TEXT_LIMIT).map(|c| if c.is_control() { ' ' } else { c }).collect();
        cut(&mut self.text);
        self
    }
}

/// Cuts a text at [`FAULT_TEXT_LIMIT`] bytes, or just before if a character lies across it.
fn cut(text: &mut String) {
    if text.len() > FAULT_TEXT_LIMIT {
        let end = (0..=FAULT_TEXT_LIMIT).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.text)?;
        match self.missing {
            Some(amount) => write!(f, " (missing {amount} USDC)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}
