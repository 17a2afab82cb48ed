//! One node: a question with its time-out, its repetitions and its place in the queue.
//!
//! Always true: at most so many questions are under way; a node that asks for patience gets it, up to a limit; what a node says in an error is cut short
//! before anybody sees it. It does not know what any answer means.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_json_rpc::{ErrorPayload, RpcError, RpcRecv, RpcSend};
use alloy_rpc_client::RpcClient;
use alloy_transport::{TransportError, TransportErrorKind};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::transport::{BoundedHttp, Oversized};
use crate::error::ChainError;
use crate::facts::{ChainLimits, RpcUrl};
use crate::receipts::Unfinished;

/// How long a node that did not answer is asked last.
const SHUNNED: Duration = Duration::from_secs(30);

/// Answers after which a node is asked for the logs of more blocks at once again.
const LENGTHEN_AFTER: u64 = 8;

/// Longest text of a node's that is kept.
const TEXT_LIMIT: usize = 300;

/// Longest data of a revert that is kept: an error of a contract has a few words.
const REVERT_LIMIT: usize = 4096;

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    client: RpcClient,
    /// The same with room for all of a block.
    wide: RpcClient,
    limits: ChainLimits,
    places: Semaphore,
    born: Instant,
    /// Milliseconds after `born` until which it is asked last.
    shunned_until: AtomicU64,
    /// The same for one that knows older blocks than others, whatever it answers.
    late_until: AtomicU64,
    /// Most blocks whose logs it gave at once since it refused more.
    log_blocks: AtomicU64,
    /// How often it gave that many since it last refused.
    log_answers: AtomicU64,
    /// The block whose receipts were not read to their end.
    unfinished: Mutex<Option<Unfinished>>,
}

