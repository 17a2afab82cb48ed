//! A plain HTTP client for the local doors: what `demo`, `status` and the settlement commands use, and nothing that curl could not do.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

/// Largest JSON answer that is read.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
/// Longest wait for an answer that is not a stream; opening and ending a session may take this long.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// One door and the token that opens it.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: String,
}

impl Client {
    /// A client for the door at `address`, with the token from its file.
    pub(crate) fn open(address: SocketAddr, token_file: &Path) -> anyhow::Result<Self> {
        let token = orien_door::Token::read(token_file)?;
        let config = Agent::config_builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(5))).build();
        Ok(Self { agent: config.into(), base: format!("http://{address}"), token: token.expose().to_owned() })
    }

    /// Reads JSON.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.agent.get(self.url(path)).header("Authorization", self.bearer());
        answer(path, request.config().timeout_global(Some(ANSWER_TIME)).build().call())
    }

    /// Reads text of any kind.
    pub(crate) fn text(&self, path: &str) -> anyhow::Result<String> {
        let response = self.agent.get(self.url(path)).header("Authorization", self.bearer()).call();
        let mut text = String::new();
        checked(path, response)?.into_body().into_reader().take(ANSWER_LIMIT).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Posts JSON once, under a new idempotency key or the one given.
    pub(crate) fn post(&self, path: &str, body: &Value, key: Option<&str>) -> anyhow::Result<Value> {
        let key = key.map_or_else(fresh_key, |key| Ok(key.to_owned()))?;
        let request = self.agent.post(self.url(path)).header("Authorization", self.bearer()).header("Idempotency-Key", key);
        answer(path, request.config().timeout_global(Some(ANSWER_TIME)).build().send_json(body))
    }

    /// Posts JSON under a key and reads text.
    pub(crate) fn post_text(&self, path: &str, body: &Value, key: &str) -> anyhow::Result<String> {
        let request = self.agent.post(self.url(path)).header("Authorization", self.bearer()).header("Idempotency-Key", key);
        let mut text = String::new();
        checked(path, request.send_json(body))?.into_body().into_reader().take(ANSWER_LIMIT).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Removes something.
    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<Value> {
        answer(path, self.agent.delete(self.url(path)).header("Authorization", self.bearer()).call())
    }

    /// Stores bytes.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        answer(path, self.agent.put(self.url(path)).header("Authorization", self.bearer()).send(bytes))
    }

    /// Fetches bytes, with the hash announced for them.
    pub(crate) fn download(&self, path: &str) -> anyhow::Result<(Vec<u8>, Option<String>)> {
        let response = checked(path, self.agent.get(self.url(path)).header("Authorization", self.bearer()).call())?;
        let announced = response.headers().get("x-content-hash").and_then(|hash| hash.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        response.into_body().into_reader().take(ANSWER_LIMIT).read_to_end(&mut bytes)?;
        Ok((bytes, announced))
    }

    /// Follows a stream of server-sent events until it ends or `each` says so; `each` gets the event's name and its data.
    pub(crate) fn follow(&self, path: &str, mut each: impl FnMut(&str, &Value) -> bool) -> anyhow::Result<()> {
        let response = checked(path, self.agent.get(self.url(path)).header("Authorization", self.bearer()).call())?;
        let mut event = String::new();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line?;
            if let Some(name) = line.strip_prefix("event:") {
                name.trim().clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data:") {
                let data: Value = serde_json::from_str(data.trim()).unwrap_or(Value::Null);
                if !each(&event, &data) {
                    return Ok(());
                }
            } else if line.is_empty() {
                event.clear();
            }
        }
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

/// A new idempotency key.
pub(crate) fn fresh_key() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(hex::encode(bytes))
}

fn answer(path: &str, response: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Value> {
    let mut text = String::new();
    checked(path, response)?.into_body().into_reader().take(ANSWER_LIMIT).read_to_string(&mut text)?;
    if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).with_context(|| format!("{path} did not answer with JSON")) }
}

/// The response, or the problem that it reports in one sentence.
fn checked(path: &str, response: Result<Response<Body>, ureq::Error>) -> anyhow::Result<Response<Body>> {
    let response = response.with_context(|| format!("cannot ask {path}"))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let mut text = String::new();
    response.into_body().into_reader().take(64 * 1024).read_to_string(&mut text)?;
    let problem: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let part = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let missing = problem["missing"].as_str().map(|amount| format!(" (missing {amount} USDC)")).unwrap_or_default();
    bail!("{} {}: {}{missing} [{status}]", part("code"), part("title"), part("detail"))
}
