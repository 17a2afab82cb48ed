//! A door with routes of every kind behind it, and a client that writes its own bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures::StreamExt;
use orien_door::sse::{Event, Follow};
use orien_door::{
    Access, Caller, Door, DoorConfig, IdempotencyKey, Json, Path, Problem, Query, Reentry, RequestId, Scope, ServeError, Uptime, page,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// After this a test counts as hung. Nothing is measured by it.
pub(crate) const HUNG: Duration = Duration::from_secs(60);

pub(crate) struct House {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) token_file: String,
    pub(crate) cancel: CancellationToken,
    /// The route `/slow` answers when this is notified.
    pub(crate) finish_slow: Arc<Notify>,
    /// Notified when the route `/slow` has been entered.
    pub(crate) in_slow: Arc<Notify>,
    serving: JoinHandle<Result<(), ServeError>>,
    _directory: TempDir,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    pub(crate) async fn open_with(change: impl FnOnce(&mut DoorConfig)) -> Self {
        crate::log::begin();
        let directory = TempDir::new().unwrap();
        let mut config = DoorConfig::local(SocketAddr::from(([127, 0, 0, 1], 0)), directory.path().join("token"));
        change(&mut config);
        let door = Door::bind(config).await.unwrap().access(access()).open_route("/health").open_route("/again/{*path}");
        let (finish_slow, in_slow) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let cancel = CancellationToken::new();
        Self {
            address: door.address(),
            token: door.token().expose().to_owned(),
            token_file: door.token_file().display().to_string(),
            cancel: cancel.clone(),
            serving: tokio::spawn(door.serve(routes(&finish_slow, &in_slow), cancel)),
            finish_slow,
            in_slow,
            _directory: directory,
        }
    }

    /// A request with everything it needs, and `extra` header lines, each ended by CRLF.
    pub(crate) fn request(&self, line: &str, extra: &str, body: &str) -> String {
        let Self { address, token, .. } = self;
        let length = body.len();
        format!(
            "{line} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\
             connection: close\r\n{extra}\r\n{body}"
        )
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(&self.request(&format!("GET {path}"), "", "")).await
    }

    pub(crate) async fn post(&self, path: &str, extra: &str, body: &str) -> Answer {
        self.send(&self.request(&format!("POST {path}"), extra, body)).await
    }

    /// Sends bytes on a connection of their own and reads to its end.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        Answer::read(&mut stream).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) async fn assert_healthy(&self) {
        assert_eq!(self.get("/health").await.status, 200);
    }

    /// Stops the door and waits until it has.
    pub(crate) async fn close(self) {
        self.cancel.cancel();
        tokio::time::timeout(HUNG, self.serving).await.unwrap().unwrap().unwrap();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        tokio::time::timeout(HUNG, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        Self::parse(&String::from_utf8(bytes).unwrap())
    }

    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Asserts that this is a complete problem with this status and code, and gives its members.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let members = self.json();
        assert_eq!(members["code"], code);
        assert_eq!(members["status"], status);
        assert_eq!(members["type"], format!("urn:orien:problem:{code}"));
        assert!(members["title"].is_string());
        assert_eq!(members["requestId"].as_str(), self.header("x-request-id"));
        members
    }
}

/// Reads until what has come contains `text`.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    tokio::time::timeout(HUNG, async {
        while !String::from_utf8_lossy(&seen).contains(text) {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "closed before {text:?}");
        }
    })
    .await
    .unwrap();
    String::from_utf8(seen).unwrap()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    tool: String,
    seconds: u32,
}

#[derive(Deserialize)]
struct Page {
    limit: u32,
}

/// Comes in once more, for what the caller names, and tells how that went.
async fn again(Extension(door): Extension<Reentry>, Path(path): Path<String>) -> Result<String, StatusCode> {
    let request = axum::extract::Request::get(format!("/{path}")).body(Body::empty()).map_err(|_| StatusCode::BAD_REQUEST)?;
    let response = door.send(request).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 4096).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(format!("{status} {}", String::from_utf8_lossy(&body)))
}

fn routes(finish_slow: &Arc<Notify>, in_slow: &Arc<Notify>) -> Router {
    let (finish, entered, started) = (Arc::clone(finish_slow), Arc::clone(in_slow), Uptime::start());
    Router::new()
        .route("/health", get(move || async move { Json(started.health()) }).post(async || "changed"))
        .route("/id", get(async |id: RequestId| id.to_string()))
        .route("/number/{number}", get(async |Path(number): Path<u32>| number.to_string()))
        .route("/query", get(async |Query(page): Query<Page>| page.limit.to_string()))
        .route("/json", post(async |Json(run): Json<Run>| Json(run)))
        .route("/value", post(async |Json(value): Json<Value>| Json(value)))
        .route("/wide", post(async |Json(_): Json<Value>| "taken").layer(DefaultBodyLimit::max(4 * 1024 * 1024)))
        .route("/keyed", post(async |key: IdempotencyKey| key.to_string()))
        .route("/maybe", post(async |key: Option<IdempotencyKey>| key.map_or("none".to_owned(), |key| key.to_string())))
        .route("/upload", post(count_bytes))
        .route("/panic", get(panics))
        .route("/again/{*path}", get(again))
        .route("/who", get(who))
        .route("/key", post(async |key: IdempotencyKey| format!("{} {key}", key.caller())))
        .route("/bare", get(async || StatusCode::CONFLICT))
        .route("/poor", get(poor))
        .route("/page", get(async || page("a <b> & c", "<p>text</p>", None)))
        .route("/events", get(events))
        .route("/flood", get(async |follow: Follow| follow.respond(futures::stream::repeat_with(large))))
        .route("/quiet", get(async |follow: Follow| follow.respond(futures::stream::pending())))
        .route(
            "/slow",
            get(move || async move {
                entered.notify_one();
                finish.notified().await;
                "done"
            }),
        )
}

/// What the routes take; the others are left as they are.
fn access() -> Access {
    Access::new().post("/json", Scope::Run).post("/upload", Scope::Spend)
}

async fn who(caller: Caller) -> Json<Value> {
    Json(json!({ "id": caller.id(), "cap": caller.cap(), "runs": caller.holds(Scope::Run) }))
}

async fn count_bytes(body: Body) -> Result<String, StatusCode> {
    let mut count = 0;
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        count += piece.map_err(|_| StatusCode::BAD_REQUEST)?.len();
    }
    Ok(count.to_string())
}

#[expect(clippy::panic, reason = "a route that fails this way is what is tried")]
async fn panics() -> &'static str {
    panic!("a secret of the program")
}

async fn poor() -> Problem {
    Problem::new(StatusCode::PAYMENT_REQUIRED, "budget_exhausted", "The budget is used up")
        .detail("0.25 more is needed")
        .with("missing", json!("0.25"))
        .with("status", json!("replaced"))
        .retry_after_seconds(7)
}

/// An event of which a few fill any socket's buffers.
fn large() -> Event {
    Event::new("stdout", "x".repeat(0x10000))
}

async fn events(follow: Follow) -> axum::response::Response {
    let after = follow.last_event_id().unwrap_or(0);
    if after >= 3 {
        return follow.finished();
    }
    let replay = (after + 1..=3).map(|id| Event::numbered(id, "stdout", json!({ "text": format!("line\n{id}") })));
    follow.respond(futures::stream::iter(replay.chain([Event::new("end", json!({}))])))
}
