//! What a tool asks of its way out, and how it is answered when the answer is no.
//!
//! Always true: a head is read up to a limit and never past it; the target is taken from the request line alone, so no header can say something else. An
//! answer names nothing of the machine, and its reason stands in the status line too, because that is all most programs show.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::grant::{Host, port, split_port};

/// Longest request up to its empty line; a request of a real program has some hundred bytes.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;
/// What is still read of a refused request, so that its answer is not lost with a reset connection.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// Longest reason; a status line of a few hundred bytes is within every program's limit.
const REASON_BYTES_MAX: usize = 1000;

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    RequestTimeout,
    HeadTooLarge,
    BadGateway,
    Busy,
    GatewayTimeout,
}

impl Status {
    const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::HeadTooLarge => 431,
            Self::BadGateway => 502,
            Self::Busy => 503,
            Self::GatewayTimeout => 504,
        }
    }

    /// Whether the tool asked for what it may not have, as opposed to what could not be done.
    pub(super) const fn is_the_tools(self) -> bool {
        self.code() < 500
    }
}

impl Refusal {
    pub(super) fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// The whole answer.
    fn encode(&self) -> String {
        // Reasons are our own words and checked hosts; this holds even if one day they are not.
        let plain = self.reason.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
        let reason: String = plain.take(REASON_BYTES_MAX).collect();
        let allow = if self.status == Status::MethodNotAllowed { "Allow: CONNECT\r\n" } else { "" };
        let (code, length) = (self.status.code(), reason.len().saturating_add(1));
        format!(
            "HTTP/1.1 {code} {reason}\r\n{allow}Content-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{reason}\n"
        )
    }

    /// Answers and ends the connection. The caller bounds the time.
    pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, client: &mut S) -> std::io::Result<()> {
        client.write_all(self.encode().as_bytes()).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut client.take(DRAIN_BYTES_MAX), &mut tokio::io::sink()).await.map(|_| ())
    }
}

/// A request's head without its empty line, and the bytes that already came after it. Nothing if the client left without a word.
pub(super) async fn read_head<S: AsyncRead + Unpin>(client: &mut S) -> Result<Option<(BytesMut, BytesMut)>, Refusal> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = BytesMut::with_capacity(HEAD_BYTES_MAX);
    loop {
        // Only what is new can complete the end.
        let from = head.len().saturating_sub(END.len().saturating_sub(1));
        let room = HEAD_BYTES_MAX.saturating_sub(head.len());
        if room == 0 {
            return Err(Refusal::new(Status::HeadTooLarge, "the request is longer than 8 KiB"));
        }
        let mut limited = (&mut *client).take(u64::try_from(room).unwrap_or(0));
        match limited.read_buf(&mut head).await {
            Ok(0) | Err(_) if head.is_empty() => return Ok(None),
            Ok(0) | Err(_) => return Err(Refusal::new(Status::BadRequest, "the request ends before its empty line")),
            Ok(_) => {}
        }
        let end = head.get(from..).and_then(|new| new.windows(END.len()).position(|window| window == END));
        if let Some(at) = end {
            let early = head.split_off(from.saturating_add(at).saturating_add(END.len()));
            head.truncate(from.saturating_add(at));
            return Ok(Some((head, early)));
        }
    }
}

