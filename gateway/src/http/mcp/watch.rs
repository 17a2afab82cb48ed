//! Watches a run for a while: its output, its end, and whether the caller still wants it.
//!
//! Always true: at most [`OUTPUT_BYTES`] of output are kept, with the number of the last line, so that nothing is lost for a caller who asks for the rest.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::api::segment;
use super::call::{Call, Progress};
use super::failure::Failure;
use super::log::{Log, Said};
use super::shapes::RunIn;

/// Most output in one answer: hosts cut longer ones, and models read the end of it anyhow.
pub(super) const OUTPUT_BYTES: usize = 8 * 1024;
/// How long a log may be silent before what has come is taken for all that is there.
const QUIET: Duration = Duration::from_millis(150);
/// Longest reading of what is there already.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often a run that has no log yet is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a run whose log says nothing is looked at: one whose provider is lost is over before its log is.
const LOOK_SILENT: Duration = Duration::from_secs(1);
/// How long the last word on a run may take after the end of its log.
const OUTCOME_LIMIT: Duration = Duration::from_secs(5);
/// How long a cancelled run may take to end: it is asked, then killed.
pub(super) const CANCEL_LIMIT: Duration = Duration::from_secs(15);

/// Which lines to keep when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The last ones.
    Last,
    /// Those right after this one; stops when no more fit.
    After(u64),
}

/// How watching came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The run is over.
    Over,
    /// The time is up, or there is no room for more.
    Waiting,
    /// The caller does not want it any more.
    Cancelled,
}

/// What was seen of the output.
#[derive(Debug)]
pub(super) struct Seen {
    keep: Keep,
    lines: VecDeque<String>,
    bytes: usize,
    /// Number of the last line seen.
    pub(super) cursor: u64,
    /// Whether lines before or between those kept are missing.
    pub(super) cut: bool,
    /// Whether there were lines for which no room was left.
    pub(super) full: bool,
}

impl Seen {
    fn new(keep: Keep) -> Self {
        let cursor = if let Keep::After(cursor) = keep { cursor } else { 0 };
        Self { keep, lines: VecDeque::new(), bytes: 0, cursor, cut: false, full: false }
    }

