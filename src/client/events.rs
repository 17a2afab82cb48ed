//! Streams of events, followed over broken connections: a reader that comes back asks for what follows the last event it has.
//!
//! Always true: each numbered event is handed on once, in order; what the door could not keep is told as a `gap` by the door itself.

use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Client, Problem, SILENCE_LIMIT, Unanswered};

/// How long the door may be away, and the pause between two tries.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);
/// Silence after which a stream has said what it has to say now: it is on this machine, and says at once what it knows.
const MOMENT: Duration = Duration::from_millis(500);
/// Longest line of a stream: lines of output are cut by the gateway long before.
const LINE_LIMIT: u64 = 1024 * 1024;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// How a connection ended.
enum Ended {
    /// The reader has what it wants.
    Enough,
    /// The door says that there is nothing more.
    NothingMore,
    /// The door closed the stream.
    Closed,
    /// It broke off.
    Broken(String),
}

impl Client {
    /// Reads a stream of events until it ends or `each` says so.
    pub(crate) fn follow(&self, path: &str, mut each: impl FnMut(&Event) -> bool) -> anyhow::Result<()> {
        let mut last = None;
        let ended = self.connection(path, &mut last, &mut |event| go_on(each(event)))?;
        if let Ended::Broken(cause) = ended { Err(Unanswered::new(&self.base, cause).into()) } else { Ok(()) }
    }

    /// Reads what a stream has now: until it ends, or is silent for a moment.
    pub(crate) fn peek(&self, path: &str, mut each: impl FnMut(&Event) -> bool) -> anyhow::Result<()> {
        self.listen(path, &mut None, MOMENT, &mut |event| go_on(each(event))).map(drop)
    }

    /// Follows a stream that ends with the event `last_word`, and comes back as often as the connection breaks. It ends early when `each` says so.
    pub(crate) fn follow_to(&self, path: &str, last_word: &str, mut each: impl FnMut(&Event) -> bool) -> anyhow::Result<()> {
        let (mut last, mut heard, mut was_there) = (None, Instant::now(), false);
        loop {
            let ended = self.connection(path, &mut last, &mut |event| {
                (heard, was_there) = (Instant::now(), true);
                go_on(each(event) && event.name != last_word)
            });
            let cause: anyhow::Error = match ended {
                Ok(Ended::Enough | Ended::NothingMore) => return Ok(()),
                Ok(Ended::Closed) => Unanswered::new(&self.base, "the stream ended too early").into(),
                Ok(Ended::Broken(cause)) => Unanswered::new(&self.base, cause).into(),
                Err(error) if was_there && is_passing(&error) => error,
                Err(error) => return Err(error),
            };
            was_there = true;
            if heard.elapsed() > AWAY_LIMIT {
                return Err(cause);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn connection(&self, path: &str, last: &mut Option<u64>, each: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> anyhow::Result<Ended> {
        self.listen(path, last, SILENCE_LIMIT, each)
    }

    fn listen(
        &self,
        path: &str,
        last: &mut Option<u64>,
        silence: Duration,
        each: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> anyhow::Result<Ended> {
        let mut request = self.getting(path);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last.to_string());
        }
        let request = request.config().timeout_recv_response(Some(SILENCE_LIMIT)).timeout_per_read(Some(silence)).build();
        let response = self.checked(path, request.call())?;
        if response.status() == 204 {
            return Ok(Ended::NothingMore);
        }
        Ok(read(BufReader::new(response.into_body().into_reader()), last, each))
    }
}

const fn go_on(wanted: bool) -> ControlFlow<()> {
    if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Whether the door may be back in a moment.
fn is_passing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Problem>().is_none_or(|problem| problem.status >= 500 || problem.status == 429)
}

/// Reads events until the stream ends, breaks, or the reader has enough. An event counts as read when its empty line has come.
fn read(mut stream: impl BufRead, last: &mut Option<u64>, each: &mut dyn FnMut(&Event) -> ControlFlow<()>) -> Ended {
    let (mut id, mut name, mut data) = (None, String::new(), None);
    let mut line = Vec::new();
    loop {
        line.clear();
        match std::io::Read::take(&mut stream, LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) => return Ended::Closed,
            Ok(_) if line.last() != Some(&b'\n') => return Ended::Broken("the stream broke off within a line".to_owned()),
            Ok(_) => {}
            Err(error) => return Ended::Broken(error.to_string()),
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        if let Some(value) = text.strip_prefix("id:") {
            id = value.trim().parse::<u64>().ok();
        } else if let Some(value) = text.strip_prefix("event:") {
            value.trim().clone_into(&mut name);
        } else if let Some(value) = text.strip_prefix("data:") {
            data = Some(serde_json::from_str(value.trim()).unwrap_or(Value::Null));
        } else if text.is_empty() {
            if let Some(data) = data.take() {
                *last = id.or(*last);
                let event = Event { id, name: std::mem::take(&mut name), data };
                if each(&event).is_break() {
                    return Ended::Enough;
                }
            }
            id = None;
            name.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_that_broke_off_is_not_handed_on_and_is_asked_for_again() {
        let stream = b": keep-alive\n\nid: 1\nevent: stdout\ndata: {\"line\":\"a\"}\n\nid: 2\nevent: stdout\ndata: {\"line\":\"b\"}\n";
        let (mut last, mut seen) = (None, Vec::new());
        let ended = read(&stream[..], &mut last, &mut |event| {
            seen.push(event.clone());
            ControlFlow::Continue(())
        });
        assert!(matches!(ended, Ended::Closed));
        assert_eq!((last, seen.len()), (Some(1), 1));
        assert_eq!(seen[0], Event { id: Some(1), name: "stdout".into(), data: json!({ "line": "a" }) });
    }

    #[test]
    fn an_event_without_a_number_does_not_change_where_a_reader_comes_back() {
        let stream = b"id: 7\nevent: stdout\ndata: {}\n\nevent: gap\ndata: {\"lines\":2}\n\n";
        let (mut last, mut names) = (None, Vec::new());
        read(&stream[..], &mut last, &mut |event| {
            names.push(event.name.clone());
            ControlFlow::Continue(())
        });
        assert_eq!((last, names), (Some(7), vec!["stdout".to_owned(), "gap".to_owned()]));
    }
}
