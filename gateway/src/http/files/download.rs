//! A file out of a workspace: whole or in part, or only looked at.
//!
//! Always true: of what is passed on as it comes, the last piece comes only when the hash is right, and a wrong one breaks the response off; a part is of the state of the file whose ETag
//! the answer has.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream};
use http_body::Frame;
use orien_door::{Json, Path, Query};
use orien_protocol::fault::FaultCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{CONTENT_HASH, EXECUTABLE, StateJson, UPLOAD_LENGTH, UPLOAD_OFFSET, acting, check, named, tag, workspace};
use crate::desk::Acting;
use crate::experience::Way;
use crate::files::{Download, FileError, Found, Part, Workspace};
use crate::http::{Shared, session_id};
use crate::rows::Refusal;

/// Downloads up to this size are checked before the answer begins.
const SMALL_BYTES: u64 = 1024 * 1024;
/// How often a part is asked for again because the file has changed between looking at it and reading it.
const ATTEMPTS: usize = 3;

#[derive(Deserialize, Default, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Look {
    /// Answers with what is known of the file or folder, not with its bytes.
    #[serde(default)]
    stat: bool,
    /// With `stat` or in a HEAD request: also its BLAKE3, for which the provider reads all of it.
    #[serde(default)]
    hash: bool,
    /// Answers with where an upload to this path broke off.
    #[serde(default)]
    upload: bool,
}

/// An upload that broke off.
#[derive(Serialize, ToSchema)]
#[schema(as = UnfinishedUpload)]
struct UnfinishedJson {
    path: String,
    /// Bytes that the provider holds: the next one to send.
    offset: u64,
    /// Bytes of the whole.
    length: u64,
}

/// Gets a file out of a session's workspace.
#[utoipa::path(get, path = "/api/sessions/{id}/files/{*path}", operation_id = "getFile", tag = "files", params(
    ("path" = String, Path, description = "Where it stands in the workspace.", example = "out/image.png"),
    Look,
    ("range" = Option<String>, Header, description = "One range of bytes, such as `bytes=1000-`; several are answered with the whole file."),
    ("if-range" = Option<String>, Header, description = "The ETag of an earlier answer: if the file is another now, all of it is answered."),
    ("if-none-match" = Option<String>, Header, description = "ETags that the caller has."),
), responses(
    (status = 200, description = "Its bytes.", content(
        (Vec<u8> = "application/octet-stream"), (StateJson = "application/json"),
    ), headers(
        ("etag" = String, description = "Another one after every change."),
        ("x-content-hash" = String, description = "Its hash; of a file of more than 1 MiB as a trailer, if the request takes trailers."),
    )),
    (status = 206, description = "The range.", body = Vec<u8>, content_type = "application/octet-stream", headers(
        ("content-range" = String, description = "Which bytes of how many."),
    )),
    (status = 304, description = "The file is one of `If-None-Match`."),
    (status = 400, description = "`bad_path`, `invalid_query`"),
    (status = 404, description = "`session_not_found`, `no_such_file`, `no_such_upload`"),
    (status = 409, description = "`wrong_state`: the session is not open yet. `file_changed`: it changes all the time."),
    (status = 410, description = "`session_ended`"),
    (status = 416, description = "`range_not_satisfiable`: the file ends before the range."),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(in crate::http) async fn download(
    State(app): Shared,
    Path((id, path)): Path<(String, String)>,
    Query(look): Query<Look>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    check(&path)?;
    let session = session_id(&id)?;
    let (workspace, began) = (workspace(&app, session).await?, Instant::now());
    let acting = acting(&app, &session);
    if look.upload {
        return Ok(Json(unfinished(&workspace, path).await?).into_response());
    }
    if look.stat {
        return Ok(Json(StateJson::from(workspace.stat(path, look.hash).await?)).into_response());
    }
    let (download, part) = match choose(&workspace, path, &headers).await? {
        Chosen::Bytes(download, part) => (download, part),
        Chosen::Answer(answer) => return Ok(*answer),
    };
    let length = download.length();
    let mut response = if length <= SMALL_BYTES {
        let answer = small(*download, part.is_none()).await?;
        app.sessions.directory.note_transfer(workspace.provider, Way::Down, length, began.elapsed());
        answer
    } else {
        let takes = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("trailers"));
        large(*download, part.is_none() && headers.get_all(header::TE).iter().any(takes), acting)
    };
    if let Some((first, size)) = part {
        let last = first.saturating_add(length).saturating_sub(1);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        put(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
    }
    Ok(response)
}

/// Looks at a file.
#[utoipa::path(head, path = "/api/sessions/{id}/files/{*path}", operation_id = "headFile", tag = "files", params(
    ("path" = String, Path, description = "Where it stands in the workspace.", example = "out/image.png"),
    Look,
), responses(
    (status = 200, description = "What a GET request would be answered with, without the bytes.", headers(
        ("content-length" = u64, description = "Bytes of the file."),
        ("etag" = String, description = "Another one after every change."),
        ("x-executable" = bool, description = "Whether tools may execute it."),
        ("x-content-hash" = String, description = "Its hash, with `hash=true`."),
        ("upload-offset" = u64, description = "With `upload=true`: bytes that the provider holds of an upload that broke off."),
        ("upload-length" = u64, description = "With `upload=true`: bytes of the whole."),
    )),
    (status = 400, description = "`bad_path`, `invalid_query`"),
    (status = 404, description = "`session_not_found`, `no_such_file`, `no_such_upload`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(in crate::http) async fn head(
    State(app): Shared,
    Path((id, path)): Path<(String, String)>,
    Query(look): Query<Look>,
) -> Result<Response, Refusal> {
    check(&path)?;
    let workspace = workspace(&app, session_id(&id)?).await?;
    let mut headers = HeaderMap::new();
    if look.upload {
        let upload = unfinished(&workspace, path).await?;
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.offset));
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(upload.length));
        return Ok(headers.into_response());
    }
    let found = workspace.stat(path, look.hash).await?;
    if found.entry.folder {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_path", "The path cannot be used", "a directory"));
    }
    describe(&mut headers, found.version);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(found.entry.size));
    headers.insert(EXECUTABLE, HeaderValue::from_static(if found.entry.executable { "true" } else { "false" }));
    if let Some(hash) = found.hash {
        put(&mut headers, CONTENT_HASH, &named(&hash));
    }
    Ok(headers.into_response())
}

