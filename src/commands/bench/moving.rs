//! A caller that moves whole files through a door, as an agent's own program would: from a file to a socket and back.
//!
//! Always true: a file that comes is stored, and what it is made of is looked at afterwards, not while the clock runs.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// One read and one write.
const BLOCK_BYTES: usize = 256 * 1024;
/// Longest head of an answer, and longest answer that is not a file.
const ANSWER_LIMIT: u64 = 1 << 20;
/// Nothing moves for so long: something is broken.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Where a door is, and what opens it.
#[derive(Clone)]
pub(super) struct Mover {
    pub(super) address: SocketAddr,
    pub(super) token: String,
}

struct Head {
    status: u16,
    length: Option<u64>,
    chunked: bool,
    reader: BufReader<TcpStream>,
}

impl Mover {
    fn ask(&self, request: &str, length: u64) -> anyhow::Result<TcpStream> {
        let Self { address, token } = self;
        let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(STALL_LIMIT))?;
        stream.set_write_timeout(Some(STALL_LIMIT))?;
        let head = format!(
            "{request} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        Ok(stream)
    }

    /// Puts a file; how long it took until the door said that it is there, and what it said.
    pub(super) fn put(&self, path: &str, from: &Path) -> anyhow::Result<(Duration, Value)> {
        let mut file = File::open(from)?;
        let length = file.metadata()?.len();
        let before = Instant::now();
        let mut stream = self.ask(&format!("PUT {path}"), length)?;
        // Handed from the file to the socket by the kernel, as good programs do.
        std::io::copy(&mut file, &mut stream)?;
        let head = Head::read(stream)?;
        let (status, body) = (head.status, head.json()?);
        let took = before.elapsed();
        ensure!((200..300).contains(&status), "PUT {path}: {status} {body}");
        Ok((took, body))
    }

    /// Gets something into a file; how long it took and how many bytes it was.
    pub(super) fn get(&self, path: &str, into: &Path) -> anyhow::Result<(Duration, u64)> {
        let mut file = File::create(into)?;
        let before = Instant::now();
        let mut head = Head::read(self.ask(&format!("GET {path}"), 0)?)?;
        if head.status != 200 {
            let status = head.status;
            bail!("GET {path}: {status} {}", head.json()?);
        }
        let bytes = match head.length {
            Some(length) if !head.chunked => {
                let copied = copy(&mut head.reader, &mut file, length)?;
                ensure!(copied == length, "GET {path}: {copied} of {length} bytes came");
                copied
            }
            _ => head.chunks(&mut file)?,
        };
        Ok((before.elapsed(), bytes))
    }
}

impl Head {
    fn read(stream: TcpStream) -> anyhow::Result<Self> {
        let mut head = Self { status: 0, length: None, chunked: false, reader: BufReader::with_capacity(BLOCK_BYTES, stream) };
        let mut left = ANSWER_LIMIT;
        loop {
            let mut line = String::new();
            let count = (&mut head.reader).take(left).read_line(&mut line)?;
            left = left.saturating_sub(u64::try_from(count)?);
            ensure!(count > 0, "the door closed the connection");
            let text = line.trim_end();
            if head.status == 0 {
                head.status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).context("this is not HTTP")?;
            } else if text.is_empty() {
                return Ok(head);
            } else if let Some((name, value)) = text.split_once(':') {
                let value = value.trim();
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => head.length = value.parse().ok(),
                    "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
                    _ => {}
                }
            }
        }
    }

    fn json(mut self) -> anyhow::Result<Value> {
        let mut bytes = Vec::new();
        (&mut self.reader).take(self.length.unwrap_or(0).min(ANSWER_LIMIT)).read_to_end(&mut bytes)?;
        serde_json::from_slice(&bytes).context("the answer is not JSON")
    }

    fn chunks(&mut self, into: &mut File) -> anyhow::Result<u64> {
        let mut total = 0_u64;
        loop {
            let mut line = String::new();
            (&mut self.reader).take(ANSWER_LIMIT).read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).context("the answer broke off")?;
            ensure!(copy(&mut self.reader, into, size)? == size, "the answer broke off");
            line.clear();
            (&mut self.reader).take(ANSWER_LIMIT).read_line(&mut line)?;
            if size == 0 {
                return Ok(total);
            }
            total = total.saturating_add(size);
        }
    }
}

/// Copies in large blocks, at most so many bytes.
fn copy(from: &mut BufReader<TcpStream>, into: &mut File, length: u64) -> anyhow::Result<u64> {
    let mut left = length;
    while left > 0 {
        let ready = from.fill_buf()?;
        let count = ready.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if count == 0 {
            break;
        }
        into.write_all(ready.get(..count).unwrap_or_default())?;
        from.consume(count);
        left = left.saturating_sub(u64::try_from(count)?);
    }
    Ok(length - left)
}
