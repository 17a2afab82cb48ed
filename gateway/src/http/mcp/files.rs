//! `put_file`, `get_file` and `list_files`.
//!
//! Always true: small files travel inline, for a model; large ones have an address, for a program.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use rmcp::model::Resource;

use super::api::{ask, query, segment, tail};
use super::call::Call;
use super::failure::Failure;
use super::inputs::{GetFile, ListFiles, PutFile};
use super::reply::Reply;
use super::shapes::{FileLine, Files, ListingIn, Piece, Stored, StoredIn};

/// Bytes of a file in an answer unless the caller says another number, and the most.
const PIECE_BYTES: (u32, u32) = (8192, 16384);
/// Largest file that is taken inline; what is larger goes through the API.
const PUT_BYTES: usize = 1024 * 1024;
/// Files in an answer.
const FILES_LISTED: usize = 200;

/// Where a file is found by a program.
pub(super) fn address(call: &Call, session: &str, path: &str) -> String {
    format!("{}{}", call.api.base(), place(session, path))
}

fn place(session: &str, path: &str) -> String {
    format!("/api/sessions/{}/files/{}", segment(session), tail(path))
}

pub(super) async fn list(call: &Call, input: ListFiles) -> Result<Reply, Failure> {
    let parts = query(&[("path", input.path.filter(|path| !path.is_empty())), ("cursor", input.cursor)]);
    let listing: ListingIn = call.api.get(&format!("/api/sessions/{}/files{parts}", segment(&input.session_id))).await?;
    let more = listing.more || listing.next_cursor.is_some() || listing.files.len() > FILES_LISTED;
    let line = |file: super::shapes::FileIn| FileLine { path: file.path, bytes: file.size, folder: file.folder };
    let files: Vec<FileLine> = listing.files.into_iter().take(FILES_LISTED).map(line).collect();
    let mut text = format!("{} entries{}", files.len(), if more { ", and more" } else { "" });
    for file in &files {
        let size = if file.folder { "folder".to_owned() } else { format!("{} bytes", file.bytes) };
        text.push_str(&format!("\n- {} ({size})", file.path));
    }
    Reply::new(text, &Files { files, next_cursor: listing.next_cursor, more })
}

pub(super) async fn put(call: &Call, input: PutFile) -> Result<Reply, Failure> {
    let bytes = match (input.text, input.base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(text)) => {
            BASE64.decode(text.trim()).map_err(|error| Failure::new("invalid_arguments", format_args!("base64: {error}")))?
        }
        _ => return Err(Failure::new("invalid_arguments", "give the content either as text or as base64")),
    };
    if bytes.len() > PUT_BYTES {
        let detail = format!(
            "{} bytes are too many for a message, the limit is {PUT_BYTES}: PUT them to {} or use `orien session cp`",
            bytes.len(),
            address(call, &input.session_id, &input.path)
        );
        return Err(Failure::new("too_large", detail));
    }
    let request = ask(Method::PUT, &place(&input.session_id, &input.path))
        .header(header::CONTENT_LENGTH, bytes.len())
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("x-executable", if input.executable { "true" } else { "false" })
        .body(Body::from(bytes))
        .map_err(|error| Failure::internal(&error))?;
    let response = call.api.send(request).await?;
    let body = axum::body::to_bytes(response.into_body(), 64 * 1024).await.map_err(|_| Failure::unreachable("its answer broke off"))?;
    let stored: StoredIn = serde_json::from_slice(&body).map_err(|error| Failure::internal(&error))?;
    let text = format!("Stored {} bytes as {}", stored.size, input.path);
    Reply::new(text, &Stored { path: input.path, bytes: stored.size, hash: stored.hash })
}

