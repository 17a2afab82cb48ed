//! An upload in progress.
//!
//! Always true: it never holds more than its limit and the room that the workspace had when it began, and when it is dropped
//! before its commit nothing of it stays.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;

use super::inside::Begun;
use super::{FileError, Inner, WorkPath};

/// A file on its way into the workspace.
#[derive(Debug)]
pub struct Upload {
    inner: Arc<Inner>,
    path: WorkPath,
    name: String,
    file: tokio::fs::File,
    written: u64,
    bytes_max: u64,
    room: u64,
    placed: bool,
}

impl Upload {
    pub(super) fn new(inner: Arc<Inner>, path: WorkPath, begun: Begun, bytes_max: u64, room: u64) -> Self {
        let Begun { name, file } = begun;
        Self { inner, path, name, file: tokio::fs::File::from_std(file), written: 0, bytes_max, room, placed: false }
    }

    /// Appends bytes. After an error nothing more should be written; drop it.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = self.append(bytes).await;
        if written.is_err() {
            // What it took is free for the next upload at once, not only when the file has been closed.
            let _ = self.file.set_len(0).await;
        }
        written
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if after > self.bytes_max {
            return Err(FileError::TooLarge { limit: self.bytes_max });
        }
        if after > self.room {
            return Err(FileError::WorkspaceFull);
        }
        self.file.write_all(bytes).await.map_err(full_or_broken)?;
        self.written = after;
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Makes the file visible at its path, in place of any file that was there. Answers its size in bytes.
    pub async fn commit(mut self) -> Result<u64, FileError> {
        self.file.flush().await.map_err(full_or_broken)?;
        let (inner, path, name) = (Arc::clone(&self.inner), self.path.clone(), self.name.clone());
        let joined = tokio::task::spawn_blocking(move || inner.as_owner(|| inner.inside.place(&name, &path))).await;
        joined.map_err(|error| FileError::Io(std::io::Error::other(error)))??;
        self.placed = true;
        Ok(self.written)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.placed {
            // What cannot be removed now goes with the session.
            let _ = self.inner.as_owner(|| {
                self.inner.inside.discard(&self.name);
                Ok(())
            });
        }
    }
}

/// A file system of limited size says so when it is full.
fn full_or_broken(error: std::io::Error) -> FileError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => FileError::WorkspaceFull,
        _ => FileError::Io(error),
    }
}
