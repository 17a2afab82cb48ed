//! Follows the log of a run: the API's event stream, taken apart.
//!
//! Always true: lines come in order, each with its number; what is kept of an event that has not ended is bounded.

use axum::body::{Body, BodyDataStream};
use axum::http::{Method, StatusCode};
use futures::StreamExt;
use serde::Deserialize;

use super::api::{Api, ask, segment};
use super::failure::Failure;

/// Longest line of the stream: a line of output with every byte escaped, and its frame.
const LINE_BYTES: usize = 256 * 1024;

/// What the log of a run says next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A line of output.
    Line {
        /// Its number.
        number: u64,
        /// Its text.
        text: String,
    },
    /// Lines are missing here.
    Gap {
        /// The number after them.
        number: u64,
        /// How many, if that is known.
        lines: Option<u64>,
    },
    /// Nothing more will come, and where the run stands.
    End(Option<String>),
}

/// A log that is being followed.
pub(super) struct Log {
    stream: BodyDataStream,
    unread: Vec<u8>,
    number: u64,
    name: String,
    data: String,
}

#[derive(Deserialize)]
struct LineData {
    line: String,
}

#[derive(Deserialize)]
struct GapData {
    lines: Option<u64>,
}

#[derive(Deserialize)]
struct EndData {
    status: Option<String>,
}

impl Log {
    /// Begins after the line with a number; none if there is nothing after it and never will be.
    pub(super) async fn open(api: &Api, run: &str, after: u64) -> Result<Option<Self>, Failure> {
        let mut request = ask(Method::GET, &format!("/logs/{}", segment(run))).header("accept", "text/event-stream");
        if after > 0 {
            request = request.header("last-event-id", after.to_string());
        }
        let request = request.body(Body::empty()).map_err(|error| Failure::internal(&error))?;
        let response = api.send(request).await?;
        let more = response.status() != StatusCode::NO_CONTENT;
        Ok(more.then(|| Self::over(response.into_body())))
    }

    fn over(body: Body) -> Self {
        Self { stream: body.into_data_stream(), unread: Vec::new(), number: 0, name: String::new(), data: String::new() }
    }

    /// The next thing that it says; none when the stream has broken off. May be dropped at any time without losing anything.
    pub(super) async fn next(&mut self) -> Option<Said> {
        loop {
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(said) = self.take(line.trim_end_matches(['\r', '\n'])) {
                    return Some(said);
                }
            }
            if self.unread.len() > LINE_BYTES {
                return None;
            }
            let piece = self.stream.next().await?.ok()?;
            self.unread.extend_from_slice(&piece);
        }
    }

    fn take(&mut self, line: &str) -> Option<Said> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            return self.said(&name, &data);
        }
        let (field, value) = line.split_once(':')?;
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.number = value.parse().unwrap_or(self.number),
            "event" => value.clone_into(&mut self.name),
            "data" => value.clone_into(&mut self.data),
            _ => {}
        }
        None
    }

    fn said(&self, name: &str, data: &str) -> Option<Said> {
        match name {
            "stdout" | "stderr" => {
                let text = serde_json::from_str::<LineData>(data).ok()?.line;
                Some(Said::Line { number: self.number, text })
            }
            "gap" => serde_json::from_str::<GapData>(data).ok().map(|gap| Said::Gap { number: self.number, lines: gap.lines }),
            "end" => Some(Said::End(serde_json::from_str::<EndData>(data).ok().and_then(|end| end.status))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn all(text: &str, piece: usize) -> Vec<Said> {
        let pieces: Vec<Result<Vec<u8>, std::io::Error>> = text.as_bytes().chunks(piece).map(|piece| Ok(piece.to_vec())).collect();
        let mut log = Log::over(Body::from_stream(futures::stream::iter(pieces)));
        let mut said = Vec::new();
        while let Some(Some(next)) = log.next().now_or_never() {
            said.push(next);
        }
        said
    }

    #[test]
    fn events_are_read_however_the_stream_is_cut() {
        let text = "retry: 1000\n\nevent: gap\ndata: {\"lines\":2}\n\n: keep-alive\n\nid: 3\nevent: stdout\ndata: {\"timestamp\":\"t\",\"line\":\"a: b\"}\n\n\
                    id: 4\nevent: stderr\ndata: {\"timestamp\":\"t\",\"line\":\"\u{e4}\"}\n\nid: 5\nevent: gap\ndata: {\"lines\":null}\n\nevent: end\ndata: {\"status\":\"completed\",\"exitCode\":0}\n\n";
        let line = |number, text: &str| Said::Line { number, text: text.to_owned() };
        let gap = |number, lines| Said::Gap { number, lines };
        let expected = [gap(0, Some(2)), line(3, "a: b"), line(4, "\u{e4}"), gap(5, None), Said::End(Some("completed".to_owned()))];
        for piece in [1, 2, 7, 1000] {
            assert_eq!(all(text, piece), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        assert_eq!(all(&"x".repeat(LINE_BYTES * 2), 1024), []);
    }
}
