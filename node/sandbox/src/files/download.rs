//! A file being read.
//!
//! Always true: no more is read than was asked for, and the next block is read and hashed on a blocking thread while the one before is on its way.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use tokio::task::JoinHandle;

use super::FileError;

/// A file that is read from one place to another.
#[derive(Debug)]
pub struct Reader {
    /// Bytes of the file when it was opened.
    pub size: u64,
    /// Which state of the file it was then.
    pub version: u64,
    file: Option<(File, blake3::Hasher)>,
    reading: Option<JoinHandle<Read>>,
    /// A block that was given out and came back, to be filled again.
    spare: Vec<u8>,
    left: u64,
}

type Read = ((File, blake3::Hasher), io::Result<Vec<u8>>);

impl Reader {
    pub(super) fn new(file: File, size: u64, version: u64) -> Self {
        Self { size, version, file: Some((file, blake3::Hasher::new())), reading: None, spare: Vec::new(), left: size }
    }

    /// From `offset` on, at most `length` bytes; answers how many there are. Before the first block only.
    pub fn only(&mut self, offset: u64, length: u64) -> Result<u64, FileError> {
        self.left = self.size.saturating_sub(offset).min(length);
        if let Some((file, _)) = &mut self.file {
            file.seek(SeekFrom::Start(offset))?;
        }
        Ok(self.left)
    }

    /// The next block of about `block` bytes; none after the last. A file that got shorter meanwhile is an error.
    pub async fn next(&mut self, block: usize) -> Result<Option<Vec<u8>>, FileError> {
        if self.reading.is_none() && self.left > 0 {
            self.begin(block);
        }
        let Some(reading) = &mut self.reading else { return Ok(None) };
        let (file, bytes) = reading.await.map_err(|error| FileError::Io(io::Error::other(error)))?;
        self.reading = None;
        self.file = Some(file);
        let bytes = bytes?;
        if self.left > 0 {
            self.begin(block);
        }
        Ok(Some(bytes))
    }

    /// Takes a block back that nobody needs any more, so that none has to be made anew.
    pub fn give_back(&mut self, block: Vec<u8>) {
        self.spare = block;
    }

    fn begin(&mut self, block: usize) {
        let Some((mut file, mut hasher)) = self.file.take() else { return };
        let count = usize::try_from(self.left).unwrap_or(block).min(block);
        self.left = self.left.saturating_sub(count as u64);
        let mut bytes = std::mem::take(&mut self.spare);
        self.reading = Some(tokio::task::spawn_blocking(move || {
            bytes.resize(count, 0);
            let read = file.read_exact(&mut bytes);
            hasher.update(&bytes);
            ((file, hasher), read.map(|()| bytes))
        }));
    }

    /// BLAKE3 of all blocks, once the last was given out.
    #[must_use]
    pub fn hash(&self) -> Option<[u8; 32]> {
        self.file.as_ref().filter(|_| self.left == 0 && self.reading.is_none()).map(|(_, hasher)| *hasher.finalize().as_bytes())
    }
}
