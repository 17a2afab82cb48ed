//! A plain HTTP client for the local doors: what the commands of agents and operators use, and nothing that curl could not do.
//!
//! Always true: a request that acts carries an idempotency key, and is repeated under it when the answer got lost; what is refused is a [`Problem`], no answer at all is [`Unanswered`].

pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod finding;
pub(crate) mod pointer;
pub(crate) mod problem;
mod tls;

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde_json::Value;
use ureq::config::{Config, ConfigBuilder};
use ureq::http::Response;
use ureq::typestate::{AgentScope, WithBody, WithoutBody};
use ureq::{Agent, Body, RequestBuilder};

pub(crate) use finding::Reach;
pub(crate) use problem::{Problem, Unanswered};

/// Largest JSON answer that is read.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
/// Longest problem document that is read.
const PROBLEM_LIMIT: u64 = 64 * 1024;
/// Longest wait for an answer that is not a stream; opening and ending a session may take this long.
const ANSWER_TIME: Duration = Duration::from_secs(120);
/// How often a request is sent again when its answer got lost or the door asks for patience, and the longest pause before that.
const REPEATS: u32 = 4;
const PAUSE_LIMIT: Duration = Duration::from_secs(5);
/// Pause before asking again for the answer to what is still under way.
const IN_PROGRESS_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for a sign of life.
const HEALTH_TIME: Duration = Duration::from_secs(2);
/// Bytes handed to the socket at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// Longest silence of a stream: doors say something every few seconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// One door and the token that opens it.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: String,
}

impl Client {
    /// A client for the door at `address`, with the token from its file.
    pub(crate) fn open(address: SocketAddr, token_file: &Path) -> anyhow::Result<Self> {
        let token = orien_door::Token::read(token_file)?;
        Ok(Self::at(format!("http://{address}"), token.expose().to_owned()))
    }

    /// A client for the door at `base`, such as `http://127.0.0.1:8402`.
    pub(crate) fn at(base: String, token: String) -> Self {
        Self { agent: settings().build().into(), base, token }
    }

    /// A client for a door that speaks TLS, at a `base` such as `https://gateway.example:8402`; certificates in `ca_file` are trusted, or those that this machine trusts.
    pub(crate) fn over_tls(base: String, token: String, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let config = settings().https_only(true).tls_config(tls::config(ca_file)?).build();
        Ok(Self { agent: config.into(), base, token })
    }

    /// Whether somebody answers there.
    pub(crate) fn is_there(&self) -> bool {
        let request = self.agent.get(self.url("/health")).config().timeout_global(Some(HEALTH_TIME)).build();
        request.call().is_ok_and(|response| response.status().is_success())
    }

