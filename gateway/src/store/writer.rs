//! Who commits: the caller itself when nobody else wants to, otherwise one thread for all who do.
//!
//! Always true: one commit is under way at a time, and whoever asked hears of it when it is durable; what was asked for meanwhile shares the next one. After one failed commit every later
//! one fails too.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use orien_bootstrap::may_block_here;
use redb::Database;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::StoreError;
use super::put::{Put, apply};

/// Writes that wait for the next commit; a caller beyond it waits to hand over its own.
const QUEUE: usize = 256;
/// Most writes in one commit, so that a flood does not make the first of them wait for ever.
const GROUP: usize = 128;

struct Write {
    puts: Vec<Put>,
    done: oneshot::Sender<Result<(), String>>,
}

/// What the thread and those who commit for themselves share.
#[derive(Debug)]
struct Shared {
    database: Arc<Database>,
    /// Held while committing.
    turn: Mutex<()>,
    /// Why nothing can be written any more.
    failure: OnceLock<String>,
    broken: CancellationToken,
}

impl Shared {
    fn commit<'a>(&self, puts: impl Iterator<Item = &'a Put>) -> Result<(), String> {
        if let Some(reason) = self.failure.get() {
            return Err(reason.clone());
        }
        let outcome = self.attempt(puts).map_err(|error| error.to_string());
        if let Err(reason) = &outcome
            && self.failure.set(reason.clone()).is_ok()
        {
            tracing::error!(reason, "the store cannot be written; the gateway stops");
            self.broken.cancel();
        }
        outcome
    }

    fn attempt<'a>(&self, puts: impl Iterator<Item = &'a Put>) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        for put in puts {
            apply(&write, &put.0)?;
        }
        Ok(write.commit()?)
    }
}

/// The way to the disk; the last handle to go waits for the thread.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.writes.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
    }
}

impl Writer {
    pub(super) fn start(database: Arc<Database>, broken: CancellationToken) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { database, turn: Mutex::new(()), failure: OnceLock::new(), broken });
        let (writes, queue) = mpsc::channel(QUEUE);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("gateway-store".to_owned()).spawn(move || write_all(&theirs, queue))?;
        Ok(Self { shared, writes: Mutex::new(Some(writes)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.shared.failure.get().cloned().map(StoreError::Write)
    }

    pub(super) async fn write(&self, puts: Vec<Put>) -> Result<(), StoreError> {
        let stopped = || StoreError::Write("the store's writer has stopped".to_owned());
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(stopped)?;
        if let Some(written) = self.write_alone(&writes, &puts) {
            return written.map_err(StoreError::Write);
        }
        let (done, written) = oneshot::channel();
        writes.send(Write { puts, done }).await.map_err(|_| stopped())?;
        written.await.map_err(|_| stopped())?.map_err(StoreError::Write)
    }

    /// Commits on the caller's own thread, if nobody commits or waits for it: being woken by another thread would take longer than a commit does.
    fn write_alone(&self, writes: &mpsc::Sender<Write>, puts: &[Put]) -> Option<Result<(), String>> {
        if writes.capacity() < writes.max_capacity() || !may_block_here() {
            return None;
        }
        let _turn = self.shared.turn.try_lock().ok()?;
        Some(tokio::task::block_in_place(|| self.shared.commit(puts.iter())))
    }
}

fn write_all(shared: &Shared, mut queue: mpsc::Receiver<Write>) {
    while let Some(first) = queue.blocking_recv() {
        let _turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        let outcome = shared.commit(group.iter().flat_map(|write| &write.puts));
        for write in group {
            // Whoever asked may be gone; the write counts all the same.
            let _ = write.done.send(outcome.clone());
        }
    }
}
