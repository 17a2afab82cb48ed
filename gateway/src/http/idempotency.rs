//! Requests that can cost money are carried out once, however often they are sent.
//!
//! Always true: what a key stands for is decided before anything is done, and what is made under it has ids that follow from what was decided, so that a repetition after a crash
//! finds what the first attempt began. The first answer is given again, word for word; an answer that says "not now, nothing was done" (5xx) frees the key.
//!
//! The work runs in a task of its own: a caller that hangs up changes nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orien_bootstrap::clock;
use orien_door::IdempotencyKey;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::time::{Millis, UnixSeconds};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::rows::{KeptAnswer, KeyRow, Refusal};
use crate::store::{Put, Store, StoreError};

/// How long a key is kept: the longest session (8 h), the time for redemption after it (6 h), and a day.
const KEPT: Millis = Millis::from_secs((8 + 6 + 24) * 3600);
/// Requests under way at once; each holds a task.
const RUNNING_LIMIT: usize = 512;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A success: status and JSON body.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    status: StatusCode,
    body: String,
    /// Whether it is durable already, with what it is about.
    is_kept: bool,
}

impl Done {
    /// What is answered, as JSON.
    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    /// A body to be answered and kept.
    pub(crate) fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, Refusal> {
        let body = serde_json::to_string(body).map_err(|error| Refusal::internal(&error))?;
        Ok(Self { status, body, is_kept: false })
    }
}

/// What became of a request: its answer, first or again.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) acted: Result<Done, Refusal>,
    pub(crate) is_replayed: bool,
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let mut response = match self.acted {
            Ok(done) => answer(done),
            Err(refusal) => refusal.into_response(),
        };
        if self.is_replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// What a request that acts is given.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// What the ids of things made by the request follow from; unique, and its first bytes are a time.
    pub(crate) seed: [u8; 16],
    /// Whether the key was never seen: then nothing was begun under it.
    pub(crate) is_first: bool,
    key: Vec<u8>,
    row: KeyRow,
}

impl Ticket {
    /// To be made durable no later than the first effect of the request.
    pub(crate) fn mark(&self) -> Result<Put, StoreError> {
        Put::key(&self.key, &self.row)
    }

    /// The same for a request whose answer is known beforehand: it is durable with the first effect, and nothing is written for it afterwards.
    pub(crate) fn mark_answered(&self, done: Done) -> Result<(Put, Done), StoreError> {
        let done = Done { is_kept: true, ..done };
        Ok((Put::key(&self.key, &KeyRow { answer: Some(KeptAnswer::of(&done)), ..self.row.clone() })?, done))
    }
}

/// The keys that are being acted on, and the store that knows the others.
#[derive(Debug)]
pub(crate) struct Keys {
    store: Store,
    running: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    tasks: TaskTracker,
    /// Requests still under way are left as they stand; the next start finds what they began.
    abandoned: CancellationToken,
}

/// A key that is being acted on; free again when dropped.
struct Running {
    all: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    key: Vec<u8>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Keys {
    /// Nothing is under way.
    pub(crate) fn new(store: Store) -> Self {
        Self { store, running: Arc::default(), tasks: TaskTracker::new(), abandoned: CancellationToken::new() }
    }

    /// Waits for requests under way, for as long as `limit`; the others are left as they stand.
    pub(crate) async fn stop(&self, limit: Duration) {
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "some requests did not finish in time; their repetition finds what they began");
            self.abandoned.cancel();
            self.tasks.wait().await;
        }
    }

    /// Carries out a request once, and answers. `request` is everything that it says.
    pub(crate) async fn once<F, W>(&self, operation: &'static str, key: &IdempotencyKey, request: &[&[u8]], act: F) -> Response
    where
        F: FnOnce(Ticket) -> W,
        W: Future<Output = Result<Done, Refusal>> + Send + 'static,
    {
        self.outcome(operation, key, request, act).await.into_response()
    }

    /// Carries out a request once.
    pub(crate) async fn outcome<F, W>(&self, operation: &'static str, key: &IdempotencyKey, request: &[&[u8]], act: F) -> Outcome
    where
        F: FnOnce(Ticket) -> W,
        W: Future<Output = Result<Done, Refusal>> + Send + 'static,
    {
        let new = |acted| Outcome { acted, is_replayed: false };
        match self.begin(operation, key, request).await {
            Ok(Begun::Kept(answer)) => Outcome { acted: kept(answer), is_replayed: true },
            Ok(Begun::New(running, ticket)) => {
                let (store, task, abandoned) = (self.store.clone(), act(ticket.clone()), self.abandoned.clone());
                let acting = self.tasks.spawn(async move {
                    let acted = tokio::select! {
                        acted = task => acted,
                        // Not a word about it is kept: whatever it began is on disk, and the key still stands for it.
                        () = abandoned.cancelled() => return Err(stopping()),
                    };
                    let kept = finish(&store, ticket, &acted).await;
                    drop(running);
                    kept.map_err(Refusal::from).and(acted)
                });
                new(acting.await.unwrap_or_else(|error| Err(Refusal::internal(&error))))
            }
            Err(refusal) => new(Err(refusal)),
        }
    }

    async fn begin(&self, operation: &'static str, key: &IdempotencyKey, request: &[&[u8]]) -> Result<Begun, Refusal> {
        // Two callers that choose the same key never see each other's answers.
        let scope = format!("{}\0{operation}\0{key}", key.caller()).into_bytes();
        let running = self.claim(&scope)?;
        let hash = hash(operation, request);
        let now = clock::wall();
        let kept = self.store.key(scope.clone()).await?.filter(|row| row.until > now.seconds());
        let is_first = kept.is_none();
        let row = match kept {
            Some(row) if row.request != hash => {
                return Err(Refusal::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency_mismatch",
                    "The Idempotency-Key stands for another request",
                    "This key was used with another body or for another resource. Use a new key for a new request.",
                ));
            }
            Some(KeyRow { answer: Some(answer), .. }) => return Ok(Begun::Kept(answer)),
            Some(row) => row,
            None => KeyRow { request: hash, seed: seed()?, answer: None, until: now.plus(KEPT).seconds() },
        };
        Ok(Begun::New(running, Ticket { seed: row.seed, is_first, key: scope, row }))
    }

    fn claim(&self, key: &[u8]) -> Result<Running, Refusal> {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= RUNNING_LIMIT {
            let full = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Every place is taken", "Too many requests are under way.");
            return Err(Refusal { retry_after: Some(1), ..full });
        }
        if !all.insert(key.to_vec()) {
            let detail = "A request with this Idempotency-Key is still being carried out. Repeat it in a moment to get its answer.";
            let busy = Refusal::new(StatusCode::CONFLICT, "in_progress", "The same request is under way", detail);
            return Err(Refusal { retry_after: Some(1), ..busy });
        }
        Ok(Running { all: Arc::clone(&self.running), key: key.to_vec() })
    }

    /// Forgets keys whose time is over.
    pub(crate) async fn clean_up(&self, now: UnixSeconds) -> Result<(), StoreError> {
        self.store.write(vec![Put::forget_keys_before(now)]).await
    }
}

