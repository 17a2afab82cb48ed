//! An upload in progress, and those that broke off.
//!
//! Always true: an upload never holds more than its limit, which was set aside from the workspace's room when it began; when it is dropped before its commit
//! nothing of it stays, unless it was kept to go on later. What is kept is bounded in number, and the oldest goes first.
//!
//! Bytes are hashed and written on a blocking thread while the next ones arrive.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::inside::{Begun, full_or_broken};
use super::{FileError, Inner, WorkPath};

/// Uploads of one session at the same time: each has a stream, a file and two blocks of memory.
const UPLOADS_MAX: usize = 16;
/// Uploads that broke off and are kept: as many as can be under way.
const KEPT_MAX: usize = UPLOADS_MAX;

/// What the uploads of one session share.
#[derive(Debug)]
pub(super) struct Uploads {
    places: Arc<Semaphore>,
    /// Bytes that were announced and are not on the disk.
    awaited: Arc<AtomicU64>,
    kept: Mutex<VecDeque<Kept>>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(UPLOADS_MAX)), awaited: Arc::default(), kept: Mutex::default() }
    }
}

/// Room that is set aside for bytes to come; what is left of it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    awaited: Arc<AtomicU64>,
    left: u64,
}

impl Reserved {
    /// So many bytes are on the disk, and measured there from now on.
    fn arrived(&mut self, count: u64) {
        let count = count.min(self.left);
        self.left = self.left.saturating_sub(count);
        self.awaited.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.arrived(self.left);
    }
}

/// An upload that broke off.
#[derive(Debug)]
struct Kept {
    path: WorkPath,
    executable: bool,
    bytes_max: u64,
    written: u64,
    name: String,
    ink: Ink,
}

/// Where bytes go.
#[derive(Debug)]
struct Ink {
    file: File,
    hasher: blake3::Hasher,
    reserved: Reserved,
}

impl Ink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.hasher.update(bytes);
        let written = self.file.write_all(bytes).map_err(full_or_broken);
        self.reserved.arrived(bytes.len() as u64);
        if written.is_err() {
            // What it took is free for the next upload at once, not only when the file has been closed.
            let _ = self.file.set_len(0);
        }
        written
    }
}

impl Uploads {
    /// A place for one more upload.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, FileError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| FileError::TooManyUploads { limit: UPLOADS_MAX })
    }

    /// Sets room aside, whether it is there or not; answers what was set aside before, too.
    fn set_aside(&self, bytes: u64) -> Option<(Reserved, u64)> {
        let add = |awaited: u64| awaited.checked_add(bytes);
        let before = self.awaited.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some((Reserved { awaited: Arc::clone(&self.awaited), left: bytes }, before))
    }

    /// Uploads that broke off: path, bytes held, bytes of the whole.
    pub(super) fn unfinished(&self) -> Vec<(WorkPath, u64, u64)> {
        self.kept().iter().map(|kept| (kept.path.clone(), kept.written, kept.bytes_max)).collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        // Changed in single steps.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, wanted: impl FnMut(&Kept) -> bool) -> Option<Kept> {
        let mut kept = self.kept();
        let position = kept.iter().position(wanted)?;
        kept.remove(position)
    }
}

/// Where the bytes went, the block that they stood in, and whether they arrived.
type Written = (Ink, Vec<u8>, Result<(), FileError>);

/// A file on its way into the workspace.
#[derive(Debug)]
pub struct Upload {
    inner: Arc<Inner>,
    path: WorkPath,
    executable: bool,
    name: String,
    /// None while a block is being written.
    ink: Option<Ink>,
    writing: Option<JoinHandle<Written>>,
    /// A block that was written, to be filled again.
    spare: Vec<u8>,
    written: u64,
    bytes_max: u64,
    placed: bool,
    _place: OwnedSemaphorePermit,
}

impl Upload {
    pub(super) fn new(
        inner: Arc<Inner>,
        path: WorkPath,
        executable: bool,
        begun: Begun,
        reserved: Reserved,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let Begun { name, file } = begun;
        let bytes_max = reserved.left;
        let ink = Some(Ink { file, hasher: blake3::Hasher::new(), reserved });
        Self { inner, path, executable, name, ink, writing: None, spare: Vec::new(), written: 0, bytes_max, placed: false, _place: place }
    }

