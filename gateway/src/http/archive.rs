//! `/api/sessions/{id}/archive`: a whole tree of a session's workspace as a tar archive, in one request, in and out.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http_body::Frame;
use orien_door::{Json, Path, Query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::files::{Pieces, acting, check, workspace};
use super::{Shared, incoming, session_id};
use crate::experience::Way;
use crate::files::tree::Unpacked;
use crate::rows::Refusal;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    /// A folder; without it the workspace itself.
    #[serde(default)]
    path: String,
}

/// What became of an archive.
#[derive(Serialize, ToSchema)]
#[schema(as = Unpacked)]
#[serde(rename_all = "camelCase")]
struct UnpackedJson {
    /// Files that were stored.
    files: u64,
    /// Folders that are there now because the archive names them.
    folders: u64,
    /// Bytes of the files.
    bytes: u64,
    /// What was not stored.
    problems: Vec<EntryProblemJson>,
    /// How many more were not.
    more_problems: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EntryProblem)]
struct EntryProblemJson {
    path: String,
    /// As in problems of requests.
    code: &'static str,
    detail: String,
}

impl From<Unpacked> for UnpackedJson {
    fn from(unpacked: Unpacked) -> Self {
        let Unpacked { files, folders, bytes, problems, more, .. } = unpacked;
        let problem = |problem: orien_protocol::frame::TreeProblem| EntryProblemJson {
            path: problem.path,
            code: problem.fault.code.name(),
            detail: problem.fault.text,
        };
        Self { files, folders, bytes, problems: problems.into_iter().map(problem).collect(), more_problems: more }
    }
}

/// Puts the files of a tar archive into a session's workspace.
#[utoipa::path(put, path = "/api/sessions/{id}/archive", operation_id = "putArchive", tag = "files", params(Root),
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "A tar archive, not compressed. Only regular files and folders with plain paths are taken."),
responses(
    (status = 200, description = "Everything is there.", body = UnpackedJson),
    (status = 207, description = "Everything is there but what `problems` names.", body = UnpackedJson),
    (status = 400, description = "`bad_path`, `invalid_query`, `bad_archive`: it is no tar archive, or not to its end; what came before is there."),
    (status = 404, description = "`session_not_found`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 413, description = "`too_large`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn unpack(
    State(app): Shared,
    Path(id): Path<String>,
    Query(root): Query<Root>,
    request: Request,
) -> Result<Response, Refusal> {
    if !root.path.is_empty() {
        check(&root.path)?;
    }
    let session = session_id(&id)?;
    let (workspace, began) = (workspace(&app, session).await?, Instant::now());
    let _acting = acting(&app, &session);
    let mut body = std::pin::pin!(incoming::bytes(request).peekable());
    if let Some(Ok(first)) = body.as_mut().peek().await
        && let Some(kind) = compression(first)
    {
        let detail = format!("This is {kind}; send the tar archive itself, not compressed. Nothing was stored.");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_archive", "The archive cannot be read", detail));
    }
    let unpacked = workspace.unpack(root.path, body).await?;
    if let Some(why) = &unpacked.broken {
        let Unpacked { files, folders, .. } = unpacked;
        let detail = format!("{why}; {files} files and {folders} folders before that were stored.");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_archive", "The archive cannot be read", detail));
    }
    app.sessions.directory.note_transfer(workspace.provider, Way::Up, unpacked.bytes, began.elapsed());
    let status = if unpacked.problems.is_empty() { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    Ok((status, Json(UnpackedJson::from(unpacked))).into_response())
}

/// What bytes are that begin as compressed ones do, and as no tar archive does.
fn compression(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "compressed with gzip"),
        (b"BZh", "compressed with bzip2"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"PK\x03\x04", "a zip archive"),
    ];
    kinds.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| kind)
}

/// Gets a tree out of a session's workspace as a tar archive.
#[utoipa::path(get, path = "/api/sessions/{id}/archive", operation_id = "getArchive", tag = "files", params(Root), responses(
    (status = 200, description = "The archive; links and devices are left out. It has its end only if everything that is in it has the right hash.",
        body = Vec<u8>, content_type = "application/x-tar"),
    (status = 400, description = "`bad_path`, `invalid_query`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn pack(State(app): Shared, Path(id): Path<String>, Query(root): Query<Root>) -> Result<Response, Refusal> {
    if !root.path.is_empty() {
        check(&root.path)?;
    }
    let session = session_id(&id)?;
    let packing = workspace(&app, session).await?.pack(root.path).await?;
    let acting = acting(&app, &session);
    let pieces =
        stream::try_unfold(packing, |mut packing| async move { Ok(packing.piece().await?.map(|piece| (Frame::data(piece), packing))) });
    let mut response = Body::new(Pieces { pieces: Box::pin(pieces), acting }).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}