fn stopping() -> Refusal {
    let detail = "Repeat the request with the same Idempotency-Key when the gateway runs again.";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The gateway is stopping", detail)
}

enum Begun {
    Kept(KeptAnswer),
    New(Running, Ticket),
}

fn hash(operation: &str, request: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(operation.as_bytes()).chain(request.iter().copied()) {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    }
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

/// Unique, and sorting by time as ids do.
fn seed() -> Result<[u8; 16], Refusal> {
    let id = clock::random_id(SessionId::from_parts).map_err(|error| Refusal::internal(&error))?;
    Ok(*id.as_bytes())
}

impl KeptAnswer {
    fn of(done: &Done) -> Self {
        Self { status: done.status.as_u16(), body: Some(done.body.clone()), refusal: None }
    }
}

async fn finish(store: &Store, ticket: Ticket, acted: &Result<Done, Refusal>) -> Result<(), StoreError> {
    let answer = match acted {
        Err(refusal) if refusal.is_passing() => return store.write(vec![Put::forget_key(&ticket.key)]).await,
        Err(refusal) => KeptAnswer { status: refusal.status, body: None, refusal: Some(refusal.clone()) },
        Ok(done) if done.is_kept => return Ok(()),
        Ok(done) => KeptAnswer::of(done),
    };
    let row = KeyRow { answer: Some(answer), ..ticket.row };
    store.write(vec![Put::key(&ticket.key, &row)?]).await
}

fn kept(kept: KeptAnswer) -> Result<Done, Refusal> {
    match (kept.refusal, kept.body) {
        (Some(refusal), _) => Err(refusal),
        (None, body) => {
            let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
            Ok(Done { status, body: body.unwrap_or_default(), is_kept: true })
        }
    }
}

fn answer(done: Done) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (done.status, kind, done.body).into_response()
}