    /// Reads JSON.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.patiently(|| json(path, self.checked(path, limited(self.getting(path)).call())?))
    }

    /// Reads text of any kind.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<String> {
        whole(self.checked(path, self.getting(path).call())?)
    }

    /// Posts JSON once, under a new idempotency key or the one given.
    pub(crate) fn post(&self, path: &str, body: &impl Serialize, key: Option<&str>) -> anyhow::Result<Value> {
        let key = key.map_or_else(fresh_key, |key| Ok(key.to_owned()))?;
        let send = || self.sending(self.agent.post(self.url(path))).header("Idempotency-Key", &key);
        let timed = || send().config().timeout_global(Some(ANSWER_TIME)).build();
        self.patiently(|| json(path, self.checked(path, timed().send_json(body))?))
    }

    /// Posts JSON under a key and reads text.
    pub(crate) fn post_text(&self, path: &str, body: &Value, key: &str) -> anyhow::Result<String> {
        let request = self.sending(self.agent.post(self.url(path))).header("Idempotency-Key", key);
        whole(self.checked(path, request.send_json(body))?)
    }

    /// Posts bytes to a place that takes those it has already only once; a receiver that is slow is waited for.
    pub(crate) fn post_bytes(&self, path: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        let send = || self.sending(self.agent.post(self.url(path))).header("Content-Type", "application/octet-stream");
        self.patiently(|| json(path, self.checked(path, send().send(bytes))?))
    }

    /// Stores bytes.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        json(path, self.checked(path, self.sending(self.agent.put(self.url(path))).send(bytes))?)
    }

    /// Removes what is there.
    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<()> {
        let request = self.agent.delete(self.url(path)).header("Authorization", self.bearer());
        self.checked(path, limited(request).call()).map(drop)
    }

    /// Fetches bytes, with the hash announced for them.
    pub(crate) fn download(&self, path: &str) -> anyhow::Result<(Vec<u8>, Option<String>)> {
        let response = self.checked(path, self.getting(path).call())?;
        let announced = header(&response, "x-content-hash");
        let mut bytes = Vec::new();
        response.into_body().into_reader().take(ANSWER_LIMIT).read_to_end(&mut bytes)?;
        Ok((bytes, announced))
    }

    /// Repeats what got no answer, or was asked to come back soon: under its key it is done once.
    fn patiently<T>(&self, mut ask: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let (mut repeats, begun) = (0, Instant::now());
        loop {
            let error = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let soon = Duration::from_millis(200 * u64::from(1_u32 << repeats.min(8)));
            let pause = match (error.downcast_ref::<Problem>(), error.downcast_ref::<Unanswered>()) {
                // The first one, whose answer got lost, is not done yet.
                (Some(problem), _) if problem.code() == "in_progress" && repeats > 0 && begun.elapsed() < ANSWER_TIME => IN_PROGRESS_PAUSE,
                _ if repeats >= REPEATS => return Err(error),
                (Some(problem), _) if problem.status == 429 => Duration::from_secs(problem.retry_after.unwrap_or(1)),
                (None, Some(unanswered)) if !unanswered.is_absent() => soon,
                _ => return Err(error),
            };
            if pause > PAUSE_LIMIT {
                return Err(error);
            }
            repeats += 1;
            std::thread::sleep(pause);
        }
    }

    fn getting(&self, path: &str) -> RequestBuilder<WithoutBody> {
        self.agent.get(self.url(path)).header("Authorization", self.bearer())
    }

    fn sending(&self, request: RequestBuilder<WithBody>) -> RequestBuilder<WithBody> {
        request.header("Authorization", self.bearer())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// The response, or the problem that it reports.
    fn checked(&self, path: &str, response: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
        let response = response.map_err(|error| Unanswered::of(&self.base, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = header(&response, "retry-after").and_then(|seconds| seconds.parse().ok());
        let mut text = Vec::new();
        // A problem that breaks off is told by its status.
        let _ = response.into_body().into_reader().take(PROBLEM_LIMIT).read_to_end(&mut text);
        Err(Problem::new(path, status.as_u16(), retry_after, &String::from_utf8_lossy(&text)).into())
    }
}

/// A piece of a path or query, with what would end or change it written out.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// A new idempotency key.
pub(crate) fn fresh_key() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(hex::encode(bytes))
}

fn settings() -> ConfigBuilder<AgentScope> {
    let config = Config::builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(5)));
    config.input_buffer_size(BUFFER_BYTES).output_buffer_size(BUFFER_BYTES)
}

fn limited(request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
    request.config().timeout_global(Some(ANSWER_TIME)).build()
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn whole(response: Response<Body>) -> anyhow::Result<String> {
    let mut text = String::new();
    response.into_body().into_reader().take(ANSWER_LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

fn json(path: &str, response: Response<Body>) -> anyhow::Result<Value> {
    let text = whole(response)?;
    if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).with_context(|| format!("{path} did not answer with JSON")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_piece_of_a_path_stays_one_piece() {
        assert_eq!(super::escaped("a b/c?d&e=\u{e9}%"), "a%20b%2Fc%3Fd%26e%3D%C3%A9%25");
    }
}
