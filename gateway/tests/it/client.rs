//! A caller that writes its own bytes, so that nothing is hidden.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// After this a test counts as hung. Nothing is measured by it.
pub(crate) const HUNG: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        let extra = format!("content-type: application/json\r\nidempotency-key: {key}\r\n");
        self.send("POST", path, &extra, body.to_string().as_bytes()).await
    }

    /// The answer, unless the gateway ends before there is one.
    pub(crate) async fn try_post(&self, path: &str, key: &str, body: &Value) -> Option<Answer> {
        let extra = format!("content-type: application/json\r\nidempotency-key: {key}\r\n");
        let bytes = self.talk("POST", path, &extra, body.to_string().as_bytes()).await.ok()?;
        bytes.windows(4).any(|window| window == b"\r\n\r\n").then(|| Answer::parse(&bytes))
    }

    /// The answer, unless the gateway ends before there is one.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Answer> {
        let bytes = self.talk("GET", path, "", b"").await.ok()?;
        bytes.windows(4).any(|window| window == b"\r\n\r\n").then(|| Answer::parse(&bytes))
    }

    pub(crate) async fn send(&self, method: &str, path: &str, extra: &str, body: &[u8]) -> Answer {
        Answer::parse(&self.talk(method, path, extra, body).await.unwrap())
    }

    async fn talk(&self, method: &str, path: &str, extra: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let Self { address, token } = self;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\ncontent-length: {length}\r\n{extra}\r\n"
        );
        let talk = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await?;
            Ok(bytes)
        };
        tokio::time::timeout(HUNG, talk).await.unwrap()
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Self { status, head, body: bytes[split + 4..].to_vec() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = dechunked(&answer.body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The JSON of a success.
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Asserts that this is a problem with this status and code, and gives its members.
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        assert_eq!(self.json()["code"], code, "{}", self.text());
        self.json()
    }
}

/// The chunks joined; a trailer, if there is one, is appended as text. A body that breaks off ends where it breaks off.
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return body };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap().trim(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 {
            body.extend_from_slice(bytes);
            return body;
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}
