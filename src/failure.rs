//! How the commands of an agent end when something fails: with an exit code that a script can tell from a tool's own, and with `--json` as one object.
//!
//! Always true: the codes are those of `exit_codes` in the help, and nothing else decides about them.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::client::{Problem, Unanswered};
use crate::output;

/// How a command failed, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The budget, the account or the token does not cover it.
    Money,
    /// What was named is not there, or no provider fits.
    Missing,
    /// The run was stopped or refused by the provider or a limit.
    Stopped,
    /// Files could not be copied.
    Copying,
    /// The run took longer than it may.
    Late,
    /// Everything else.
    Other,
    /// The person pressed Ctrl-C.
    Interrupted,
}

impl Failure {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Money => 120,
            Self::Missing => 121,
            Self::Stopped => 122,
            Self::Copying => 123,
            Self::Late => 124,
            Self::Other => 125,
            Self::Interrupted => 130,
        }
    }

    /// What an error means: what somebody said it means, or what the gateway's problem does.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        if let Some(told) = error.chain().find_map(|cause| cause.downcast_ref::<Told>()) {
            return told.kind;
        }
        match error.chain().find_map(|cause| cause.downcast_ref::<Problem>()) {
            Some(problem) if problem.status == 402 || problem.code().starts_with("spend_") => Self::Money,
            Some(problem) if problem.status == 404 || problem.status == 410 => Self::Missing,
            Some(problem) if problem.code() == "unknown_tool" => Self::Missing,
            _ => Self::Other,
        }
    }
}

/// An error of which it is known how the command ends with it.
#[derive(Debug)]
pub(crate) struct Told {
    kind: Failure,
    /// Stable, for programs.
    code: &'static str,
    text: String,
}

impl Told {
    pub(crate) fn error(kind: Failure, text: impl fmt::Display) -> anyhow::Error {
        Self::coded(kind, "failed", text)
    }

    /// An error with a code of its own.
    pub(crate) fn coded(kind: Failure, code: &'static str, text: impl fmt::Display) -> anyhow::Error {
        Self { kind, code, text: text.to_string() }.into()
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Told {}

/// Shows an error, for people and if asked for as JSON, and says the exit code.
pub(crate) fn show(error: &anyhow::Error, as_json: bool) -> u8 {
    if as_json {
        // What cannot be printed has been said on standard error.
        let _ = output::json(&json!({ "error": described(error) }));
    }
    output::error(error);
    Failure::of(error).code()
}

/// The same for commands whose exit code is 1 for every failure: on standard output as JSON, on standard error for people.
pub(crate) fn show_plain(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    let mut described = described(error);
    described["exitCode"] = json!(1);
    output::json(&json!({ "error": described }))?;
    output::error(error);
    Ok(ExitCode::FAILURE)
}

/// An error as JSON: the gateway's own problem where there is one.
pub(crate) fn described(error: &anyhow::Error) -> Value {
    let mut described = match error.chain().find_map(|cause| cause.downcast_ref::<Problem>()) {
        Some(problem) => problem.json(),
        None if error.chain().any(|cause| cause.is::<Unanswered>()) => json!({ "code": "gateway_unreachable" }),
        None => json!({ "code": error.chain().find_map(|cause| cause.downcast_ref::<Told>()).map_or("failed", |told| told.code) }),
    };
    described["message"] = json!(output::causes(error));
    described["exitCode"] = json!(Failure::of(error).code());
    described
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_code_of_its_own_is_told() {
        let error = Told::coded(Failure::Money, "insufficient_gas", "no").context("while testing");
        assert_eq!(described(&error), json!({ "code": "insufficient_gas", "message": "while testing: no", "exitCode": 120 }));
    }

    #[test]
    fn an_exit_code_says_what_kind_of_failure_it_was_however_it_is_wrapped() {
        let problem =
            |status, code: &str| -> anyhow::Error { Problem::new("/", status, None, &json!({ "code": code }).to_string()).into() };
        for (error, code) in [
            (problem(402, "budget_exhausted"), 120),
            (problem(404, "no_provider"), 121),
            (problem(422, "unknown_tool"), 121),
            (problem(503, "busy"), 125),
            (problem(401, "unauthorized"), 125),
            (Told::error(Failure::Copying, "no"), 123),
            (anyhow::anyhow!("anything"), 125),
        ] {
            let wrapped: anyhow::Result<()> = Err(error);
            let error = wrapped.context("while testing").unwrap_err();
            assert_eq!(Failure::of(&error).code(), code, "{error:#}");
            assert_eq!(described(&error)["exitCode"], code);
        }
    }
}
