//! What is refused, as callers see it: which status and code each fault, error and blame becomes.
//!
//! | Status | Codes |
//! | --- | --- |
//! | 402 | `budget_exhausted`, `insufficient_funds`, `debt`, `unredeemed_limit`, `daily_cap`, `key_not_authorized`; `missing` says how much, as a decimal string |
//! | 404 | `session_not_found`, `execution_not_found`, `provider_not_found`, `no_provider`, `no_such_file`, `not_found` |
//! | 400 | `bad_path`, `bad_range`, `bad_hash`, `bad_header`, `bad_archive`, `wrong_length`, `unreadable_body` |
//! | 409 | `file_changed`, `folder_not_empty`, `wrong_offset`, `wrong_state`, `conflict`, `offer_changed`, `bad_receipt`, `history_lost`, `clocks_apart`, `in_progress`, `stdin_not_wanted` |
//! | 410 | `session_ended`, `stdin_closed`, `session_replaced`; `successor` is the session that goes on for it |
//! | 412 | `precondition_failed` |
//! | 422 | `unknown_tool`, `bad_arguments`, `invalid_body`, `idempotency_mismatch` |
//! | 502 | `provider_unreachable`, `settlement_unreachable`, `chain_unreadable`, `signer_not_current`, `hash_mismatch`, and whatever a peer says that makes no sense |
//! | 503 | `busy`, `failing_over`, with `Retry-After` |

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orien_door::Problem;
use orien_protocol::fault::{Fault, FaultCode};
use serde_json::{Value, json};

use crate::arguments::ArgumentProblem;
use crate::body::BodyError;
use crate::desk::{Blame, By};
use crate::files::FileError;
use crate::first_run::{Unfit, sentence};
use crate::opening::OpenError;
use crate::rows::Refusal;
use crate::store::StoreError;

/// When to come back if something is busy, seconds.
const RETRY_SECONDS: u32 = 1;

/// The item that becomes a member of the problem itself: the session that goes on for one that was asked for.
pub(super) const SUCCESSOR: &str = "successor";

impl Refusal {
    /// A refusal with a stable code and a title that is the same for every occurrence.
    pub(crate) fn new(status: StatusCode, code: &str, title: &str, detail: impl std::fmt::Display) -> Self {
        Self {
            status: status.as_u16(),
            code: code.into(),
            title: title.into(),
            detail: detail.to_string(),
            missing: None,
            retry_after: None,
            items: Vec::new(),
        }
    }

