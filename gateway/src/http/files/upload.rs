//! A file into a workspace, whole or from where an earlier upload of it broke off.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orien_door::{Json, Path};
use orien_protocol::fault::FaultCode;
use orien_protocol::hash::Hash;
use serde::Serialize;
use utoipa::ToSchema;

use super::{CONTENT_HASH, EXECUTABLE, UPLOAD_LENGTH, UPLOAD_OFFSET, acting, check, named, preconditions, workspace};
use crate::experience::Way;
use crate::files::{FileError, Parcel, Workspace};
use crate::http::{Shared, incoming, session_id, shown};
use crate::rows::Refusal;

#[derive(Serialize, ToSchema)]
#[schema(as = StoredFile)]
struct StoredJson {
    path: String,
    size: u64,
    hash: String,
}

/// Puts a file into a session's workspace.
#[utoipa::path(put, path = "/api/sessions/{id}/files/{*path}", operation_id = "putFile", tag = "files", params(
    ("path" = String, Path, description = "Where it stands in the workspace.", example = "in/scene.blend"),
    ("x-executable" = Option<bool>, Header, description = "Whether tools may execute it."),
    ("x-content-hash" = Option<String>, Header, description = "`blake3:` and 64 hex digits: nothing is stored unless the whole file has this hash."),
    ("content-range" = Option<String>, Header,
        description = "`bytes FIRST-LAST/LENGTH`: the body is the rest of an upload that broke off; FIRST is its `upload-offset`."),
    ("if-match" = Option<String>, Header, description = "ETags, or `*`: nothing is done unless the file is one of them, or is there."),
    ("if-none-match" = Option<String>, Header, description = "ETags, or `*`: nothing is done if the file is one of them, or is there."),
), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 201, description = "It is there, with this hash.", body = StoredJson),
    (status = 400, description = "`bad_path`, `bad_range`, `bad_hash`, `bad_header`, `wrong_length`, `unreadable_body`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet. `wrong_offset`: no upload broke off there; `uploadOffset` and the header `upload-offset` say \
        where one did, if one did."),
    (status = 410, description = "`session_ended`"),
    (status = 411, description = "`length_required`"),
    (status = 412, description = "`precondition_failed`: `if-match` or `if-none-match` does not hold."),
    (status = 413, description = "`too_large`"),
    (status = 422, description = "`hash_mismatch`: the bytes do not have the hash of `x-content-hash`."),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
    (status = 507, description = "`workspace_full`"),
))]
pub(in crate::http) async fn upload(
    State(app): Shared,
    Path((id, path)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    check(&path)?;
    let parcel = parcel(path.clone(), request.headers())?;
    let (offset, expected) = (parcel.offset, parcel.expected);
    let session = session_id(&id)?;
    let (workspace, began) = (workspace(&app, session).await?, Instant::now());
    let _acting = acting(&app, &session);
    preconditions::check(&workspace, &path, request.headers()).await?;
    let moved = match workspace.upload(parcel, incoming::bytes(request)).await {
        Ok(moved) => moved,
        Err(FileError::Refused(fault)) if fault.code == FaultCode::WRONG_OFFSET => {
            return Ok(elsewhere(&workspace, &path, fault.into()).await);
        }
        Err(FileError::Refused(fault)) if fault.code == FaultCode::HASH_MISMATCH && expected.is_some() => {
            let title = "The bytes are not the ones announced";
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "hash_mismatch", title, fault.text));
        }
        Err(error) => return Err(error.into()),
    };
    app.sessions.directory.note_transfer(workspace.provider, Way::Up, moved.length, began.elapsed());
    let hash = named(&moved.whole.unwrap_or(moved.hash));
    let stored = StoredJson { path, size: offset.saturating_add(moved.length), hash };
    Ok((StatusCode::CREATED, Json(stored)).into_response())
}

/// What the headers say of an upload.
fn parcel(path: String, headers: &HeaderMap) -> Result<Parcel, Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(length) = text(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok()) else {
        let detail = "Send the length of the file in Content-Length; curl does with '-T FILE' or '--data-binary @FILE'.";
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, "length_required", "The length of the file is needed", detail));
    };
    let bad = |code: &str, detail: String| Refusal::new(StatusCode::BAD_REQUEST, code, "A header cannot be used", detail);
    let offset = match headers.get(header::CONTENT_RANGE) {
        None => 0,
        Some(value) => value.to_str().ok().and_then(|text| rest(text, length)).ok_or_else(|| {
            let got = shown(&String::from_utf8_lossy(value.as_bytes()));
            bad(
                "bad_range",
                format!(
                    "Content-Range has to be 'bytes FIRST-LAST/LENGTH' of the body of {length} bytes, to the end of the file; got {got}."
                ),
            )
        })?,
    };
    let expected = match headers.get(CONTENT_HASH) {
        None => None,
        Some(value) => {
            let hash = value.to_str().ok().and_then(|text| text.trim().strip_prefix("blake3:")?.parse::<Hash>().ok());
            Some(hash.ok_or_else(|| bad("bad_hash", "x-content-hash has to be 'blake3:' and 64 hex digits.".to_owned()))?)
        }
    };
    let executable = match headers.get(EXECUTABLE).map(|value| value.to_str().unwrap_or_default().trim().to_ascii_lowercase()) {
        None => false,
        Some(value) if ["true", "1"].contains(&value.as_str()) => true,
        Some(value) if ["false", "0"].contains(&value.as_str()) => false,
        Some(value) => {
            let refusal = bad("bad_header", format!("x-executable has to be true, false, 1 or 0; got {}.", shown(&value)));
            return Err(refusal);
        }
    };
    Ok(Parcel { path, length, executable, offset, expected })
}

/// Where a body of so many bytes begins that is the rest of a file.
fn rest(text: &str, length: u64) -> Option<u64> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (last.checked_add(1)? == size && first.checked_add(length)? == size && first <= last).then_some(first)
}

/// The refusal of an upload from a place where none broke off, with the place where one did.
async fn elsewhere(workspace: &Workspace<'_>, path: &str, refusal: Refusal) -> Response {
    let uploads = workspace.unfinished().await.unwrap_or_default();
    match uploads.into_iter().find(|upload| upload.path == path) {
        None => refusal.into_response(),
        Some(upload) => {
            let problem = refusal.problem().with("uploadOffset", upload.held).with("uploadLength", upload.size);
            let mut answer = problem.into_response();
            answer.headers_mut().insert(UPLOAD_OFFSET, HeaderValue::from(upload.held));
            answer.headers_mut().insert(UPLOAD_LENGTH, HeaderValue::from(upload.size));
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_file_reaches_to_its_end_and_is_as_long_as_the_body() {
        assert_eq!(rest("bytes 4-9/10", 6), Some(4));
        assert_eq!(rest("bytes 0-9/10", 10), Some(0));
        for text in
            ["bytes 4-8/10", "bytes 4-9/11", "bytes 5-9/10", "bytes 4-9/*", "bytes 9-4/10", "4-9/10", "bytes 4-18446744073709551615/10"]
        {
            assert_eq!(rest(text, 6), None, "{text}");
        }
        assert_eq!(rest("bytes 10-9/10", 0), None);
    }
}
