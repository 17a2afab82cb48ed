//! `If-Match` and `If-None-Match` of a request that changes a file (RFC 9110, 13): it is done only to the state of the file that the caller means.
//!
//! What is there is looked at right before the change begins: one gateway owns the session, so only a tool that runs meanwhile, or another request to the same path, can come between.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use orien_protocol::fault::FaultCode;

use super::tag;
use crate::files::{FileError, Workspace};
use crate::rows::Refusal;

/// Refuses a request whose conditions do not hold.
pub(super) async fn check(workspace: &Workspace<'_>, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(header::IF_MATCH) && !headers.contains_key(header::IF_NONE_MATCH) {
        return Ok(());
    }
    let found = match workspace.stat(path.to_owned(), false).await {
        Ok(found) => Some(tag(found.version)),
        Err(FileError::Refused(fault)) if fault.code == FaultCode::NO_SUCH_FILE => None,
        Err(error) => return Err(error.into()),
    };
    let detail = match failed(headers, found.as_deref()) {
        None => return Ok(()),
        Some(header) => match &found {
            Some(tag) => format!("{header} does not hold: the file is there, and its ETag is {tag}."),
            None => format!("{header} does not hold: there is no such file."),
        },
    };
    Err(Refusal::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", "The file is not in the state that was asked for", detail))
}

/// The condition that does not hold for a file with this tag, or for none.
fn failed(headers: &HeaderMap, found: Option<&str>) -> Option<&'static str> {
    let names = |name: HeaderName, is_weak: bool| {
        let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        let means = |one: &str| found.is_some_and(|own| one == "*" || one == own || (is_weak && one.strip_prefix("W/") == Some(own)));
        values.iter().flat_map(|value| value.split(',')).any(|one| means(one.trim()))
    };
    if headers.contains_key(header::IF_MATCH) && !names(header::IF_MATCH, false) {
        return Some("If-Match");
    }
    (headers.contains_key(header::IF_NONE_MATCH) && names(header::IF_NONE_MATCH, true)).then_some("If-None-Match")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn judged(name: HeaderName, value: &'static str, found: Option<&str>) -> Option<&'static str> {
        failed(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))]), found)
    }

    #[test]
    fn conditions_hold_as_the_standard_says() {
        let own = Some("\"a\"");
        for value in ["*", "\"a\"", "\"b\", \"a\""] {
            assert_eq!(judged(header::IF_MATCH, value, own), None, "{value}");
            assert_eq!(judged(header::IF_MATCH, value, None), Some("If-Match"), "{value}");
            assert_eq!(judged(header::IF_NONE_MATCH, value, own), Some("If-None-Match"), "{value}");
            assert_eq!(judged(header::IF_NONE_MATCH, value, None), None, "{value}");
        }
        for value in ["\"b\"", "a", ""] {
            assert_eq!(judged(header::IF_MATCH, value, own), Some("If-Match"), "{value}");
            assert_eq!(judged(header::IF_NONE_MATCH, value, own), None, "{value}");
        }
        // A weak tag says that the bytes may differ: enough to leave a file alone, not enough to replace it.
        assert_eq!(judged(header::IF_MATCH, "W/\"a\"", own), Some("If-Match"));
        assert_eq!(judged(header::IF_NONE_MATCH, "W/\"a\"", own), Some("If-None-Match"));
        assert_eq!(failed(&HeaderMap::new(), own), None);
    }
}
