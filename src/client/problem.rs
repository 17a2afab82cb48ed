//! Why a request failed, so that a person knows what to do and a script what happened.
//!
//! Always true: what the door said is shown as one sentence with its stable code, the missing amount, and what to do about it; text that comes from others is made harmless for a terminal.

use std::fmt;

use serde_json::{Value, json};

use crate::show::harmless;

/// Most single problems that are repeated in a sentence.
const ITEMS_SHOWN: usize = 8;

/// What a door answered instead of what was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// HTTP status.
    pub(crate) status: u16,
    /// When to come back, seconds, if it says so.
    pub(crate) retry_after: Option<u64>,
    body: Value,
}

impl Problem {
    /// The problem in an answer's body; `path` is told when the body says nothing.
    pub(crate) fn new(path: &str, status: u16, retry_after: Option<u64>, text: &str) -> Self {
        let body = serde_json::from_str(text).ok().filter(|body: &Value| body["code"].is_string());
        let body = body
            .unwrap_or_else(|| json!({ "code": format!("http_{status}"), "title": format!("{path} was refused with status {status}") }));
        Self { status, retry_after, body }
    }

    /// The stable code.
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The session that goes on for the one that was asked.
    pub(crate) fn successor(&self) -> Option<&str> {
        self.body["successor"].as_str().filter(|_| self.code() == "session_replaced")
    }

    /// As JSON, as it came.
    pub(crate) fn json(&self) -> Value {
        let mut body = self.body.clone();
        body["status"] = json!(self.status);
        body
    }

    fn part(&self, name: &str) -> String {
        harmless(self.body[name].as_str().unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a document refers to is in the sentence.
        let (title, detail) = (
            self.part("title"),
            self.part("detail").replace("; `problems` names what each lacks", "").replace("; `problems` names what it lacks", ""),
        );
        f.write_str(if title.is_empty() { self.code() } else { &title })?;
        let detail = detail.trim_end_matches('.');
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        if let Some(missing) = self.body["missing"].as_str() {
            write!(f, "; missing {} USDC", harmless(missing))?;
        }
        let items = self.body["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
        for item in items.iter().take(ITEMS_SHOWN) {
            let part = |name: &str| harmless(item[name].as_str().unwrap_or_default());
            // What the sentence says already is not said again.
            if !detail.contains(&part("problem")) {
                write!(f, "; {}: {}", part("name"), part("problem"))?;
            }
        }
        if let Some(advice) = advice(self.code()) {
            write!(f, ". {advice}")?;
        }
        if let Some(seconds) = self.retry_after {
            write!(f, " (again in {seconds} s)")?;
        }
        write!(f, " [{}]", harmless(self.code()))
    }
}

impl std::error::Error for Problem {}

/// What a person can do about a problem, where that is not in what the door says.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "budget_exhausted" => "Raise the budget with `orien session top-up`, or open with a higher --budget",
        "insufficient_funds" => "Ask for less, or have the operator grant credit: orien settlement grant ACCOUNT AMOUNT",
        "daily_cap" => "Wait for the next day, or have the operator raise the account's daily cap",
        "spend_cap" | "spend_cap_reached" => "Use a token with more to spend: orien token",
        "folder_not_empty" => "`orien session rm -r` removes it with everything in it",
        "no_provider" => "`orien providers` shows who offers what",
        "provider_not_found" => "`orien providers` shows who is known",
        "session_not_found" => "`orien session ls` shows the sessions",
        "session_ended" => "Open another with `orien session open`",
        "unknown_tool" => "`orien providers ID` shows a provider's tools",
        "unauthorized" | "invalid_token" | "token_expired" => "Say the gateway's token with --token-file or ORIEN_TOKEN",
        "insufficient_scope" => "Use a token with that scope: orien token",
        "busy" | "rate_limited" => "Try again later",
        "provider_unreachable" | "settlement_unreachable" => {
            "Try again; if it stays so, `orien session end` gives the rest of the budget back"
        }
        _ => return None,
    })
}

/// Nobody answered, or the answer broke off.
#[derive(Debug)]
pub(crate) struct Unanswered {
    base: String,
    cause: String,
    absent: bool,
    /// What to look at.
    advice: &'static str,
}

impl Unanswered {
    /// An answer that broke off.
    pub(crate) fn new(base: &str, cause: impl fmt::Display) -> Self {
        let advice = "does it still run? (orien status, orien dev, orien gateway)";
        Self { base: base.to_owned(), cause: cause.to_string(), absent: false, advice }
    }

    /// A request that got none.
    pub(crate) fn of(base: &str, error: &ureq::Error) -> Self {
        if is_of_tls(error) {
            let advice = "is it the one you mean, and does it speak TLS? (--ca-file names the certificates that it is trusted by)";
            return Self { absent: true, advice, ..Self::new(base, error) };
        }
        let absent = match error {
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound | ureq::Error::BadUri(_) | ureq::Error::Timeout(_) => true,
            _ => false,
        };
        Self { absent, ..Self::new(base, error) }
    }

    /// Whether nobody is there, so that asking again at once does not help.
    pub(crate) const fn is_absent(&self) -> bool {
        self.absent
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer from {}: {}; {}", self.base, self.cause, self.advice)
    }
}

impl std::error::Error for Unanswered {}

/// Whether both sides could not agree on who speaks.
fn is_of_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_sentence_with_code_missing_amount_and_what_to_do() {
        let body = r#"{"code":"budget_exhausted","title":"The budget does not cover this","detail":"one interval cannot be paid.","missing":"0.012"}"#;
        let said = Problem::new("/tools/run", 402, None, body).to_string();
        assert_eq!(
            said,
            "The budget does not cover this: one interval cannot be paid; missing 0.012 USDC. Raise the budget with `orien session top-up`, \
             or open with a higher --budget [budget_exhausted]"
        );
    }

    #[test]
    fn what_is_wrong_with_an_argument_is_said_once() {
        let body = r#"{"code":"bad_arguments","title":"The arguments do not fit","detail":"`n` has to be a number","problems":[{"name":"n","problem":"has to be a number"}]}"#;
        assert_eq!(Problem::new("/x", 422, None, body).to_string(), "The arguments do not fit: `n` has to be a number [bad_arguments]");
        let body = r#"{"code":"no_provider","title":"No provider fits","detail":"2 offers; `problems` names what each lacks.","problems":[{"name":"a","problem":"too dear"},{"name":"b","problem":"not there"}]}"#;
        let said = Problem::new("/x", 404, None, body).to_string();
        assert!(said.starts_with("No provider fits: 2 offers; a: too dear; b: not there."), "{said}");
    }

    #[test]
    fn what_is_no_problem_document_is_told_by_its_status_and_hostile_text_is_made_harmless() {
        assert_eq!(Problem::new("/x", 502, None, "<html>").to_string(), "/x was refused with status 502 [http_502]");
        let said = Problem::new("/x", 400, None, "{\"code\":\"a\",\"title\":\"t\",\"detail\":\"\\u001b[2J\\u0007\"}").to_string();
        assert!(!said.contains(char::is_control), "{said:?}");
    }
}
