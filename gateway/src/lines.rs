//! A tool's output as numbered lines, in a ring of bounded size.
//!
//! Always true: lines are numbered from 1 in the order in which their last byte was read; where output was missed, the gap takes a number of its own, so that nobody who comes back with the
//! newest number has missed it unseen. The ring holds at most [`RING_BYTES`], oldest lines go first; a line longer than [`LINE_BYTES`] is cut into several. Fed the same chunks, two rings
//! number the same lines alike until something is missed; from then on the numbers of a ring that was begun again are higher than all that were given out before.
//!
//! It does not know where chunks come from or who reads.

use std::collections::VecDeque;

use orien_protocol::frame::OutputStream;
use orien_protocol::hash::Hash;
use orien_protocol::time::Timestamp;

use crate::rows::{LogLine, OutputTail};

/// Most output kept per execution: what its provider keeps too, so that a reader who joins late sees as much here as there.
pub(crate) const RING_BYTES: usize = 8 * 1024 * 1024;
/// Longest line; progress bars that never end a line must not grow one.
pub(crate) const LINE_BYTES: usize = 16 * 1024;
/// Most bytes of text in a tail that is kept on disk.
pub(crate) const TAIL_BYTES: usize = 64 * 1024;
/// Most lines in a tail; with their bookkeeping they stay well below the largest stored value.
const TAIL_LINES: usize = 4096;
/// What a line costs beside its text.
const LINE_OVERHEAD: usize = size_of::<LogLine>();

#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    at: Timestamp,
}

/// The output of one execution so far.
#[derive(Debug)]
pub(crate) struct Lines {
    ring: VecDeque<LogLine>,
    bytes: usize,
    next: u64,
    out: Partial,
    err: Partial,
    hasher: blake3::Hasher,
    missed: bool,
    /// The least number of a gap: above what an earlier run of the gateway gave out.
    least_gap: u64,
    /// The newest entry that is not kept any more, and the newest gap among those.
    dropped: u64,
    dropped_gap: u64,
    ring_bytes: usize,
}

/// Lines after a number, as far as they are kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    /// In order, gaps among them.
    pub(crate) lines: Vec<LogLine>,
    /// What is not kept any more before them.
    pub(crate) skipped: Option<Skipped>,
    /// The number that a reader has after them.
    pub(crate) after: u64,
}

/// Lines that a reader wanted and that are not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skipped {
    /// So many.
    Lines(u64),
    /// There was a gap among them: nobody knows how many.
    Unknown,
}

/// A number above all that a log had by then: the time in microseconds, for no tool writes a million lines per second for long. It stays below 2^53, to which JavaScript counts.
pub(crate) const fn late_number(now: Timestamp) -> u64 {
    now.0.saturating_mul(1000)
}

impl Default for Lines {
    fn default() -> Self {
        Self::with_limit(RING_BYTES)
    }
}

impl Lines {
    fn with_limit(ring_bytes: usize) -> Self {
        Self {
            ring: VecDeque::new(),
            bytes: 0,
            next: 1,
            out: Partial::default(),
            err: Partial::default(),
            hasher: blake3::Hasher::new(),
            missed: false,
            least_gap: 0,
            dropped: 0,
            dropped_gap: 0,
            ring_bytes,
        }
    }

    /// A log of which an earlier run of the gateway may have given out lines. It gave them the same numbers, as far as nothing was missed.
    pub(crate) fn again(now: Timestamp) -> Self {
        Self { least_gap: late_number(now), ..Self::default() }
    }

    /// Whether no earlier run of the gateway gave out lines of it.
    pub(crate) const fn is_new(&self) -> bool {
        self.least_gap == 0
    }

