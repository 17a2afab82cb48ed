//! What goes wrong, as a model can act on it: a code, a sentence, what is missing, and what to do next.
//!
//! Always true: codes are those of the HTTP API's problems; nothing of the program's inside is told.

use rmcp::model::{CallToolResult, ContentBlock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The session that goes on for one that was lost with its provider.
const SUCCESSOR: &str = "successor_session_id";
/// Longest sentence that is passed on.
const DETAIL_CHARS: usize = 2000;

/// Why a tool call did not do what was asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure(Box<Inner>);

#[derive(Clone, Debug, PartialEq)]
struct Inner {
    code: String,
    detail: String,
    missing: Option<String>,
    retry_after: Option<u64>,
    /// What each argument or provider lacks.
    problems: Vec<Item>,
    /// What a caller may want to know beside it, such as what remains of a budget.
    facts: Map<String, Value>,
}

/// The failure as structured content.
#[derive(Serialize, JsonSchema)]
pub(super) struct FailureJson {
    /// Stable code of the failure, such as budget_exhausted
    code: String,
    /// What went wrong, in a sentence
    detail: String,
    /// The amount that is missing, in USDC
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_usdc: Option<String>,
    /// Seconds to wait before trying again
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
    /// What is wrong with each argument or provider
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Item>,
    /// Tools to call next, the most useful first
    next: Vec<String>,
}

/// What is wrong with one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Item {
    /// The argument or provider
    #[serde(default)]
    name: String,
    /// What is wrong with it
    #[serde(default)]
    problem: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    code: String,
    title: Option<String>,
    detail: Option<String>,
    missing: Option<Value>,
    retry_after_seconds: Option<u64>,
    /// The session that goes on for one that was lost with its provider.
    successor: Option<String>,
    #[serde(default)]
    problems: Vec<Item>,
}

impl Failure {
    /// A failure with a code of its own.
    pub(super) fn new(code: &str, detail: impl std::fmt::Display) -> Self {
        let detail = detail.to_string().chars().take(DETAIL_CHARS).collect();
        let code = code.to_owned();
        Self(Box::new(Inner { code, detail, missing: None, retry_after: None, problems: Vec::new(), facts: Map::new() }))
    }