#[cfg(test)]
mod crashes;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::extract::FromRequestParts;
    use axum::http::Request;
    use serde_json::json;
    use tokio::sync::Notify;

    use super::*;

    pub(super) async fn key(text: &str) -> IdempotencyKey {
        let (mut parts, ()) = Request::builder().header("idempotency-key", text).body(()).unwrap().into_parts();
        <IdempotencyKey as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await.unwrap()
    }

    fn keys(store: &Store) -> Keys {
        Keys::new(store.clone())
    }

    pub(super) async fn body(response: Response) -> (u16, bool, String) {
        let (status, again) = (response.status().as_u16(), response.headers().contains_key(&REPLAYED));
        let bytes = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
        (status, again, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn count(keys: &Keys, name: &str, request: &[u8], calls: &AtomicU32) -> (u16, bool, String) {
        let number = calls.fetch_add(1, Ordering::Relaxed);
        let acting = |_| async move { Done::new(StatusCode::CREATED, &json!({ "call": number })) };
        body(keys.once("count", &key(name).await, &[request], acting).await).await
    }

    #[tokio::test]
    async fn the_same_request_gets_the_first_answer_also_after_a_restart_and_another_body_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let calls = AtomicU32::new(0);
        {
            let store = Store::open(&path, CancellationToken::new()).unwrap();
            let keys = keys(&store);
            assert_eq!(count(&keys, "a", b"x", &calls).await, (201, false, "{\"call\":0}".to_owned()));
            assert_eq!(count(&keys, "a", b"x", &calls).await, (201, true, "{\"call\":0}".to_owned()));
            assert_eq!(count(&keys, "b", b"x", &calls).await.0, 201);
            let (status, _, text) = count(&keys, "a", b"y", &calls).await;
            assert!(status == 422 && text.contains("idempotency_mismatch"), "{text}");
        }
        let store = Store::open(&path, CancellationToken::new()).unwrap();
        assert_eq!(count(&keys(&store), "a", b"x", &calls).await, (201, true, "{\"call\":0}".to_owned()));
    }

    #[tokio::test]
    async fn a_request_under_way_is_not_begun_again_and_a_caller_that_hangs_up_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), CancellationToken::new()).unwrap();
        let keys = Arc::new(keys(&store));
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let first = {
            let (keys, entered, go) = (Arc::clone(&keys), Arc::clone(&entered), Arc::clone(&go));
            tokio::spawn(async move {
                let acting = |_| async move {
                    entered.notify_one();
                    go.notified().await;
                    Done::new(StatusCode::OK, &json!({}))
                };
                keys.once("slow", &key("k").await, &[], acting).await
            })
        };
        entered.notified().await;
        let again = |keys: Arc<Keys>| async move {
            body(keys.once("slow", &key("k").await, &[], |_| async { Done::new(StatusCode::OK, &json!({})) }).await).await
        };
        let (status, _, text) = again(Arc::clone(&keys)).await;
        assert!(status == 409 && text.contains("in_progress"), "{text}");
        first.abort();
        go.notify_one();
        loop {
            let (status, replayed, _) = again(Arc::clone(&keys)).await;
            if status == 200 {
                assert!(replayed, "the first one was carried out");
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_refusal_is_kept_and_an_answer_that_nothing_was_done_frees_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), CancellationToken::new()).unwrap();
        let keys = keys(&store);
        let refuse = |status| move |_| async move { Err(Refusal::new(status, "code", "title", "detail")) };
        for (name, status, replayed) in [("poor", StatusCode::PAYMENT_REQUIRED, true), ("busy", StatusCode::SERVICE_UNAVAILABLE, false)] {
            let first = body(keys.once("op", &key(name).await, &[], refuse(status)).await).await;
            assert_eq!((first.0, first.1), (status.as_u16(), false));
            let again = body(keys.once("op", &key(name).await, &[], refuse(status)).await).await;
            assert_eq!((again.0, again.1), (status.as_u16(), replayed));
        }
    }

    #[tokio::test]
    async fn an_interrupted_request_is_taken_up_with_the_seed_it_began_with() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), CancellationToken::new()).unwrap();
        let begun = keys(&store).begin("op", &key("k").await, &[b"x"]).await.ok().unwrap();
        let Begun::New(running, ticket) = begun else { panic!("new") };
        store.write(vec![ticket.mark().unwrap()]).await.unwrap();
        drop(running);
        let Begun::New(_, again) = keys(&store).begin("op", &key("k").await, &[b"x"]).await.ok().unwrap() else { panic!("unanswered") };
        assert_eq!(again.seed, ticket.seed);
    }

    #[tokio::test]
    async fn a_request_that_a_stop_leaves_behind_keeps_its_key_and_its_seed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), CancellationToken::new()).unwrap();
        let (keys, entered) = (Arc::new(keys(&store)), Arc::new(Notify::new()));
        let (seeds, seed) = tokio::sync::oneshot::channel();
        let request = {
            let (keys, store, entered) = (Arc::clone(&keys), store.clone(), Arc::clone(&entered));
            tokio::spawn(async move {
                let acting = |ticket: Ticket| async move {
                    store.write(vec![ticket.mark()?]).await?;
                    seeds.send(ticket.seed).unwrap();
                    entered.notify_one();
                    std::future::pending().await
                };
                body(keys.once("op", &key("k").await, &[b"x"], acting).await).await
            })
        };
        entered.notified().await;
        keys.stop(Duration::ZERO).await;
        assert_eq!(request.await.unwrap().0, 503);
        let again = super::tests::keys(&store).begin("op", &key("k").await, &[b"x"]).await.ok().unwrap();
        let Begun::New(_, ticket) = again else { panic!("unanswered") };
        assert_eq!(ticket.seed, seed.await.unwrap());
    }

    #[tokio::test]
    async fn keys_are_forgotten_when_their_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), CancellationToken::new()).unwrap();
        let (keys, calls) = (keys(&store), AtomicU32::new(0));
        count(&keys, "a", b"x", &calls).await;
        keys.clean_up(clock::wall().seconds()).await.unwrap();
        assert!(count(&keys, "a", b"x", &calls).await.1);
        keys.clean_up(clock::wall().plus(KEPT).plus(Millis(1000)).seconds()).await.unwrap();
        assert!(!count(&keys, "a", b"x", &calls).await.1);
    }
}
