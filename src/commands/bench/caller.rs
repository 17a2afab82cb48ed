//! One caller of a local door, as an agent's own program would be: one kept connection, one request at a time.
//!
//! Always true: a request goes out in one write and its answer is read to its end before the next; what is not plain HTTP/1.1 with a length is an error.
//!
//! It is no general client: it knows just what the doors answer with, so that as little of a measured time as can be is its own.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::moving::Mover;

/// Largest answer that is read.
const ANSWER_LIMIT: usize = 4 << 20;
/// Longest head of an answer that is read.
const HEAD_LIMIT: usize = 16 * 1024;

/// Where a door is, and what opens it.
#[derive(Clone)]
pub(super) struct Place {
    address: SocketAddr,
    token: String,
}

impl Place {
    pub(super) fn new(address: SocketAddr, token_file: &Path) -> anyhow::Result<Self> {
        Ok(Self { address, token: orien_door::Token::read(token_file)?.expose().to_owned() })
    }

    /// A new connection.
    pub(super) async fn call(&self) -> anyhow::Result<Caller> {
        let stream = TcpStream::connect(self.address).await.with_context(|| format!("cannot connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        Ok(Caller { place: self.clone(), stream: BufReader::new(stream), head: String::new() })
    }
}

impl Place {
    /// What moves whole files through the same door.
    pub(super) fn mover(&self) -> Mover {
        Mover { address: self.address, token: self.token.clone() }
    }
}

/// A status and what came with it.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    /// The body, if the door did what it was asked to.
    pub(super) fn good(self) -> anyhow::Result<Value> {
        if (200..300).contains(&self.status) { Ok(self.body) } else { bail!("{}", self.told()) }
    }

    /// In a few words.
    pub(super) fn told(&self) -> String {
        let part = |name: &str| self.body[name].as_str().unwrap_or_default();
        format!("{} {} {}", self.status, part("code"), part("detail"))
    }
}

/// One connection to a door.
pub(super) struct Caller {
    place: Place,
    stream: BufReader<TcpStream>,
    head: String,
}

impl Caller {
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.ask("GET", path, "", None).await
    }

    /// Posts under a key.
    pub(super) async fn post(&mut self, path: &str, body: &Value, key: &str) -> anyhow::Result<Answer> {
        self.ask("POST", path, &format!("Idempotency-Key: {key}\r\n"), Some(body)).await
    }

    async fn ask(&mut self, method: &str, path: &str, more: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let Place { address, token } = &self.place;
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n{more}{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await.with_context(|| format!("{method} {path}"))
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        self.head.clear();
        let (mut status, mut length) = (0, None);
        loop {
            let from = self.head.len();
            let count = self.stream.read_line(&mut self.head).await?;
            ensure!(count > 0, "the door closed the connection");
            ensure!(self.head.len() <= HEAD_LIMIT, "the head of the answer does not end");
            let line = self.head.get(from..).unwrap_or_default().trim_end();
            if from == 0 {
                status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).context("this is not HTTP")?;
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().ok();
            }
        }
        let length = length.filter(|length| *length <= ANSWER_LIMIT).context("the answer has no length, or a large one")?;
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).context("the answer is not JSON")? };
        Ok(Answer { status, body })
    }
}
