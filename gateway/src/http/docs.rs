//! `/docs`: the description of the API as pages that can be tried out, out of this program alone.
//!
//! Always true: nothing is loaded from anywhere else, and no script runs that is not a file of this address. Only the pages' own styles are let through inline, because the viewer sets
//! them while it runs.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use orien_door::Path;
use utoipa_swagger_ui::{Config, serve};

use crate::rows::Refusal;

/// Where the pages are, and the files that they are made of.
pub(super) const OPEN: [&str; 2] = ["/docs", "/docs/{file}"];

/// Files of the viewer that the page needs; there are others, and nobody else needs them.
const FILES: [(&str, &str); 3] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ("favicon-32x32.png", "image/png"),
];

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; form-action 'none'; \
     base-uri 'none'; frame-ancestors 'none'",
);

const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>ORIEN gateway API</title>\n\
    <link rel=\"icon\" type=\"image/png\" href=\"/docs/favicon-32x32.png\">\n<link rel=\"stylesheet\" href=\"/docs/swagger-ui.css\">\n</head>\n<body>\n\
    <noscript>These pages need JavaScript; the same is in <a href=\"/openapi.json\">/openapi.json</a>.</noscript>\n<div id=\"viewer\"></div>\n\
    <script src=\"/docs/swagger-ui-bundle.js\"></script>\n<script src=\"/docs/start.js\"></script>\n</body>\n</html>\n";

/// Starts the viewer. What is tried out goes to this address, with the token that the reader gives.
const START: &str = "window.addEventListener('load', () => {\n  window.viewer = SwaggerUIBundle({\n    url: '/openapi.json',\n    dom_id: '#viewer',\n    \
    deepLinking: true,\n    validatorUrl: null,\n    presets: [SwaggerUIBundle.presets.apis],\n    layout: 'BaseLayout',\n    displayRequestDuration: true,\n    \
    tryItOutEnabled: true,\n  });\n});\n";

/// This description, for people, with every request to be tried out.
#[utoipa::path(get, path = "/docs", operation_id = "getDocs", tag = "gateway", responses(
    (status = 200, description = "A page.", body = String, content_type = "text/html"),
))]
pub(super) async fn page() -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    ([(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)], PAGE).into_response()
}

/// A file that the page is made of.
#[utoipa::path(get, path = "/docs/{file}", operation_id = "getDocsFile", tag = "gateway", params(
    ("file" = String, Path, description = "Its name.", example = "start.js"),
), responses(
    (status = 200, description = "The file.", content((String = "text/javascript"), (String = "text/css"), (String = "image/png"))),
    (status = 404, description = "`not_found`"),
))]
pub(super) async fn file(Path(name): Path<String>) -> Result<Response, Refusal> {
    if name == "start.js" {
        return Ok(answer("text/javascript; charset=utf-8", START.as_bytes().to_vec()));
    }
    let known = FILES.iter().find(|(known, _)| *known == name);
    let served = known.and_then(|(name, kind)| Some((kind, serve(name, Config::default().into()).ok()??)));
    match served {
        Some((kind, file)) => Ok(answer(kind, file.bytes.into_owned())),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "There is nothing here", "The pages have no such file.")),
    }
}

fn answer(kind: &'static str, bytes: Vec<u8>) -> Response {
    // The same until the program is another one; a reader asks again after an hour.
    let keep = HeaderValue::from_static("private, max-age=3600");
    ([(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, keep)], bytes).into_response()
}