/// The target of a CONNECT request.
pub(super) fn target(head: &[u8]) -> Result<(Host, u16), Refusal> {
    let bad = |reason: String| Refusal::new(Status::BadRequest, reason);
    let line = head.split(|&b| b == b'\r' || b == b'\n').next().unwrap_or_default();
    let line = std::str::from_utf8(line).ok().filter(|line| line.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
    let mut words = line.ok_or_else(|| bad("the request line is not plain text".to_owned()))?.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(bad("the request line is not of the form: CONNECT host:port HTTP/1.1".to_owned()));
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(bad("the request line is not of the form: CONNECT host:port HTTP/1.1".to_owned()));
    }
    if method != "CONNECT" {
        let reason = "only CONNECT is served here; use https, so that what the tool says stays between it and the host";
        return Err(Refusal::new(Status::MethodNotAllowed, reason));
    }
    let (host, text) = split_port(target).ok_or_else(|| bad("the target has no port".to_owned()))?;
    let port = port(text).ok_or_else(|| bad("the port of the target is not a number from 1 to 65535".to_owned()))?;
    let host = Host::parse(host).map_err(|error| bad(format!("the host of the target {error}")))?;
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Result<(Host, u16), u16> {
        target(line.as_bytes()).map_err(|refusal| refusal.status.code())
    }

    #[test]
    fn the_target_is_what_the_request_line_says_whatever_the_headers_say() {
        let name = |text: &str| Host::Name(text.to_owned());
        assert_eq!(code("CONNECT PyPI.org.:443 HTTP/1.1\r\nHost: 10.0.0.1:80"), Ok((name("pypi.org"), 443)));
        assert_eq!(code("CONNECT a.b:1 HTTP/1.0"), Ok((name("a.b"), 1)));
        assert_eq!(code("CONNECT [2001:db8::1]:65535 HTTP/1.1"), Ok((Host::Address("2001:db8::1".parse().unwrap()), 65535)));
        assert_eq!(code("CONNECT 192.0.2.1:80 HTTP/1.1"), Ok((Host::Address("192.0.2.1".parse().unwrap()), 80)));
    }

    #[test]
    fn a_request_that_is_not_a_plain_connect_is_refused() {
        for line in ["GET http://a.b/ HTTP/1.1", "POST / HTTP/1.1", "connect a.b:443 HTTP/1.1", "OPTIONS * HTTP/1.1"] {
            assert_eq!(code(line), Err(405), "{line}");
        }
        for line in [
            "",
            "CONNECT",
            "CONNECT a.b:443",
            "CONNECT a.b:443 HTTP/2",
            "CONNECT  a.b:443 HTTP/1.1",
            "CONNECT a.b:443 HTTP/1.1 ",
            "CONNECT a.b:443\tHTTP/1.1",
            "CONNECT a.b HTTP/1.1",
            "CONNECT a.b: HTTP/1.1",
            "CONNECT a.b:0 HTTP/1.1",
            "CONNECT a.b:070 HTTP/1.1",
            "CONNECT a.b:443,80 HTTP/1.1",
            "CONNECT a.b:65979 HTTP/1.1",
            "CONNECT user:pw@a.b:443 HTTP/1.1",
            "CONNECT a.b#c.d:443 HTTP/1.1",
            "CONNECT a.b\\c.d:443 HTTP/1.1",
            "CONNECT a%2eb:443 HTTP/1.1",
            "CONNECT https://a.b:443 HTTP/1.1",
            "CONNECT a.b:443/x HTTP/1.1",
            "CONNECT b\u{fc}cher.example:443 HTTP/1.1",
            "CONNECT 2130706433:80 HTTP/1.1",
            "CONNECT 0x7f000001:80 HTTP/1.1",
            "CONNECT 127.1:80 HTTP/1.1",
            "CONNECT ::1:80 HTTP/1.1",
            "CONNECT *.b.c:80 HTTP/1.1",
        ] {
            assert_eq!(code(line), Err(400), "{line}");
        }
    }

    #[tokio::test]
    async fn a_head_is_found_wherever_it_is_cut_and_what_follows_it_is_kept() {
        let text = b"CONNECT a.b:1 HTTP/1.1\r\nA: b\r\n\r\nhello";
        for cut in 0..text.len() {
            let mut pieces = tokio_test_reader(text.get(..cut).unwrap(), text.get(cut..).unwrap());
            let (head, early) = read_head(&mut pieces).await.unwrap().unwrap();
            assert_eq!(&head[..], b"CONNECT a.b:1 HTTP/1.1\r\nA: b");
            // What has not arrived yet stays in the stream.
            let mut all = early.to_vec();
            pieces.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"hello", "cut at {cut}");
        }
    }

    fn tokio_test_reader<'b>(one: &'b [u8], two: &'b [u8]) -> impl AsyncRead + Unpin + 'b {
        one.chain(two)
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_refused_at_its_limit_and_not_read_further() {
        let long = vec![b'a'; HEAD_BYTES_MAX * 2];
        let mut rest = &long[..];
        let refusal = read_head(&mut rest).await.unwrap_err();
        assert_eq!((refusal.status, rest.len()), (Status::HeadTooLarge, HEAD_BYTES_MAX));
        assert_eq!(read_head(&mut &b"CONN"[..]).await.unwrap_err().status, Status::BadRequest);
        assert_eq!(read_head(&mut &b""[..]).await, Ok(None));
    }

    #[test]
    fn an_answer_is_one_status_line_whatever_its_reason_holds() {
        let text = Refusal::new(Status::Forbidden, format!("a\r\nSet-Cookie: x\u{7}\u{fc}{}", "y".repeat(5000))).encode();
        assert!(text.starts_with("HTTP/1.1 403 a??Set-Cookie: x??yyy"), "{text}");
        assert_eq!(text.matches("\r\n").count(), 5);
        assert!(text.len() < 3000);
        assert!(Refusal::new(Status::MethodNotAllowed, "x").encode().contains("\r\nAllow: CONNECT\r\n"));
    }
}