async fn unfinished(workspace: &Workspace<'_>, path: String) -> Result<UnfinishedJson, Refusal> {
    let uploads = workspace.unfinished().await?;
    let found = uploads.into_iter().find(|upload| upload.path == path);
    let Some(found) = found else {
        let detail = "No upload to this path broke off; send the file from its beginning.";
        return Err(Refusal::not_found("no_such_upload", "There is no such upload", detail));
    };
    Ok(UnfinishedJson { path, offset: found.held, length: found.size })
}

/// What a request for bytes comes to.
enum Chosen {
    /// The bytes, and if they are a part, where it begins and how large the file is.
    Bytes(Box<Download>, Option<(u64, u64)>),
    Answer(Box<Response>),
}

async fn choose(workspace: &Workspace<'_>, path: String, headers: &HeaderMap) -> Result<Chosen, Refusal> {
    let range = headers.get(header::RANGE).and_then(|value| Range::read(value.to_str().ok()?));
    let known: Vec<_> = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).collect();
    for _ in 0..ATTEMPTS {
        let found = if range.is_none() && known.is_empty() { None } else { Some(workspace.stat(path.clone(), false).await?) };
        let mut part = Part::WHOLE;
        let mut shown = None;
        if let Some(Found { entry, version, .. }) = &found
            && !entry.folder
        {
            let own = tag(*version);
            if known.iter().flat_map(|value| value.split(',')).any(|one| one.trim() == own || one.trim() == "*") {
                let mut answer = StatusCode::NOT_MODIFIED.into_response();
                describe(answer.headers_mut(), *version);
                return Ok(Chosen::Answer(Box::new(answer)));
            }
            let is_current = headers.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == own.as_bytes());
            if let Some(range) = range.filter(|_| is_current) {
                let Some((offset, length)) = range.of(entry.size) else { return Ok(Chosen::Answer(Box::new(beyond(entry.size)))) };
                part = Part { offset, length, version: Some(*version) };
                shown = Some((offset, entry.size));
            }
        }
        match workspace.download(path.clone(), part).await {
            Err(FileError::Refused(fault)) if fault.code == FaultCode::FILE_CHANGED => {}
            download => return Ok(Chosen::Bytes(Box::new(download?), shown)),
        }
    }
    let detail = "It changes faster than it can be read; try again when the tool that writes it has ended.";
    Err(Refusal::new(StatusCode::CONFLICT, "file_changed", "The file has changed", detail))
}