impl Node {
    pub(crate) fn new(url: &RpcUrl, limits: &ChainLimits) -> Result<Self, ChainError> {
        let client = |limit| Ok::<_, ChainError>(RpcClient::new(BoundedHttp::new(url, limits, limit)?, url.is_loopback()));
        Ok(Self(Arc::new(Inner {
            name: url.host(),
            client: client(limits.answer_bytes)?,
            wide: client(limits.block_bytes)?,
            limits: *limits,
            places: Semaphore::new(limits.in_flight.max(1)),
            born: Instant::now(),
            shunned_until: AtomicU64::new(0),
            late_until: AtomicU64::new(0),
            log_blocks: AtomicU64::new(limits.log_blocks.max(1)),
            log_answers: AtomicU64::new(0),
            unfinished: Mutex::default(),
        })))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// For how many blocks it is asked for logs at once.
    pub(crate) fn log_blocks(&self) -> u64 {
        self.0.log_blocks.load(Ordering::Relaxed)
    }

    /// Notes that it does not give the logs of more blocks at once.
    pub(crate) fn shorten_logs(&self, blocks: u64) {
        self.0.log_blocks.fetch_min(blocks.max(1), Ordering::Relaxed);
        self.0.log_answers.store(0, Ordering::Relaxed);
    }

    /// Notes that it gave so many. After some such answers it is asked for twice as many again: it may have refused for what was in a block, and not for their number.
    pub(crate) fn lengthen_logs(&self) {
        if self.0.log_answers.fetch_add(1, Ordering::Relaxed) + 1 >= LENGTHEN_AFTER {
            let more = self.log_blocks().saturating_mul(2).min(self.0.limits.log_blocks.max(1));
            self.0.log_blocks.store(more, Ordering::Relaxed);
            self.0.log_answers.store(0, Ordering::Relaxed);
        }
    }

    /// Where the reading of a block's receipts is kept while it is not at its end.
    pub(crate) fn unfinished(&self) -> MutexGuard<'_, Option<Unfinished>> {
        self.0.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it failed to answer lately, or stands behind others.
    pub(crate) fn is_shunned(&self) -> bool {
        let until = self.0.shunned_until.load(Ordering::Relaxed).max(self.0.late_until.load(Ordering::Relaxed));
        self.age() < until
    }

    /// Notes that it stands behind others: for a while it is asked last.
    pub(crate) fn is_late(&self) {
        self.0.late_until.store(self.after_shunning(), Ordering::Relaxed);
    }

    fn after_shunning(&self) -> u64 {
        self.age().saturating_add(u64::try_from(SHUNNED.as_millis()).unwrap_or(u64::MAX))
    }

    fn age(&self) -> u64 {
        u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn malformed(&self, method: &'static str, reason: impl ToString) -> ChainError {
        ChainError::Malformed { rpc: self.0.name.clone(), method, reason: cut(&reason.to_string()) }
    }

    /// Asks, and asks again when the node wants that or did not answer.
    pub(crate) async fn ask<P, R>(&self, method: &'static str, params: P) -> Result<R, ChainError>
    where
        P: RpcSend + Clone + Unpin + 'static,
        R: RpcRecv,
    {
        self.ask_times(&self.0.client, method, params, self.0.limits.attempts).await
    }

    /// Asks what may have a long answer, which is handed out as it came: it can be looked through without taking it apart first.
    pub(crate) async fn ask_wide<P>(&self, method: &'static str, params: P) -> Result<Box<RawValue>, ChainError>
    where
        P: RpcSend + Clone + Unpin + 'static,
    {
        self.ask_times(&self.0.wide, method, params, self.0.limits.attempts).await
    }

    /// Asks, and asks again only when the node wants that: for what may have been done although nothing was heard.
    pub(crate) async fn tell<P, R>(&self, method: &'static str, params: P) -> Result<R, ChainError>
    where
        P: RpcSend + Clone + Unpin + 'static,
        R: RpcRecv,
    {
        self.ask_times(&self.0.client, method, params, 1).await
    }

    async fn ask_times<P, R>(&self, client: &RpcClient, method: &'static str, params: P, unanswered_max: u32) -> Result<R, ChainError>
    where
        P: RpcSend + Clone + Unpin + 'static,
        R: RpcRecv,
    {
        let limits = &self.0.limits;
        let mut pause = limits.pause;
        let mut attempt = 1;
        loop {
            let failure = match self.once(client, method, params.clone()).await {
                Ok(answer) => {
                    self.0.shunned_until.store(0, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let attempts = match failure.error {
                ChainError::RateLimited { .. } => limits.attempts,
                ChainError::Unanswered { .. } if failure.again => unanswered_max,
                _ => 1,
            };
            if attempt >= attempts {
                if matches!(failure.error, ChainError::Unanswered { .. } | ChainError::RateLimited { .. }) {
                    self.0.shunned_until.store(self.after_shunning(), Ordering::Relaxed);
                }
                return Err(failure.error);
            }
            sleep(failure.wait.unwrap_or(pause).min(limits.pause_max)).await;
            pause = pause.saturating_mul(2);
            attempt += 1;
        }
    }

    async fn once<P, R>(&self, client: &RpcClient, method: &'static str, params: P) -> Result<R, Failure>
    where
        P: RpcSend + Unpin + 'static,
        R: RpcRecv,
    {
        let _place = self.0.places.acquire().await.map_err(|_| self.unanswered(method, "it is being left"))?;
        let answer = timeout(self.0.limits.answer_within, client.request::<P, R>(method, params)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failure(method, error)),
            Err(_) => Err(self.unanswered(method, &format!("no answer within {} s", self.0.limits.answer_within.as_secs_f32()))),
        }
    }

    fn unanswered(&self, method: &'static str, reason: &str) -> Failure {
        Failure { error: ChainError::Unanswered { rpc: self.0.name.clone(), method, reason: cut(reason) }, again: true, wait: None }
    }

    fn limited(&self, method: &'static str, wait: Option<Duration>) -> Failure {
        Failure { error: ChainError::RateLimited { rpc: self.0.name.clone(), method }, again: true, wait }
    }

    fn failure(&self, method: &'static str, error: TransportError) -> Failure {
        match error {
            RpcError::ErrorResp(payload) if wants_fewer(&payload) => self.limited(method, None),
            RpcError::ErrorResp(payload) => {
                let data = revert_data(&payload);
                let message = cut(&payload.message);
                let error = ChainError::Refused { rpc: self.0.name.clone(), method, code: payload.code, message, data };
                Failure { error, again: false, wait: None }
            }
            RpcError::Transport(TransportErrorKind::HttpErrorWithRetryAfter { retry_after, .. }) => self.limited(method, Some(retry_after)),
            RpcError::Transport(TransportErrorKind::HttpError(http)) if http.status == 429 => self.limited(method, None),
            RpcError::Transport(TransportErrorKind::HttpError(http)) => self.unanswered(method, &format!("HTTP status {}", http.status)),
            RpcError::Transport(TransportErrorKind::Custom(source)) => {
                if let Some(Oversized { limit }) = source.downcast_ref() {
                    let error = ChainError::AnswerTooLong { rpc: self.0.name.clone(), method, limit: *limit };
                    return Failure { error, again: false, wait: None };
                }
                self.unanswered(method, &chained(source.as_ref()))
            }
            RpcError::DeserError { err, .. } => Failure { error: self.malformed(method, err), again: false, wait: None },
            other => self.unanswered(method, &other.to_string()),
        }
    }
}

/// Why one attempt failed, and what is known about another.
struct Failure {
    error: ChainError,
    /// Whether the same question may get an answer.
    again: bool,
    /// How long the node wants to be left alone.
    wait: Option<Duration>,
}

/// An error with what caused it: the libraries below say the interesting thing last.
fn chained(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether an error means: not now. Infura uses -32005 also for too many logs, where waiting would not help.
fn wants_fewer(payload: &ErrorPayload) -> bool {
    let text = payload.message.to_ascii_lowercase();
    if text.contains("more than") || text.contains("block range") || text.contains("results") {
        return false;
    }
    let words = ["rate limit", "too many requests", "request limit", "requests per second", "compute units", "over capacity", "throughput"];
    matches!(payload.code, -32005 | -32016 | -32029 | 429) || words.iter().any(|word| text.contains(word))
}

/// The bytes that a call was reverted with, wherever a node puts them: geth as a text, others inside an object.
fn revert_data(payload: &ErrorPayload) -> Option<Vec<u8>> {
    let data: Value = serde_json::from_str(payload.data.as_ref()?.get()).ok()?;
    let text = data.as_str().or_else(|| data.get("data")?.as_str()).or_else(|| data.get("result")?.as_str())?;
    // Nethermind and old Parity put a word in front.
    let text = text.strip_prefix("Reverted ").unwrap_or(text);
    let bytes = hex::decode(text.strip_prefix("0x")?).ok()?;
    (bytes.len() <= REVERT_LIMIT).then_some(bytes)
}

/// A text from outside: short, on one line.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(TEXT_LIMIT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::value::RawValue;

    use super::*;

    fn payload(code: i64, message: &'static str, data: Option<&str>) -> ErrorPayload {
        ErrorPayload { code, message: Cow::Borrowed(message), data: data.map(|text| RawValue::from_string(text.to_owned()).unwrap()) }
    }

    #[test]
    fn errors_that_ask_for_patience_are_told_from_those_that_ask_for_less() {
        for (code, message) in [
            (-32005, "daily request count exceeded, request rate limited"),
            (429, "Your app has exceeded its compute units per second capacity"),
            (-32016, "over rate limit"),
            (-32007, "50/second request limit reached - reduce calls per second"),
            (-32000, "Too Many Requests"),
        ] {
            assert!(wants_fewer(&payload(code, message, None)), "{message}");
        }
        for (code, message) in [
            (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
            (-32602, "block range is too wide"),
            (-32000, "execution reverted"),
            (-32000, "header not found"),
        ] {
            assert!(!wants_fewer(&payload(code, message, None)), "{message}");
        }
    }

    #[test]
    fn revert_data_is_found_wherever_nodes_put_it() {
        for data in ["\"0x0102\"", "{\"data\":\"0x0102\"}", "{\"result\":\"0x0102\"}", "\"Reverted 0x0102\""] {
            assert_eq!(revert_data(&payload(3, "execution reverted", Some(data))), Some(vec![1, 2]), "{data}");
        }
        for data in ["\"zz\"", "7", "null", "{}"] {
            assert_eq!(revert_data(&payload(3, "execution reverted", Some(data))), None, "{data}");
        }
        assert_eq!(revert_data(&payload(3, "execution reverted", None)), None);
    }

    #[test]
    fn texts_from_outside_are_short_and_on_one_line() {
        assert_eq!(cut("a\nb"), "a b");
        assert_eq!(cut(&"x".repeat(5000)).len(), TEXT_LIMIT);
    }
}