    /// Goes on with one that broke off, if exactly `offset` bytes of it are held. Blocks.
    pub(super) fn resume(
        inner: &Arc<Inner>,
        path: WorkPath,
        executable: bool,
        offset: u64,
        bytes_max: u64,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, FileError> {
        inner.inside.check_replaceable(&path)?;
        let mut kept = inner.uploads.take(|kept| kept.path == path).ok_or(FileError::NothingToResume)?;
        let fits = kept.written == offset && kept.bytes_max == bytes_max && kept.executable == executable;
        let refusal = match inner.reserve(bytes_max.saturating_sub(offset)) {
            _ if !fits => FileError::WrongOffset { held: kept.written, size: kept.bytes_max },
            Err(error) => error,
            Ok(reserved) => {
                kept.ink.reserved = reserved;
                let Kept { name, ink, written, .. } = kept;
                let inner = Arc::clone(inner);
                return Ok(Self {
                    inner,
                    path,
                    executable,
                    name,
                    ink: Some(ink),
                    writing: None,
                    spare: Vec::new(),
                    written,
                    bytes_max,
                    placed: false,
                    _place: place,
                });
            }
        };
        inner.uploads.kept().push_back(kept);
        Err(refusal)
    }

    /// Appends bytes; it is done when they are on their way to the disk and the ones before have arrived there. Answers the block of the ones before, which may be filled again; after the
    /// first write an empty one. After an error nothing more should be written; drop it.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, FileError> {
        let count = bytes.len() as u64;
        let after = self.written.saturating_add(count);
        if after > self.bytes_max {
            return Err(FileError::TooLarge { limit: self.bytes_max });
        }
        self.settle().await?;
        let Some(mut ink) = self.ink.take() else { return Err(broken()) };
        self.written = after;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let written = ink.write(&bytes);
            (ink, bytes, written)
        }));
        Ok(std::mem::take(&mut self.spare))
    }

    /// Waits for the block that is being written.
    async fn settle(&mut self) -> Result<(), FileError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let (ink, block, written) = writing.await.map_err(|error| FileError::Io(io::Error::other(error)))?;
        self.writing = None;
        self.ink = Some(ink);
        self.spare = block;
        written
    }

    /// Bytes written so far, those included that are on their way.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// BLAKE3 of all that was written.
    pub async fn hash(&mut self) -> Result<[u8; 32], FileError> {
        self.settle().await?;
        self.ink.as_ref().map(|ink| *ink.hasher.finalize().as_bytes()).ok_or_else(broken)
    }

    /// Makes the file visible at its path, in place of any file that was there. Answers its size in bytes and its BLAKE3.
    pub async fn commit(mut self) -> Result<(u64, [u8; 32]), FileError> {
        let hash = self.hash().await?;
        let (inner, path, name) = (Arc::clone(&self.inner), self.path.clone(), self.name.clone());
        let joined = tokio::task::spawn_blocking(move || inner.as_owner(|| inner.inside.place(&name, &path))).await;
        joined.map_err(|error| FileError::Io(io::Error::other(error)))??;
        self.placed = true;
        Ok((self.written, hash))
    }

    /// Keeps what has arrived, so that a later upload to the same path can go on there.
    pub async fn keep(mut self) {
        if self.settle().await.is_err() || self.written == 0 {
            return;
        }
        let Some(mut ink) = self.ink.take() else { return };
        // Nobody may ever go on with it.
        ink.reserved.arrived(u64::MAX);
        self.placed = true;
        let (path, name) = (self.path.clone(), std::mem::take(&mut self.name));
        let kept = Kept { path, executable: self.executable, bytes_max: self.bytes_max, written: self.written, name, ink };
        let surplus = {
            let mut all = self.inner.uploads.kept();
            all.push_back(kept);
            if all.len() > KEPT_MAX { all.pop_front() } else { None }
        };
        if let Some(oldest) = surplus {
            self.inner.discard(&oldest.name);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.placed {
            self.inner.discard(&self.name);
        }
    }
}

impl Inner {
    /// Sets room aside for so many bytes. Uploads that broke off make way, the oldest first.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reserved, FileError> {
        let (reserved, before) = self.uploads.set_aside(bytes).ok_or(FileError::WorkspaceFull)?;
        loop {
            if self.room()?.is_some_and(|room| bytes <= room.saturating_sub(before)) {
                return Ok(reserved);
            }
            let oldest = self.uploads.take(|_| true).ok_or(FileError::WorkspaceFull)?;
            self.inside.discard(&oldest.name);
        }
    }

    /// Forgets an upload to this path that broke off; whether there was one.
    pub(super) fn forget_unfinished(&self, path: &WorkPath) -> bool {
        let kept = self.uploads.take(|kept| kept.path == *path);
        kept.is_some_and(|kept| {
            self.inside.discard(&kept.name);
            true
        })
    }

    fn discard(&self, name: &str) {
        // What cannot be removed now goes with the session.
        let _ = self.as_owner(|| {
            self.inside.discard(name);
            Ok(())
        });
    }
}

fn broken() -> FileError {
    FileError::Io(io::Error::other("an earlier write failed"))
}
