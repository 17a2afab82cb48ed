//! What a refusal of the desk looks like over HTTP.

use std::fmt::Display;

use axum::http::StatusCode;
use orien_door::Problem;
use orien_protocol::fault::FaultCode;

use crate::desk::DeskError;

/// The problem that stands for a refusal.
pub(super) fn refused(error: DeskError) -> Problem {
    let fault = match error {
        DeskError::Refused(fault) => fault,
        DeskError::Shut(_) => {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "Settlement is stopping")
                .detail("The cause is in the program's log.");
        }
    };
    let (status, title) = match fault.code {
        FaultCode::CONFLICT => (StatusCode::CONFLICT, "The name is taken"),
        FaultCode::NOT_FOUND => (StatusCode::NOT_FOUND, "There is nothing here"),
        FaultCode::BUSY => (StatusCode::SERVICE_UNAVAILABLE, "Too much at once"),
        FaultCode::INTERNAL => return Problem::internal(),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, "The request is refused"),
    };
    let problem = Problem::new(status, fault.code.name(), title).detail(fault.text);
    match fault.missing {
        Some(missing) => problem.with("missing", missing.to_string()),
        None => problem,
    }
}

/// A field or parameter cannot be read.
pub(super) fn unreadable(what: &str, error: impl Display) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", "A value cannot be read").detail(format!("{what}: {error}"))
}

/// No such thing.
pub(super) fn not_found(detail: String) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here").detail(detail)
}
