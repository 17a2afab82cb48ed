//! Standard input of a session's runs: taken from the agent's streams, kept for a moment, handed to the tool as it reads.
//!
//! Always true: every byte of an input is taken once and in order, whichever stream brings it; of one input no more than [`INPUT_AHEAD_LIMIT`] bytes are here that
//! its tool has not read; of its streams one counts. A tool that does not read makes its agent wait, and nobody else.
//!
//! It does not know what a run costs or how long it may take.

mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{INPUT_AHEAD_LIMIT, INPUT_CHUNK_LIMIT};
use orien_protocol::id::ExecutionId;
use orien_sandbox::Input as Pipe;
use tokio::sync::watch;

pub(crate) use serve::serve;

/// Where an input stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    /// Bytes taken.
    total: u64,
    /// Whether its end was taken.
    ended: bool,
    /// Nothing more is taken: the run is over, or its tool has closed its input.
    over: bool,
    /// The newest stream that sent something; none before the first.
    stream: u64,
}

/// Bytes that a stream brings, of which some may have been taken.
#[derive(Debug)]
struct Piece<'a> {
    offset: u64,
    bytes: &'a [u8],
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// All of it is taken.
    Whole,
    /// There is no room for the rest of it now.
    Full,
    /// Nothing is taken any more.
    Over,
}

/// What a tool is handed next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Bytes(Vec<u8>),
    End,
    Wait,
}

#[derive(Debug)]
struct Input {
    standing: Standing,
    /// Taken, and not passed on.
    waiting: VecDeque<u8>,
    passed: u64,
    news: watch::Sender<()>,
}

/// The inputs of one session: one for each of its jobs that asked for it.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    shelf: Mutex<BTreeMap<ExecutionId, Input>>,
}

impl Inputs {
    /// Begins the input of a run.
    pub(crate) fn begin(&self, execution: ExecutionId) {
        let standing = Standing { total: 0, ended: false, over: false, stream: 0 };
        let input = || Input { standing, waiting: VecDeque::new(), passed: 0, news: watch::Sender::new(()) };
        self.lock().entry(execution).or_insert_with(input);
    }

    /// Whether a run has an input.
    pub(crate) fn is_for(&self, execution: ExecutionId) -> bool {
        self.lock().contains_key(&execution)
    }

    /// Nothing more is taken for this run.
    pub(crate) fn close(&self, execution: ExecutionId) {
        if let Some(input) = self.lock().get_mut(&execution) {
            input.close();
        }
    }

    /// Nothing more is taken for any run.
    pub(crate) fn close_all(&self) {
        self.lock().values_mut().for_each(Input::close);
    }

    /// Bytes that reached the tool's pipe.
    pub(crate) fn passed(&self, execution: ExecutionId) -> u64 {
        self.lock().get(&execution).map_or(0, |input| input.passed)
    }

