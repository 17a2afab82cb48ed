//! Lists as callers get them: a page of items under a name, where the next page begins, and a tag that tells whether anything has changed.
//!
//! Always true: the tag follows from the body and nothing else, so an answer of 304 says that the caller has the very list; a cursor is opaque, and one that this gateway did not give is
//! refused.
//!
//! It does not know what is listed.

use axum::extract::FromRequestParts;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::shown;
use crate::rows::Refusal;

/// Digits of a tag: nobody is served by two lists of one caller that agree in 64 bits.
const TAG_DIGITS: usize = 16;

/// The lists that a caller says it has.
#[derive(Debug)]
pub(super) struct Has(Vec<HeaderValue>);

impl<S: Sync> FromRequestParts<S> for Has {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.headers.get_all(IF_NONE_MATCH).iter().cloned().collect()))
    }
}

impl Has {
    fn names(&self, tag: &str) -> bool {
        let strong = |text: &str| text.trim().trim_start_matches("W/").to_owned();
        let names = |value: &HeaderValue| {
            value.to_str().is_ok_and(|text| text.split(',').any(|one| one.trim() == "*" || strong(one) == strong(tag)))
        };
        self.0.iter().any(names)
    }
}

/// How many items a caller gets: as many as it says, at least one and at most `most`.
pub(super) fn page_size(asked: Option<usize>, usual: usize, most: usize) -> Result<usize, Refusal> {
    match asked {
        Some(0) => Err(invalid("limit has to be at least 1")),
        asked => Ok(asked.unwrap_or(usual).min(most)),
    }
}

/// A query whose meaning cannot be taken.
pub(super) fn invalid(detail: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_query", "The query is not what this route takes", detail)
}

/// The id in a cursor that is one.
pub(super) fn cursor<T: std::str::FromStr>(text: Option<&str>) -> Result<Option<T>, Refusal> {
    let foreign = |text| invalid(format_args!("cursor has to be the nextCursor of an earlier answer, not {}", shown(text)));
    text.map(|text| text.parse().map_err(|_| foreign(text))).transpose()
}

/// A page: at most `limit` of the items, and the cursor of the next one if there are more.
pub(super) fn page<T>(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> (Vec<T>, Option<String>) {
    let is_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| is_more).map(cursor);
    (items, next)
}

/// A list, unless the caller has it.
pub(super) fn answer(has: &Has, list: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_string(list).map_err(|error| Refusal::internal(&error))?;
    let digits: String = blake3::hash(body.as_bytes()).to_hex().chars().take(TAG_DIGITS).collect();
    let tag = format!("W/\"{digits}\"");
    let header = HeaderValue::try_from(tag.as_str()).map_err(|error| Refusal::internal(&error))?;
    // Kept by the caller alone, and asked for again each time.
    let headers = [(ETAG, header), (CACHE_CONTROL, HeaderValue::from_static("private, no-cache"))];
    if has.names(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::json;

    use super::*;

    async fn has(values: &[&str]) -> Has {
        let request = values.iter().fold(Request::builder(), |request, value| request.header(IF_NONE_MATCH, *value));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        Has::from_request_parts(&mut parts, &()).await.unwrap()
    }

    #[tokio::test]
    async fn a_caller_that_has_the_very_list_gets_304_and_any_other_the_list() {
        let list = json!({ "things": [1, 2], "nextCursor": null });
        let first = answer(&has(&[]).await, &list).unwrap();
        assert_eq!(first.status(), 200);
        let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
        assert!(tag.starts_with("W/\"") && tag.len() == TAG_DIGITS + 4, "{tag}");
        for known in [tag.as_str(), "*", &format!("\"other\", {tag}"), tag.trim_start_matches("W/")] {
            let again = answer(&has(&[known]).await, &list).unwrap();
            assert_eq!((again.status().as_u16(), again.headers()[ETAG].to_str().unwrap()), (304, tag.as_str()), "{known}");
        }
        assert_eq!(answer(&has(&["W/\"0\""]).await, &list).unwrap().status(), 200);
        assert_eq!(answer(&has(&[&tag]).await, &json!({ "things": [1] })).unwrap().status(), 200);
    }

    #[test]
    fn a_page_has_a_cursor_only_if_more_follows() {
        let of = |count: u8, limit| page((1..=count).collect::<Vec<_>>(), limit, ToString::to_string);
        assert_eq!(of(3, 2), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(of(2, 2), (vec![1, 2], None));
        assert_eq!(of(0, 2), (Vec::new(), None));
        assert!(page_size(Some(0), 5, 9).is_err());
        assert_eq!(page_size(None, 5, 9).ok(), Some(5));
        assert_eq!(page_size(Some(70), 5, 9).ok(), Some(9));
    }
}
