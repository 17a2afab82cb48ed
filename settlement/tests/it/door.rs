//! Settlement's local door, as a caller on this machine speaks to it.

use orien_bootstrap::door::DoorFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request and its answer: status and body. None when nobody is there, or breaks off.
pub(crate) async fn try_http(door: &DoorFile, line: &str, key: Option<&str>, body: &str) -> Option<(u16, String)> {
    let token = std::fs::read_to_string(&door.token_file).ok()?;
    let key = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{key}\r\n{body}",
        door.address,
        token.trim(),
        body.len()
    );
    let mut stream = TcpStream::connect(door.address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
