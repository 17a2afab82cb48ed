//! `/api/sessions/{id}/files`: what is in a session's workspace, in and out.
//!
//! A download of at most [`SMALL_BYTES`] carries its hash in the header `x-content-hash`. A larger one is passed on as it comes: with the hash as a trailer of that name if the caller takes trailers
//! (`TE: trailers`), with `Content-Length` otherwise; its last piece comes only when the hash is right, and a wrong one breaks the response off.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use futures::stream::{self, BoxStream};
use http_body::Frame;
use orien_door::{Json, Path, Query};
use orien_protocol::frame::FileEntry;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{App, Shared, session_id, shown};
use crate::decimal::Time;
use crate::desk::{Acting, Phase};
use crate::experience::Way;
use crate::files::{Download, FileError, Workspace, is_plain_path};
use crate::rows::Refusal;

/// Downloads up to this size are checked before the answer begins.
const SMALL_BYTES: u64 = 1024 * 1024;

const CONTENT_HASH: HeaderName = HeaderName::from_static("x-content-hash");
const EXECUTABLE: HeaderName = HeaderName::from_static("x-executable");

#[derive(Serialize, ToSchema)]
#[schema(as = StoredFile)]
pub(super) struct StoredJson {
    path: String,
    size: u64,
    hash: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FileList)]
pub(super) struct ListingJson {
    files: Vec<FileJson>,
    more: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = File)]
struct FileJson {
    path: String,
    size: u64,
    folder: bool,
    executable: bool,
    modified: Time,
}

impl From<FileEntry> for FileJson {
    fn from(entry: FileEntry) -> Self {
        Self { path: entry.path, size: entry.size, folder: entry.folder, executable: entry.executable, modified: Time(entry.modified) }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Below {
    #[serde(default)]
    path: String,
}

/// The files in a session's workspace.
#[utoipa::path(get, path = "/api/sessions/{id}/files", operation_id = "listFiles", tag = "files", params(Below), responses(
    (status = 200, description = "Files and folders.", body = ListingJson),
    (status = 400, description = "`bad_path`, `invalid_query`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn list(State(app): Shared, Path(id): Path<String>, Query(below): Query<Below>) -> Result<Json<ListingJson>, Refusal> {
    if !below.path.is_empty() {
        check(&below.path)?;
    }
    let (entries, more) = workspace(&app, session_id(&id)?).await?.list(below.path).await?;
    Ok(Json(ListingJson { files: entries.into_iter().map(FileJson::from).collect(), more }))
}

/// Puts a file into a session's workspace.
#[utoipa::path(put, path = "/api/sessions/{id}/files/{*path}", operation_id = "putFile", tag = "files", params(
    ("path" = String, Path, description = "Where it stands in the workspace.", example = "in/scene.blend"),
    ("x-executable" = Option<bool>, Header, description = "Whether tools may execute it."),
), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 201, description = "It is there, with this hash.", body = StoredJson),
    (status = 400, description = "`bad_path`, `wrong_length`, `unreadable_body`"),
    (status = 411, description = "`length_required`"),
    (status = 413, description = "`too_large`"),
    (status = 507, description = "`workspace_full`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn upload(
    State(app): Shared,
    Path((id, path)): Path<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<StoredJson>), Refusal> {
    check(&path)?;
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    let executable = headers.get(EXECUTABLE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let Some(length) = length else {
        let detail = "Send the length of the file in Content-Length; curl does with '-T FILE' or '--data-binary @FILE'.";
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, "length_required", "The length of the file is needed", detail));
    };
    let session = session_id(&id)?;
    let (workspace, began) = (workspace(&app, session).await?, Instant::now());
    let _acting = app.sessions.desk(&session).map(|desk| desk.act());
    let moved = workspace.upload(path.clone(), length, executable, request.into_body().into_data_stream()).await?;
    app.sessions.directory.note_transfer(workspace.provider, Way::Up, moved.length, began.elapsed());
    Ok((StatusCode::CREATED, Json(StoredJson { path, size: moved.length, hash: named(&moved.hash) })))
}

/// Gets a file out of a session's workspace.
#[utoipa::path(get, path = "/api/sessions/{id}/files/{*path}", operation_id = "getFile", tag = "files", params(
    ("path" = String, Path, description = "Where it stands in the workspace.", example = "out/image.png"),
), responses(
    (status = 200, description = "Its bytes.", body = Vec<u8>, content_type = "application/octet-stream", headers(
        ("x-content-hash" = String, description = "Its hash; of a file of more than 1 MiB as a trailer, if the request takes trailers."),
    )),
    (status = 400, description = "`bad_path`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn download(
    State(app): Shared,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    check(&path)?;
    let session = session_id(&id)?;
    let (workspace, began) = (workspace(&app, session).await?, Instant::now());
    let acting = app.sessions.desk(&session).map(|desk| desk.act());
    let download = workspace.download(path).await?;
    if download.length() <= SMALL_BYTES {
        let length = download.length();
        let answer = small(download).await?;
        app.sessions.directory.note_transfer(workspace.provider, Way::Down, length, began.elapsed());
        return Ok(answer);
    }
    let trailers = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("trailers"));
    let length = download.length();
    let mut response = Body::new(Pieces { pieces: pieces(download, trailers), _acting: acting }).into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if trailers {
        answer.insert(header::TRAILER, HeaderValue::from_static("x-content-hash"));
    } else {
        answer.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

async fn small(mut download: Download) -> Result<Response, Refusal> {
    let mut bytes = Vec::new();
    while let Some(piece) = download.piece().await? {
        bytes.extend_from_slice(&piece);
    }
    let hash = download.moved().map_or_else(String::new, |moved| named(&moved.hash));
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::ETAG, format!("\"{hash}\"")), (CONTENT_HASH, hash)];
    Ok((headers, bytes).into_response())
}

/// Removes a file or an empty folder from a session's workspace.
#[utoipa::path(delete, path = "/api/sessions/{id}/files/{*path}", operation_id = "deleteFile", tag = "files", params(
    ("path" = String, Path, description = "Where it stands in the workspace.", example = "in/scene.blend"),
), responses(
    (status = 204, description = "It is gone."),
    (status = 400, description = "`bad_path`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn remove(State(app): Shared, Path((id, path)): Path<(String, String)>) -> Result<StatusCode, Refusal> {
    check(&path)?;
    workspace(&app, session_id(&id)?).await?.remove(path).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(path: &str) -> Result<(), Refusal> {
    if is_plain_path(path) {
        return Ok(());
    }
    let detail = format!(
        "A path in the workspace has plain parts between single slashes, no '.' or '..' and no control characters; got {}.",
        shown(path)
    );
    Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_path", "The path cannot be used", detail))
}

/// The workspace of an open session.
async fn workspace(app: &App, session: SessionId) -> Result<Workspace<'_>, Refusal> {
    let view = app.view(session).await?;
    match view.phase {
        Phase::Open | Phase::Ending => Ok(Workspace { net: &app.sessions.context.net, provider: view.facts.provider, session }),
        Phase::Opening => {
            Err(Refusal::new(StatusCode::CONFLICT, "wrong_state", "This is not possible now", "The session is not open yet."))
        }
        Phase::Closed => {
            let detail = "The session has ended, and its workspace with it.";
            Err(Refusal::new(StatusCode::GONE, "session_ended", "The session has ended", detail))
        }
    }
}

fn named(hash: &Hash) -> String {
    format!("blake3:{hash}")
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

struct Pieces {
    pieces: BoxStream<'static, Result<Frame<Bytes>, FileError>>,
    /// A session is not idle while its files are read.
    _acting: Option<Acting>,
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