    /// Takes the next chunk of output.
    pub(crate) fn push(&mut self, at: Timestamp, stream: OutputStream, chunk: &[u8]) {
        self.hasher.update(chunk);
        let mut partial = std::mem::take(self.partial(stream));
        partial.at = at;
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |piece| (piece, true));
            let mut rest = piece;
            while partial.bytes.len().saturating_add(rest.len()) > LINE_BYTES {
                let (fits, more) = rest.split_at(LINE_BYTES.saturating_sub(partial.bytes.len()));
                partial.bytes.extend_from_slice(fits);
                self.keep(&mut partial, stream, false);
                rest = more;
            }
            partial.bytes.extend_from_slice(rest);
            if ended {
                self.keep(&mut partial, stream, true);
            }
        }
        *self.partial(stream) = partial;
    }

    /// Notes that chunks were lost: lines do not join over the gap. Two gaps in a row are one.
    pub(crate) fn miss(&mut self, at: Timestamp) {
        self.flush();
        self.missed = true;
        if self.ring.back().is_none_or(|newest| !newest.is_gap()) {
            self.next = self.next.max(self.least_gap);
            self.enter(LogLine::gap(self.next, at));
        }
    }

    /// Nothing more will come.
    pub(crate) fn finish(&mut self) {
        self.flush();
    }

    /// At most `limit` lines after a number; zero for from the beginning.
    pub(crate) fn after(&self, number: u64, limit: usize) -> Replay {
        // Numbers jump at gaps.
        let skip = self.ring.partition_point(|line| line.number <= number);
        let lines: Vec<LogLine> = self.ring.iter().skip(skip).take(limit).cloned().collect();
        let skipped = match self.dropped.saturating_sub(number) {
            0 => None,
            _ if self.dropped_gap > number => Some(Skipped::Unknown),
            count => Some(Skipped::Lines(count)),
        };
        let after = lines.last().map_or(number.max(self.dropped), |last| last.number);
        Replay { lines, skipped, after }
    }

    /// The last lines, for keeping.
    pub(crate) fn tail(&self) -> OutputTail {
        let mut bytes = 0_usize;
        let fits = |line: &&LogLine| {
            bytes = bytes.saturating_add(line.text.len()).saturating_add(1);
            bytes <= TAIL_BYTES
        };
        let mut lines: Vec<LogLine> = self.ring.iter().rev().take(TAIL_LINES).take_while(fits).cloned().collect();
        lines.reverse();
        let cut = lines.first().map_or(self.next > 1, |line| line.number > 1) || self.missed;
        OutputTail { lines, cut, hash: self.hash() }
    }

    /// BLAKE3 of all output, if none of it was missed.
    pub(crate) fn hash(&self) -> Option<Hash> {
        (!self.missed).then(|| Hash::from_bytes(*self.hasher.finalize().as_bytes()))
    }

    /// What it weighs, in bytes.
    pub(crate) const fn weight(&self) -> usize {
        self.bytes
    }

    fn partial(&mut self, stream: OutputStream) -> &mut Partial {
        match stream {
            OutputStream::Stdout => &mut self.out,
            OutputStream::Stderr => &mut self.err,
        }
    }

    fn flush(&mut self) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let mut partial = std::mem::take(self.partial(stream));
            if !partial.bytes.is_empty() {
                self.keep(&mut partial, stream, false);
            }
        }
    }

    fn keep(&mut self, partial: &mut Partial, stream: OutputStream, ended: bool) {
        let text = String::from_utf8_lossy(&partial.bytes).into_owned();
        partial.bytes.clear();
        self.enter(LogLine { number: self.next, at: partial.at, stream, text, ended });
    }

    fn enter(&mut self, line: LogLine) {
        self.bytes = self.bytes.saturating_add(line.text.len()).saturating_add(LINE_OVERHEAD);
        self.ring.push_back(line);
        self.next = self.next.saturating_add(1);
        while self.bytes > self.ring_bytes
            && let Some(oldest) = self.ring.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.text.len()).saturating_sub(LINE_OVERHEAD);
            self.dropped = oldest.number;
            if oldest.is_gap() {
                self.dropped_gap = oldest.number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp(7);
    use OutputStream::{Stderr, Stdout};

    fn texts(lines: &Lines) -> Vec<String> {
        lines.after(0, usize::MAX).lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_join_over_chunks_and_the_two_streams_do_not_mix() {
        let mut lines = Lines::default();
        lines.push(AT, Stdout, b"he");
        lines.push(AT, Stderr, b"warn\n");
        lines.push(AT, Stdout, b"llo\n\nlast");
        assert_eq!(texts(&lines), ["warn", "hello", ""]);
        lines.finish();
        assert_eq!(texts(&lines), ["warn", "hello", "", "last"]);
        assert_eq!(lines.tail().text(1000), "warn\nhello\n\nlast");
        assert_eq!(lines.hash(), Some(Hash::of(b"hewarn\nllo\n\nlast")));
    }

    #[test]
    fn chunk_borders_do_not_change_the_lines() {
        let text = b"one\ntwo\xc3\xa4\nthree\r\n";
        let (mut whole, mut bytes) = (Lines::default(), Lines::default());
        whole.push(AT, Stdout, text);
        text.iter().for_each(|byte| bytes.push(AT, Stdout, &[*byte]));
        assert_eq!(whole.after(0, 9), bytes.after(0, 9));
        assert_eq!(texts(&whole)[1], "two\u{e4}");
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_the_ring_drops_its_oldest_lines() {
        let mut lines = Lines::with_limit(4 * LINE_BYTES);
        lines.push(AT, Stdout, &vec![b'x'; 10 * LINE_BYTES]);
        assert!(lines.weight() <= 4 * LINE_BYTES);
        let replay = lines.after(0, 1);
        assert_eq!(replay.skipped, Some(Skipped::Lines(replay.lines[0].number - 1)));
        assert!(!replay.lines[0].ended && replay.lines[0].text.len() == LINE_BYTES);
        assert!(lines.tail().cut);
    }

    #[test]
    fn a_reader_gets_what_follows_the_number_it_has() {
        let mut lines = Lines::default();
        lines.push(AT, Stdout, b"a\nb\nc\n");
        let numbers = |after, limit| lines.after(after, limit).lines.iter().map(|l| l.number).collect::<Vec<_>>();
        assert_eq!(numbers(1, 9), [2, 3]);
        assert_eq!(numbers(0, 2), [1, 2]);
        assert_eq!(numbers(3, 9), [0; 0]);
        assert_eq!(numbers(u64::MAX, 9), [0; 0]);
    }

    #[test]
    fn output_with_a_gap_has_no_hash_and_lines_do_not_join_over_it() {
        let mut lines = Lines::default();
        lines.push(AT, Stdout, b"abc");
        lines.miss(AT);
        lines.push(AT, Stdout, b"def\n");
        assert_eq!(texts(&lines), ["abc", "", "def"]);
        assert_eq!(lines.tail().text(99), "abcdef\n");
        assert_eq!(lines.tail().hash, None);
        assert!(lines.tail().cut);
    }

    #[test]
    fn a_gap_takes_one_number_however_often_it_is_noticed_and_also_at_the_very_end() {
        let mut lines = Lines::default();
        lines.push(AT, Stdout, b"a\n");
        (0..3).for_each(|_| lines.miss(AT));
        lines.push(AT, Stdout, b"\n");
        lines.miss(AT);
        lines.finish();
        let entries: Vec<(u64, bool)> = lines.after(0, 9).lines.iter().map(|line| (line.number, line.is_gap())).collect();
        assert_eq!(entries, [(1, false), (2, true), (3, false), (4, true)]);
        assert_eq!(lines.tail().lines, lines.after(0, 9).lines);
    }

    #[test]
    fn nobody_is_told_a_number_of_lines_when_a_gap_is_among_those_that_are_not_kept() {
        let mut lines = Lines::with_limit(4 * LINE_BYTES);
        lines.push(AT, Stdout, b"a\nb\n");
        lines.miss(AT);
        lines.push(AT, Stdout, &vec![b'x'; 10 * LINE_BYTES]);
        let first = lines.after(0, 1).lines[0].number;
        assert_eq!(lines.after(0, 0), Replay { lines: Vec::new(), skipped: Some(Skipped::Unknown), after: first - 1 });
        assert_eq!(lines.after(2, 0).skipped, Some(Skipped::Unknown));
        assert_eq!(lines.after(3, 0).skipped, Some(Skipped::Lines(first - 4)), "who has the gap is told the rest");
        assert_eq!(lines.after(first - 1, 0).skipped, None);
    }

    #[test]
    fn a_log_that_is_begun_again_numbers_what_follows_a_gap_higher_than_anything_before() {
        let mut lines = Lines::again(Timestamp(5_000));
        lines.push(AT, Stdout, b"a\nb\n");
        lines.miss(AT);
        lines.push(AT, Stdout, b"c\n");
        let numbers = |after| lines.after(after, 9).lines.iter().map(|l| l.number).collect::<Vec<_>>();
        assert_eq!(numbers(0), [1, 2, 5_000_000, 5_000_001]);
        assert_eq!(numbers(1_000), [5_000_000, 5_000_001], "whoever had more before is told that something is missing");
        assert_eq!((numbers(5_000_000), numbers(5_000_001)), (vec![5_000_001], vec![]));
    }

    #[test]
    fn a_tail_is_bounded_in_text_and_in_lines() {
        let mut lines = Lines::default();
        lines.push(AT, Stdout, &b"\n".repeat(100_000));
        assert_eq!(lines.tail().lines.len(), TAIL_LINES);
        lines.push(AT, Stdout, &b"0123456789abcdef\n".repeat(10_000));
        assert!(lines.tail().text(usize::MAX).len() <= TAIL_BYTES);
        assert_eq!(lines.tail().text(17), "0123456789abcdef\n");
    }
}
