//! `/api/sessions/{id}/files`: what is in a session's workspace, in and out.
//!
//! Always true: an upload that breaks off is kept by the provider, and goes on where it ended if it is sent from there; a part of a file is answered only for the state of the file that was asked
//! for, so that a download that goes on later has no bytes of another file in it.

mod download;
mod preconditions;
mod upload;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use orien_door::{Path, Query};
use orien_protocol::frame::FileEntry;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub(super) use download::{__path_download, __path_head, Pieces, download, head};
pub(super) use upload::{__path_upload, upload};

use super::lists::{Has, answer, cursor, page, page_size};
use super::{App, Shared, session_id, shown};
use crate::decimal::Time;
use crate::desk::{Acting, Phase};
use crate::files::{FileError, Found, Workspace, is_plain_path};
use crate::rows::Refusal;

const CONTENT_HASH: HeaderName = HeaderName::from_static("x-content-hash");
const EXECUTABLE: HeaderName = HeaderName::from_static("x-executable");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// Entries in one page of a listing: as many as a provider gives at once.
const PAGE_USUAL: usize = 1000;

#[derive(Serialize, ToSchema)]
#[schema(as = FileList)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListingJson {
    files: Vec<FileJson>,
    /// Whether there are more.
    more: bool,
    next_cursor: Option<String>,
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

/// One file or folder, looked at.
#[derive(Serialize, ToSchema)]
#[schema(as = FileState)]
struct StateJson {
    #[serde(flatten)]
    #[schema(inline)]
    file: FileJson,
    /// Another one after every change.
    etag: String,
    /// If it was asked for.
    hash: Option<String>,
}

impl From<Found> for StateJson {
    fn from(found: Found) -> Self {
        Self { etag: tag(found.version), hash: found.hash.as_ref().map(named), file: found.entry.into() }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Below {
    /// A folder; without it all of the workspace.
    #[serde(default)]
    path: String,
    /// At most so many entries; the provider may give fewer.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Where a listing goes on: after this path.
struct After(String);

impl std::str::FromStr for After {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let path = String::from_utf8(hex::decode(text).map_err(drop)?).map_err(drop)?;
        if is_plain_path(&path) { Ok(Self(path)) } else { Err(()) }
    }
}

/// The files in a session's workspace.
#[utoipa::path(get, path = "/api/sessions/{id}/files", operation_id = "listFiles", tag = "files", params(Below), responses(
    (status = 200, description = "Files and folders, in the order of a walk.", body = ListingJson, headers(("etag" = String, description = "Of this list."))),
    (status = 304, description = "The list is the one of `If-None-Match`."),
    (status = 400, description = "`bad_path`, `invalid_query`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet."),
    (status = 410, description = "`session_ended`"),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn list(State(app): Shared, Path(id): Path<String>, Query(below): Query<Below>, has: Has) -> Result<Response, Refusal> {
    if !below.path.is_empty() {
        check(&below.path)?;
    }
    let limit = page_size(below.limit, PAGE_USUAL, PAGE_USUAL)?;
    let after = cursor::<After>(below.cursor.as_deref())?.map(|After(path)| path);
    let (entries, more) = workspace(&app, session_id(&id)?).await?.list(below.path, after).await?;
    let next = |path: &str| hex::encode(path);
    let (entries, cut) = page(entries, limit, |entry| next(&entry.path));
    let last = entries.last().filter(|_| more).map(|entry| next(&entry.path));
    let next_cursor = cut.or(last);
    answer(&has, &ListingJson { files: entries.into_iter().map(FileJson::from).collect(), more: next_cursor.is_some(), next_cursor })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    /// Whether a folder is removed with everything in it.
    #[serde(default)]
    recursive: bool,
}

/// Removes a file or an empty folder from a session's workspace, or a folder with everything in it.
#[utoipa::path(delete, path = "/api/sessions/{id}/files/{*path}", operation_id = "deleteFile", tag = "files", params(
    ("path" = String, Path, description = "Where it stands in the workspace.", example = "in/scene.blend"),
    Removal,
    ("if-match" = Option<String>, Header, description = "ETags, or `*`: nothing is done unless the file is one of them, or is there."),
    ("if-none-match" = Option<String>, Header, description = "ETags, or `*`: nothing is done if the file is one of them, or is there."),
), responses(
    (status = 204, description = "It is gone, and so is an upload to it that broke off."),
    (status = 400, description = "`bad_path`, `invalid_query`"),
    (status = 404, description = "`session_not_found`, `no_such_file`"),
    (status = 409, description = "`wrong_state`: the session is not open yet. `folder_not_empty`: there is something in it, and nobody said that it may go too."),
    (status = 410, description = "`session_ended`"),
    (status = 412, description = "`precondition_failed`: `if-match` or `if-none-match` does not hold."),
    (status = 502, description = "`provider_unreachable`, `transfer_interrupted`, `hash_mismatch`"),
    (status = 503, description = "`busy`"),
))]
pub(super) async fn remove(
    State(app): Shared,
    Path((id, path)): Path<(String, String)>,
    Query(removal): Query<Removal>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    check(&path)?;
    let workspace = workspace(&app, session_id(&id)?).await?;
    preconditions::check(&workspace, &path, &headers).await?;
    if !removal.recursive {
        check_empty(&workspace, &path).await?;
    }
    workspace.remove(path).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a folder that has something in it. The provider removes whatever it is told to, so this looks first: one gateway owns the session, and what a tool adds to the folder in this
/// moment goes with it. Links are in no listing, so a folder that holds nothing else counts as empty.
async fn check_empty(workspace: &Workspace<'_>, path: &str) -> Result<(), Refusal> {
    let (entries, more) = match workspace.list(path.to_owned(), None).await {
        Ok(listed) => listed,
        // A link, nothing at all, or an upload that broke off: what can be removed is the provider's to say.
        Err(FileError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match entries.iter().find(|entry| entry.path != path) {
        None if !more => Ok(()),
        found => {
            let such = found.map(|entry| format!(", such as {}", shown(&entry.path))).unwrap_or_default();
            let detail = format!("There is something in the folder{such}; `recursive=true` removes it with everything in it.");
            Err(Refusal::new(StatusCode::CONFLICT, "folder_not_empty", "The folder is not empty", detail))
        }
    }
}

pub(super) fn check(path: &str) -> Result<(), Refusal> {
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
pub(super) async fn workspace(app: &App, session: SessionId) -> Result<Workspace<'_>, Refusal> {
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

/// A session is not idle while its files are on their way.
pub(super) fn acting(app: &App, session: &SessionId) -> Option<Acting> {
    app.sessions.desk(session).map(|desk| desk.act())
}

fn named(hash: &Hash) -> String {
    format!("blake3:{hash}")
}

/// The ETag of a state of a file.
fn tag(version: u64) -> String {
    format!("\"{version:016x}\"")
}