pub(super) async fn get(call: &Call, input: GetFile) -> Result<Reply, Failure> {
    let limit = usize::try_from(input.max_bytes.unwrap_or(PIECE_BYTES.0).clamp(1, PIECE_BYTES.1)).unwrap_or_default();
    let offset = input.offset.unwrap_or(0);
    let (mut bytes, whole) = read(call, &place(&input.session_id, &input.path), offset, limit).await?;
    let end = |bytes: &[u8]| offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    let goes_on = end(&bytes) < whole;
    let text = text_of(&mut bytes, goes_on);
    let next_offset = end(&bytes);
    let truncated = next_offset < whole;
    let base64 = text.is_none().then(|| BASE64.encode(&bytes));
    let kind = if text.is_some() { "text" } else { "base64" };
    let mut shown = format!("{}: bytes {offset} to {next_offset} of {whole}, as {kind}", input.path);
    if let Some(content) = text.as_ref().or(base64.as_ref()) {
        shown.push_str(&format!("\n---\n{content}"));
    }
    let mut links = Vec::new();
    if truncated || offset > 0 {
        let link = Resource::new(address(call, &input.session_id, &input.path), input.path.clone());
        links.push(link.with_size(whole).with_description("The whole file; GET it with the gateway's token"));
    }
    Reply::with_links(shown, &Piece { path: input.path, bytes: whole, offset, truncated, next_offset, text, base64 }, links)
}

/// A piece of a file, and how large the whole is.
pub(super) async fn read(call: &Call, place: &str, offset: u64, limit: usize) -> Result<(Vec<u8>, u64), Failure> {
    let last = offset.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX)).saturating_sub(1);
    let mut request = ask(Method::GET, place);
    if offset > 0 {
        request = request.header(header::RANGE, format!("bytes={offset}-{last}"));
    }
    let response = call.api.send(request.body(Body::empty()).map_err(|error| Failure::internal(&error))?).await?;
    let ranged = response.status() == axum::http::StatusCode::PARTIAL_CONTENT;
    let announced = whole_length(response.headers(), ranged);
    // A door that does not know ranges answers with everything.
    let mut skip = if ranged { 0 } else { offset };
    let (mut bytes, mut seen) = (Vec::new(), if ranged { offset } else { 0 });
    let mut stream = response.into_body().into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece: Bytes = piece.map_err(|_| Failure::unreachable("the transfer broke off"))?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        seen = seen.saturating_add(length);
        let from = usize::try_from(skip.min(length)).unwrap_or_default();
        skip = skip.saturating_sub(length);
        let room = limit.saturating_sub(bytes.len());
        bytes.extend(piece.iter().skip(from).take(room));
        if bytes.len() >= limit && announced.is_some() {
            break;
        }
    }
    Ok((bytes, announced.unwrap_or(seen)))
}

fn whole_length(headers: &HeaderMap, ranged: bool) -> Option<u64> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if ranged { text(header::CONTENT_RANGE)?.rsplit('/').next()?.parse().ok() } else { text(header::CONTENT_LENGTH)?.parse().ok() }
}

/// The bytes as text, if they are; a character that was cut in two at the end is left for the next piece.
pub(super) fn text_of(bytes: &mut Vec<u8>, cut: bool) -> Option<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        Err(error) if cut && error.error_len().is_none() && error.valid_up_to() > 0 => {
            bytes.truncate(error.valid_up_to());
            String::from_utf8(bytes.clone()).ok()
        }
        Err(_) => None,
    }
    .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_not_cut_in_two_and_other_bytes_are_no_text() {
        let whole = "a\u{e4}b".as_bytes();
        let mut piece = whole[..2].to_vec();
        assert_eq!(text_of(&mut piece, true).as_deref(), Some("a"));
        assert_eq!(piece.len(), 1);
        assert_eq!(text_of(&mut whole[..2].to_vec(), false), None);
        assert_eq!(text_of(&mut whole.to_vec(), false).as_deref(), Some("a\u{e4}b"));
        assert_eq!(text_of(&mut vec![0xff, 0xfe], true), None);
        assert_eq!(text_of(&mut b"a\0b".to_vec(), false), None);
        assert_eq!(text_of(&mut Vec::new(), false).as_deref(), Some(""));
    }
}