    /// Hands a run's input to its tool until its end, or until the tool does not want it.
    pub(crate) async fn feed(&self, execution: ExecutionId, mut pipe: Pipe) {
        let Some(mut news) = self.news(execution) else { return };
        loop {
            // Marked as seen before looking, so that nothing that comes in between is missed.
            news.borrow_and_update();
            let bytes = match self.next(execution) {
                Next::Bytes(bytes) => bytes,
                Next::End => return,
                Next::Wait if news.changed().await.is_ok() => continue,
                Next::Wait => return,
            };
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                // An error is a tool that has closed its input or ended.
                let Ok(count @ 1..) = pipe.write(rest).await else { return self.close(execution) };
                self.pass(execution, count);
                rest = rest.get(count..).unwrap_or_default();
            }
        }
    }

    /// Tells when something has changed; none for a run without input.
    fn news(&self, execution: ExecutionId) -> Option<watch::Receiver<()>> {
        self.lock().get(&execution).map(|input| input.news.subscribe())
    }

    fn standing(&self, execution: ExecutionId) -> Option<Standing> {
        self.lock().get(&execution).map(|input| input.standing)
    }

    /// Makes a new stream the one that counts. Answers its number.
    fn claim(&self, execution: ExecutionId) -> u64 {
        let mut shelf = self.lock();
        let Some(input) = shelf.get_mut(&execution) else { return 0 };
        input.standing.stream = input.standing.stream.saturating_add(1);
        input.news.send_replace(());
        input.standing.stream
    }

    /// Takes what there is room for, and shortens the piece by it.
    fn put(&self, execution: ExecutionId, stream: u64, piece: &mut Piece<'_>) -> Result<Put, Fault> {
        let mut shelf = self.lock();
        let Some(input) = shelf.get_mut(&execution).filter(|input| !input.standing.over) else { return Ok(Put::Over) };
        input.check_stream(stream)?;
        piece.skip(usize::try_from(input.standing.total.saturating_sub(piece.offset)).unwrap_or(usize::MAX));
        if piece.bytes.is_empty() {
            return Ok(Put::Whole);
        }
        if input.standing.ended {
            return Err(Fault::new(FaultCode::CONFLICT, format!("the input has ended after {} bytes", input.standing.total)));
        }
        if piece.offset != input.standing.total {
            return Err(gap(input.standing.total, piece.offset));
        }
        let room = INPUT_AHEAD_LIMIT.saturating_sub(input.waiting.len());
        let count = piece.bytes.len().min(room);
        if count > 0 {
            input.waiting.extend(piece.bytes.get(..count).unwrap_or_default());
            input.standing.total = input.standing.total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            piece.skip(count);
            input.news.send_replace(());
        }
        Ok(if piece.bytes.is_empty() { Put::Whole } else { Put::Full })
    }

    /// Takes the end of an input.
    fn end(&self, execution: ExecutionId, stream: u64, offset: u64) -> Result<Put, Fault> {
        let mut shelf = self.lock();
        let Some(input) = shelf.get_mut(&execution).filter(|input| !input.standing.over) else { return Ok(Put::Over) };
        input.check_stream(stream)?;
        if offset != input.standing.total {
            return Err(gap(input.standing.total, offset));
        }
        input.standing.ended = true;
        input.news.send_replace(());
        Ok(Put::Whole)
    }

    fn next(&self, execution: ExecutionId) -> Next {
        let shelf = self.lock();
        let Some(input) = shelf.get(&execution) else { return Next::End };
        // The rest, where the ring begins anew, comes the next time.
        let (bytes, _) = input.waiting.as_slices();
        let bytes = bytes.get(..bytes.len().min(INPUT_CHUNK_LIMIT)).unwrap_or_default().to_vec();
        match (bytes.is_empty(), input.standing.ended || input.standing.over) {
            (false, _) => Next::Bytes(bytes),
            (true, true) => Next::End,
            (true, false) => Next::Wait,
        }
    }

    fn pass(&self, execution: ExecutionId, count: usize) {
        if let Some(input) = self.lock().get_mut(&execution) {
            // Given up meanwhile, it has been emptied.
            input.waiting.drain(..count.min(input.waiting.len()));
            input.passed = input.passed.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            input.news.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecutionId, Input>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Input {
    fn close(&mut self) {
        self.standing.over = true;
        self.waiting = VecDeque::new();
        self.news.send_replace(());
    }

    fn check_stream(&self, stream: u64) -> Result<(), Fault> {
        if stream == self.standing.stream {
            return Ok(());
        }
        Err(Fault::new(FaultCode::CONFLICT, "a newer stream brings this input"))
    }
}

impl Piece<'_> {
    fn skip(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        self.bytes = self.bytes.get(count..).unwrap_or_default();
        self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

fn gap(total: u64, offset: u64) -> Fault {
    Fault::new(FaultCode::CONFLICT, format!("{total} bytes of the input are taken, so it does not go on or end at {offset}"))
}

#[cfg(test)]
mod tests;
