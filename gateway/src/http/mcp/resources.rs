//! Files and logs as resources: what tool results link to can be read through the same connection, as long as it is small.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, ResourceContents, ResourceTemplate};

use super::call::Call;
use super::failure::Failure;
use super::files::{read, text_of};

/// Largest resource that is read through a message.
const RESOURCE_BYTES: usize = 256 * 1024;

/// What addresses of resources look like.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new("{gateway}/api/sessions/{session_id}/files/{+path}", "file")
            .with_title("File of a session")
            .with_description("A file in the workspace of an ORIEN session, as get_file links to it"),
    ]
}

/// Reads what a result linked to.
pub(super) async fn read_resource(call: &Call, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let unknown =
        || ErrorData::resource_not_found(format!("{} is no file of a session here", uri.chars().take(200).collect::<String>()), None);
    let path = uri.strip_prefix(&call.api.base()).ok_or_else(unknown)?;
    if !is_file(path) {
        return Err(unknown());
    }
    let (mut bytes, whole) = read(call, path, 0, RESOURCE_BYTES).await.map_err(|failure| told(&failure))?;
    if usize::try_from(whole).unwrap_or(usize::MAX) > RESOURCE_BYTES {
        return Err(ErrorData::invalid_params(
            format!("{whole} bytes are too many for a message: GET {uri} with the gateway's token"),
            None,
        ));
    }
    let contents = match text_of(&mut bytes, false) {
        Some(text) => ResourceContents::text(text, uri),
        None => ResourceContents::blob(BASE64.encode(&bytes), uri).with_mime_type("application/octet-stream"),
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

/// Whether a path is that of a file in a session, and cannot be taken for anything else.
fn is_file(path: &str) -> bool {
    let mut parts = path.strip_prefix("/api/sessions/").unwrap_or_default().splitn(3, '/');
    let (session, files, file) = (parts.next().unwrap_or_default(), parts.next(), parts.next().unwrap_or_default());
    let plain = path.split('/').all(|part| part != ".." && part != ".") && path.bytes().all(|byte| byte.is_ascii_graphic());
    plain && !session.is_empty() && files == Some("files") && !file.is_empty() && !path.contains(['?', '#'])
}

/// A failure as an error of the protocol, for requests that are no tool calls.
pub(super) fn told(failure: &Failure) -> ErrorData {
    let result = failure.clone().result();
    let text = result.content.first().and_then(|content| content.as_text()).map(|text| text.text.clone()).unwrap_or_default();
    match failure.code() {
        "no_such_file" | "session_not_found" | "execution_not_found" => ErrorData::resource_not_found(text, result.structured_content),
        _ => ErrorData::internal_error(text, result.structured_content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_sessions_are_resources() {
        assert!(is_file("/api/sessions/s/files/a") && is_file("/api/sessions/s/files/a/b%20c"));
        for path in [
            "/api/tokens",
            "/api/sessions/s",
            "/api/sessions/s/files/",
            "/api/sessions/s/files/../../x",
            "/api/sessions//files/a",
            "/api/sessions/s/files/a?x",
            "/api/sessions/s/end/a",
            "",
        ] {
            assert!(!is_file(path), "{path}");
        }
    }
}
