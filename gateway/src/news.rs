//! What happened in a session, numbered, for those who follow it and those who come back.
//!
//! Always true: numbers grow, also over a restart; a reader learns how many events it can no longer have.

use std::collections::VecDeque;

use serde_json::Value;

/// Events kept per session for those who come back: about five minutes of a busy session.
const EVENTS_LIMIT: usize = 1024;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SessionEvent {
    /// Higher than those before, also over a restart.
    pub(crate) number: u64,
    /// What kind.
    pub(crate) name: &'static str,
    /// What exactly.
    pub(crate) data: Value,
}

/// Events that a reader has missed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// So many.
    Events(u64),
    /// Those before the gateway was started; nobody knows how many.
    EarlierRun,
}

/// The newest events.
#[derive(Debug)]
pub(crate) struct News {
    kept: VecDeque<SessionEvent>,
    /// The number before the first event.
    base: u64,
    last: u64,
}

impl News {
    /// None yet. Numbers start after `base`: a time in milliseconds, for no session has a thousand events per second for long.
    pub(crate) const fn new(base: u64) -> Self {
        Self { kept: VecDeque::new(), base, last: base }
    }

    /// Adds an event.
    pub(crate) fn tell(&mut self, name: &'static str, data: Value) {
        self.tell_from(0, name, data);
    }

    /// Adds an event whose number is at least that.
    pub(crate) fn tell_from(&mut self, least: u64, name: &'static str, data: Value) {
        self.last = self.last.saturating_add(1).max(least);
        self.kept.push_back(SessionEvent { number: self.last, name, data });
        if self.kept.len() > EVENTS_LIMIT {
            self.kept.pop_front();
        }
    }

    /// Number of the newest event.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// Events after the last one that a reader has, as far as they are kept, and what it has missed.
    pub(crate) fn after(&self, seen: Option<u64>) -> (Option<Missed>, Vec<SessionEvent>) {
        let from = seen.unwrap_or(self.base);
        if from < self.base {
            return (Some(Missed::EarlierRun), self.kept.iter().cloned().collect());
        }
        let first = self.kept.front().map_or(from, |event| event.number.saturating_sub(1));
        let missed = first.checked_sub(from).filter(|count| *count > 0).map(Missed::Events);
        (missed, self.kept.iter().filter(|event| event.number > from).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn numbers(news: &News, seen: Option<u64>) -> (Option<Missed>, Vec<u64>) {
        let (missed, events) = news.after(seen);
        (missed, events.into_iter().map(|event| event.number).collect())
    }

    #[test]
    fn a_reader_gets_what_it_has_not_seen_and_learns_what_is_gone() {
        let mut news = News::new(100);
        assert_eq!(numbers(&news, None), (None, vec![]));
        for _ in 0..3 {
            news.tell("thing", json!({}));
        }
        assert_eq!(numbers(&news, None), (None, vec![101, 102, 103]));
        assert_eq!(numbers(&news, Some(102)), (None, vec![103]));
        assert_eq!(numbers(&news, Some(103)), (None, vec![]));
        assert_eq!(numbers(&news, Some(7)), (Some(Missed::EarlierRun), vec![101, 102, 103]));
        for _ in 0..EVENTS_LIMIT {
            news.tell("thing", json!({}));
        }
        let (missed, kept) = numbers(&news, Some(101));
        assert_eq!((missed, kept.len(), kept[0]), (Some(Missed::Events(2)), EVENTS_LIMIT, 104));
        assert_eq!(numbers(&news, None).0, Some(Missed::Events(3)));
        news.tell_from(5_000, "end", json!({}));
        assert_eq!((news.last(), numbers(&news, Some(4_999)).1), (5_000, vec![5_000]));
    }
}