    /// What the API answered instead of a success.
    pub(super) fn of_problem(status: u16, body: &[u8]) -> Self {
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            return Self::new("gateway_error", format_args!("the gateway answered with status {status}"));
        };
        let detail = problem.detail.or(problem.title).unwrap_or_else(|| format!("status {status}"));
        let missing = problem.missing.map(|amount| amount.as_str().map_or_else(|| amount.to_string(), str::to_owned));
        let mut failure = Self::new(&problem.code, detail);
        failure.0.missing = missing;
        failure.0.retry_after = problem.retry_after_seconds;
        failure.0.problems = problem.problems;
        match problem.successor {
            Some(session) => failure.goes_on_in(session),
            None => failure,
        }
    }

    /// Arguments that do not fit the schema.
    pub(super) fn arguments(error: &serde_json::Error) -> Self {
        Self::new("invalid_arguments", error)
    }

    /// The API cannot be reached.
    pub(super) fn unreachable(why: impl std::fmt::Display) -> Self {
        Self::new("gateway_unreachable", format_args!("the ORIEN gateway cannot be reached: {why}"))
    }

    /// A fault of ours, logged here.
    pub(super) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "an MCP call failed inside the program");
        Self::new("internal", "the call failed inside the program; its log says why")
    }

    /// The stable code.
    pub(super) fn code(&self) -> &str {
        &self.0.code
    }

    /// Whether it is about money that a budget or account does not have.
    pub(super) fn is_about_budget(&self) -> bool {
        self.0.code == "budget_exhausted"
    }

    /// Whether its session has ended.
    pub(super) fn is_about_an_end(&self) -> bool {
        self.0.code == "session_ended"
    }

    /// Adds the session that goes on for the one that ended.
    #[must_use]
    pub(super) fn goes_on_in(self, successor: String) -> Self {
        self.with(SUCCESSOR, successor)
    }

    /// Adds what the caller may want to know.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Which tools may help, the most useful first.
    fn next(&self) -> &'static [&'static str] {
        match self.0.code.as_str() {
            "budget_exhausted" => &["top_up_session", "end_session"],
            "max_cost_reached" => &["run_tool"],
            "insufficient_funds" | "daily_cap" | "debt" | "unredeemed_limit" | "key_not_authorized" => &["end_session", "open_session"],
            "spend_cap_reached" => &["end_session"],
            "session_ended" if self.0.facts.contains_key(SUCCESSOR) => &["session_status", "run_tool"],
            "session_replaced" => &["session_status", "run_tool"],
            "session_ended" | "session_not_found" | "offer_changed" => &["open_session"],
            "execution_not_found" => &["session_status"],
            "unknown_tool" | "bad_arguments" => &["list_tools_in_session"],
            "no_provider" | "provider_not_found" | "provider_ambiguous" => &["find_providers"],
            "provider_unreachable" => &["session_status", "open_session"],
            "no_such_file" => &["list_files"],
            "still_ending" => &["session_status"],
            "run_timeout" | "run_cancelled" | "run_failed" => &["get_run", "run_tool"],
            _ => &[],
        }
    }

    /// As the result of a tool call: an error that the model sees and can act on.
    pub(super) fn result(self) -> CallToolResult {
        self.result_among(|_| true)
    }

    /// The same, where only some tools are shown: no other is told to be called next.
    pub(super) fn result_among(self, is_shown: impl Fn(&str) -> bool) -> CallToolResult {
        let next: Vec<&str> = self.next().iter().copied().filter(|name| is_shown(name)).collect();
        let inner = *self.0;
        let mut text = format!("{}: {}", inner.code, inner.detail);
        if let Some(missing) = &inner.missing {
            text.push_str(&format!(" (missing {missing} USDC)"));
        }
        for problem in inner.problems.iter().take(16) {
            text.push_str(&format!("\n- {}: {}", problem.name, problem.problem));
        }
        if let Some(session) = inner.facts.get(SUCCESSOR).and_then(Value::as_str) {
            text.push_str(&format!("\nSession {session} goes on in its place"));
        }
        if !next.is_empty() {
            text.push_str(&format!("\nNext: {}", next.join(" or ")));
        }
        let json = FailureJson {
            code: inner.code,
            detail: inner.detail,
            missing_usdc: inner.missing,
            retry_after_seconds: inner.retry_after,
            problems: inner.problems,
            next: next.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut structured = serde_json::to_value(json).unwrap_or_default();
        if let Some(members) = structured.as_object_mut() {
            members.extend(inner.facts);
        }
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        result.structured_content = Some(structured);
        result
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_of_the_api_keeps_its_code_its_amount_and_its_items() {
        let body = json!({ "code": "budget_exhausted", "title": "t", "status": 402, "detail": "too dear", "missing": "0.01", "retryAfterSeconds": 2 });
        let result = Failure::of_problem(402, body.to_string().as_bytes()).with("session_id", "s").result();
        let structured = result.structured_content.unwrap();
        assert_eq!(result.is_error, Some(true));
        assert_eq!(
            structured,
            json!({ "code": "budget_exhausted", "detail": "too dear", "missing_usdc": "0.01", "retry_after_seconds": 2,
                "next": ["top_up_session", "end_session"], "session_id": "s" })
        );
        let text = result.content[0].as_text().unwrap().text.clone();
        assert_eq!(text, "budget_exhausted: too dear (missing 0.01 USDC)\nNext: top_up_session or end_session");
    }

    #[test]
    fn an_answer_that_is_no_problem_says_no_more_than_its_status() {
        assert_eq!(Failure::of_problem(500, b"<html>secret</html>").0.detail, "the gateway answered with status 500");
    }
}