    /// A resource that is not here.
    pub(crate) fn not_found(code: &str, title: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, title, detail)
    }

    /// A body or query whose meaning cannot be taken.
    pub(crate) fn invalid(code: &str, detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, "The request is not what this route takes", detail)
    }

    /// Arguments that do not fit their tool.
    pub(crate) fn bad_arguments(problems: Vec<ArgumentProblem>) -> Self {
        let fault = Fault::new(FaultCode::BAD_ARGUMENTS, sentence(&problems));
        let items = problems.into_iter().map(|problem| (problem.argument, problem.problem)).collect();
        Self { items, ..fault.into() }
    }

    /// A failure of ours, logged here.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a request failed inside the gateway");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The request failed inside the program",
            "The cause is in the program's log.",
        )
    }

    /// Whether the same request may be tried again and may then succeed: nothing was done.
    pub(crate) const fn is_passing(&self) -> bool {
        self.status >= 500
    }

    /// As an answer.
    pub(crate) fn problem(&self) -> Problem {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut problem =
            Problem::new(status, String::from(self.code.clone()), String::from(self.title.clone())).detail(self.detail.clone());
        if let Some(missing) = self.missing {
            problem = problem.with("missing", missing.to_string());
        }
        let (successor, items): (Vec<_>, Vec<_>) = self.items.iter().partition(|(name, _)| name == SUCCESSOR);
        if let Some((name, session)) = successor.first() {
            problem = problem.with(name, session.clone());
        }
        if !items.is_empty() {
            let list: Vec<Value> = items.iter().map(|(name, text)| json!({ "name": name, "problem": text })).collect();
            problem = problem.with("problems", Value::from(list));
        }
        match self.retry_after {
            Some(seconds) => problem.retry_after_seconds(seconds.into()),
            None => problem,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.problem().into_response()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<Blame> for Refusal {
    fn from(blame: Blame) -> Self {
        let fault = blame.fault;
        match blame.by {
            By::ProviderGone => Self::new(StatusCode::BAD_GATEWAY, "provider_unreachable", "The provider cannot be reached", fault.text),
            By::SettlementGone => Self::new(StatusCode::BAD_GATEWAY, "settlement_unreachable", "Settlement cannot be reached", fault.text),
            By::Us if fault.code == FaultCode::INTERNAL => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The request failed inside the program", fault.text)
            }
            By::Provider | By::Settlement | By::Us => fault.into(),
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let (status, title) = meaning(fault.code);
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SECONDS);
        Self { missing: fault.missing, retry_after, ..Self::new(status, fault.code.name(), title, fault.text) }
    }
}

/// Status and title of each fault.
fn meaning(code: FaultCode) -> (StatusCode, &'static str) {
    match code {
        FaultCode::BUDGET_EXHAUSTED => (StatusCode::PAYMENT_REQUIRED, "The budget does not cover this"),
        FaultCode::INSUFFICIENT_FUNDS => (StatusCode::PAYMENT_REQUIRED, "The account cannot reserve so much"),
        FaultCode::DEBT => (StatusCode::PAYMENT_REQUIRED, "The account owes this provider"),
        FaultCode::UNREDEEMED => (StatusCode::PAYMENT_REQUIRED, "Too much waits for redemption"),
        FaultCode::DAILY_CAP => (StatusCode::PAYMENT_REQUIRED, "The account's daily cap is reached"),
        FaultCode::KEY_NOT_AUTHORIZED => (StatusCode::PAYMENT_REQUIRED, "The account does not allow this spending key"),
        FaultCode::SIGNER_NOT_CURRENT => (StatusCode::BAD_GATEWAY, "The escrow does not know this settlement"),
        FaultCode::CHAIN_UNREADABLE => (StatusCode::BAD_GATEWAY, "The chain cannot be read"),
        FaultCode::CONFLICT => (StatusCode::CONFLICT, "This contradicts an earlier request"),
        FaultCode::STDIN_NOT_WANTED => (StatusCode::CONFLICT, "The run did not ask for standard input"),
        FaultCode::WRONG_STATE => (StatusCode::CONFLICT, "This is not possible now"),
        FaultCode::OFFER_CHANGED => (StatusCode::CONFLICT, "The provider's offer has changed"),
        FaultCode::HISTORY_LOST => (StatusCode::CONFLICT, "One side has lost a part of the session"),
        FaultCode::BAD_RECEIPT => (StatusCode::CONFLICT, "The session is in dispute"),
        FaultCode::CLOCKS => (StatusCode::CONFLICT, "The clocks are too far apart"),
        FaultCode::TIMES => (StatusCode::CONFLICT, "The times do not fit the network's rules"),
        FaultCode::CANCELLED => (StatusCode::CONFLICT, "It was cancelled"),
        FaultCode::SESSION_ENDED => (StatusCode::GONE, "The session has ended"),
        FaultCode::UNKNOWN_TOOL => (StatusCode::UNPROCESSABLE_ENTITY, "The session has no such tool"),
        FaultCode::BAD_ARGUMENTS => (StatusCode::UNPROCESSABLE_ENTITY, "The arguments do not fit the tool"),
        FaultCode::TOO_LARGE => (StatusCode::PAYLOAD_TOO_LARGE, "It is too large"),
        FaultCode::NOT_FOUND => (StatusCode::NOT_FOUND, "There is no such thing"),
        FaultCode::NO_SUCH_FILE => (StatusCode::NOT_FOUND, "There is no such file"),
        FaultCode::BAD_PATH => (StatusCode::BAD_REQUEST, "The path cannot be used"),
        FaultCode::WORKSPACE_FULL => (StatusCode::INSUFFICIENT_STORAGE, "The workspace is full"),
        FaultCode::BUSY => (StatusCode::SERVICE_UNAVAILABLE, "Every place is taken"),
        FaultCode::NOT_YOURS => (StatusCode::FORBIDDEN, "It belongs to somebody else"),
        FaultCode::FILE_CHANGED => (StatusCode::CONFLICT, "The file has changed"),
        FaultCode::WRONG_OFFSET => (StatusCode::CONFLICT, "No upload broke off there"),
        FaultCode::HASH_MISMATCH => (StatusCode::BAD_GATEWAY, "Other bytes arrived than were sent"),
        _ => (StatusCode::BAD_GATEWAY, "The other side failed or made no sense"),
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Unreachable(error) => {
                Self::new(StatusCode::BAD_GATEWAY, "provider_unreachable", "The provider cannot be reached", error)
            }
            FileError::Refused(fault) => fault.into(),
            FileError::Interrupted(_) => Self::new(StatusCode::BAD_GATEWAY, "transfer_interrupted", "The transfer was interrupted", error),
            FileError::Mismatch => Self::new(StatusCode::BAD_GATEWAY, "hash_mismatch", "Other bytes arrived than were sent", error),
            FileError::Length { .. } => Self::new(StatusCode::BAD_REQUEST, "wrong_length", "The body is not as long as announced", error),
            FileError::Archive(_) => Self::new(StatusCode::BAD_REQUEST, "bad_archive", "The archive cannot be read", error),
            FileError::Body(error) => error.into(),
        }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Stalled => Self::new(StatusCode::REQUEST_TIMEOUT, "body_stalled", "The body did not arrive", error),
            BodyError::Broken(_) => Self::new(StatusCode::BAD_REQUEST, "unreadable_body", "The body cannot be read", error),
        }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Blame(blame) => blame.into(),
            OpenError::Unfit(Unfit::Arguments(problems)) => Self::bad_arguments(problems),
            OpenError::Unfit(Unfit::Refused(fault)) => fault.into(),
            OpenError::Store(error) => error.into(),
            OpenError::Commit(error) => error.into(),
            OpenError::Full => Fault::new(FaultCode::BUSY, "this gateway has as many sessions open as it can; end one").into(),
            OpenError::NoProvider { rejected } => {
                let detail = match rejected.len() {
                    0 => "No offer is known. Providers are found over the network; try again in a moment.".to_owned(),
                    1 => "The one offer that was looked at does not fit; `problems` names what it lacks.".to_owned(),
                    count => format!("{count} offers were looked at and none fits; `problems` names what each lacks."),
                };
                let items = rejected.into_iter().map(|(provider, why)| (provider.to_string(), why)).collect();
                Self { items, ..Self::not_found("no_provider", "No provider fits", detail) }
            }
        }
    }
}