fn beyond(size: u64) -> Response {
    let detail = format!("The file has {size} bytes.");
    let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "The file ends before the range", detail);
    let mut answer = refusal.into_response();
    put(answer.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
    answer
}

/// One range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl Range {
    /// None for what is no single range: the whole file is answered then.
    fn read(text: &str) -> Option<Self> {
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        match (first.trim(), last.trim()) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// First byte and length in a file of so many bytes; none if it is not in it.
    fn of(self, size: u64) -> Option<(u64, u64)> {
        let (first, end) = match self {
            Self::From(first) => (first, size),
            Self::Between(first, last) => (first, last.saturating_add(1).min(size)),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        (first < end).then(|| (first, end.saturating_sub(first)))
    }
}

async fn small(mut download: Download, is_whole: bool) -> Result<Response, Refusal> {
    let mut bytes = Vec::new();
    while let Some(piece) = download.piece().await? {
        bytes.extend_from_slice(&piece);
    }
    let mut response = bytes.into_response();
    describe(response.headers_mut(), download.version());
    if let Some(moved) = download.moved().filter(|_| is_whole) {
        put(response.headers_mut(), CONTENT_HASH, &named(&moved.hash));
    }
    Ok(response)
}

fn large(download: Download, trailers: bool, acting: Option<Acting>) -> Response {
    let (length, version) = (download.length(), download.version());
    let mut response = Body::new(Pieces { pieces: pieces(download, trailers), acting }).into_response();
    let headers = response.headers_mut();
    describe(headers, version);
    if trailers {
        headers.insert(header::TRAILER, HeaderValue::from_static("x-content-hash"));
    } else {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// What every answer says of a file.
fn describe(headers: &mut HeaderMap, version: u64) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    put(headers, header::ETAG, &tag(version));
}

/// Sets a header to a text of which we know that it can be one.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// A download as frames of a body; the last may be a trailer.
fn pieces(download: Download, trailers: bool) -> BoxStream<'static, Result<Frame<Bytes>, FileError>> {
    Box::pin(stream::try_unfold(Some(download), move |download| async move {
        let Some(mut download) = download else { return Ok(None) };
        if let Some(piece) = download.piece().await? {
            return Ok(Some((Frame::data(piece), Some(download))));
        }
        let value = download.moved().filter(|_| trailers).and_then(|moved| HeaderValue::try_from(named(&moved.hash)).ok());
        Ok(value.map(|value| (Frame::trailers(HeaderMap::from_iter([(CONTENT_HASH, value)])), None)))
    }))
}

/// A body that says in the log why it broke off.
pub(in crate::http) struct Pieces {
    pub(in crate::http) pieces: BoxStream<'static, Result<Frame<Bytes>, FileError>>,
    /// For as long as it is read.
    #[expect(dead_code, reason = "held, not looked at")]
    pub(in crate::http) acting: Option<Acting>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = FileError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FileError>>> {
        let next = self.pieces.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Err(error))) = &next {
            tracing::warn!(%error, "a download broke off");
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_standard_says_and_anything_else_is_the_whole_file() {
        let of = |text, size| Range::read(text).map(|range| range.of(size));
        for (text, expected) in [
            ("bytes=0-", Some((0, 10))),
            ("bytes=3-5", Some((3, 3))),
            ("bytes=9-", Some((9, 1))),
            ("bytes=3-99", Some((3, 7))),
            ("bytes=-4", Some((6, 4))),
            ("bytes=-99", Some((0, 10))),
            ("bytes=10-", None),
            ("bytes=-0", None),
            ("bytes=18446744073709551615-18446744073709551615", None),
        ] {
            assert_eq!(of(text, 10), Some(expected), "{text}");
        }
        assert_eq!(of("bytes=0-", 0), Some(None));
        for text in ["", "bytes=", "bytes=5-3", "bytes=a-", "bytes=+1-2", "lines=1-2", "bytes=0-1,3-4", "bytes=99999999999999999999-"] {
            assert_eq!(Range::read(text), None, "{text}");
        }
    }
}