    fn take(&mut self, number: u64, mut text: String) {
        if text.len() > OUTPUT_BYTES {
            text.truncate((0..=OUTPUT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            self.cut = true;
        }
        let size = text.len().saturating_add(1);
        if let Keep::After(_) = self.keep
            && self.bytes.saturating_add(size) > OUTPUT_BYTES.saturating_add(1)
        {
            self.full = true;
            return;
        }
        self.cursor = number.max(self.cursor);
        self.bytes = self.bytes.saturating_add(size);
        self.lines.push_back(text);
        while self.bytes > OUTPUT_BYTES.saturating_add(1)
            && let Some(first) = self.lines.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(first.len()).saturating_sub(1);
            self.cut = true;
        }
    }

    /// Lines are missing up to this number.
    fn pass_over(&mut self, number: u64) {
        self.cut = true;
        self.cursor = number.max(self.cursor);
    }

    /// The lines, each ended.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// Watches until the run is over, the time is up, or the caller has gone.
pub(super) async fn watch(call: &Call, run: &str, keep: Keep, wait: Duration) -> Result<(Seen, Stopped), Failure> {
    let (mut seen, mut progress) = (Seen::new(keep), call.progress());
    let until = Instant::now() + wait;
    loop {
        let Some(mut log) = Log::open(&call.api, run, seen.cursor).await? else { return Ok((seen, Stopped::Over)) };
        if let Some(stopped) = read(call, run, &mut log, &mut seen, &mut progress, until).await {
            return Ok((seen, stopped));
        }
        // It has not begun, or the stream broke off.
        if fetch(call, run).await?.is_over() {
            return Ok((seen, Stopped::Over));
        }
        if Instant::now() >= until {
            return Ok((seen, Stopped::Waiting));
        }
        tokio::select! {
            () = call.context.ct.cancelled() => return Ok((seen, Stopped::Cancelled)),
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Reads a log as far as it goes; none if it ended while the run has not.
async fn read(call: &Call, run: &str, log: &mut Log, seen: &mut Seen, progress: &mut Progress, until: Instant) -> Option<Stopped> {
    let latest = until.max(Instant::now() + CATCH_UP);
    let (mut look, mut was_over) = (Instant::now() + LOOK_SILENT, false);
    loop {
        // What is there already is read even when no time is left to wait for more.
        let enough = until.max(Instant::now() + QUIET).min(latest);
        let said = tokio::select! {
            biased;
            () = call.context.ct.cancelled() => return Some(Stopped::Cancelled),
            () = sleep_until(enough) => return Some(Stopped::Waiting),
            () = sleep_until(progress.due()) => {
                progress.tell(call).await;
                continue;
            }
            () = sleep_until(look) => {
                // What it still has to say about a run that is over, it says at once.
                if std::mem::replace(&mut was_over, fetch(call, run).await.is_ok_and(|run| run.is_over())) {
                    return Some(Stopped::Over);
                }
                look = Instant::now() + LOOK_SILENT;
                continue;
            }
            said = log.next() => said,
        };
        (look, was_over) = (Instant::now() + LOOK_SILENT, false);
        match said {
            Some(Said::Line { number, text }) => {
                progress.line(&text);
                seen.take(number, text);
                if seen.full {
                    return Some(Stopped::Waiting);
                }
            }
            Some(Said::Gap { number, .. }) => seen.pass_over(number),
            Some(Said::End(status)) => {
                return status.is_some_and(|status| status == "completed" || status == "failed").then_some(Stopped::Over);
            }
            None => return None,
        }
    }
}

/// A run as it stands.
pub(super) async fn fetch(call: &Call, run: &str) -> Result<RunIn, Failure> {
    call.api.get(&format!("/executions/{}", segment(run))).await
}

/// A run whose log has ended, with the outcome that comes a little later.
pub(super) async fn outcome(call: &Call, run: &str, longest: Duration) -> Result<RunIn, Failure> {
    let begun = Instant::now();
    loop {
        let now = fetch(call, run).await?;
        if now.is_over() || begun.elapsed() >= longest {
            return Ok(now);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A run that is over by its log.
pub(super) async fn ended(call: &Call, run: &str) -> Result<RunIn, Failure> {
    outcome(call, run, OUTCOME_LIMIT).await
}

/// Stops a run and waits until it has ended.
pub(super) async fn stop(call: &Call, run: &str) -> Result<RunIn, Failure> {
    let key = super::call::fresh_key()?;
    let path = format!("/executions/{}/cancel", segment(run));
    let _: serde_json::Value = call.api.post(&path, &serde_json::json!({}), &key).await?;
    match timeout(CANCEL_LIMIT + OUTCOME_LIMIT, outcome(call, run, CANCEL_LIMIT)).await {
        Ok(run) => run,
        Err(_) => fetch(call, run).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(seen: &mut Seen, numbers: std::ops::RangeInclusive<u64>, width: usize) {
        for number in numbers {
            seen.take(number, format!("{number:0>width$}"));
        }
    }

    #[test]
    fn the_last_lines_are_kept_and_the_cut_is_told() {
        let mut seen = Seen::new(Keep::Last);
        lines(&mut seen, 1..=1000, 99);
        assert!(seen.text().len() <= OUTPUT_BYTES + 1 && seen.text().ends_with("1000\n"));
        assert_eq!((seen.cursor, seen.cut, seen.full), (1000, true, false));
    }

    #[test]
    fn a_reader_with_a_cursor_gets_every_line_once_in_pieces_that_fit() {
        let mut cursor = 0;
        let mut whole = String::new();
        loop {
            let mut seen = Seen::new(Keep::After(cursor));
            for number in cursor + 1..=1000 {
                seen.take(number, format!("{number:0>99}"));
                if seen.full {
                    break;
                }
            }
            assert!(seen.text().len() <= OUTPUT_BYTES + 1 && !seen.cut);
            whole.push_str(&seen.text());
            cursor = seen.cursor;
            if !seen.full {
                break;
            }
        }
        assert_eq!(whole.lines().count(), 1000);
    }

    #[test]
    fn one_line_that_is_too_long_is_shown_in_part() {
        for keep in [Keep::Last, Keep::After(0)] {
            let mut seen = Seen::new(keep);
            seen.take(1, "\u{e4}".repeat(OUTPUT_BYTES));
            assert!(seen.cut && !seen.full && seen.text().len() > OUTPUT_BYTES - 4, "{keep:?} {}", seen.text().len());
        }
    }
}
