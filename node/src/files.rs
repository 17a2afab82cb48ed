//! Moves files in and out of a session's workspace, one per stream.
//!
//! Always true: an upload appears whole or not at all, and has exactly the announced length; both sides learn the hash of every byte that crossed; a peer that stalls
//! is given up. What a path may be and how much a workspace holds is the sandbox's concern.

use std::time::{Duration, UNIX_EPOCH};

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{FileAction, FileAnswer, FileEntry, LISTING_LIMIT, STREAM_FRAME_LIMIT};
use orien_protocol::hash::Hash;
use orien_protocol::time::Timestamp;
use orien_sandbox::{Entry, FileError, Files, Kind, WorkPath};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::line::PeerStream;

/// Bytes moved at once; one such buffer per transfer.
const BLOCK_BYTES: usize = 256 * 1024;
/// A transfer that moves nothing for so long is given up.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// What a listed entry takes beside its path.
const ENTRY_OVERHEAD: usize = 64;
/// Room for the rest of the frame.
const LISTING_BYTES: usize = STREAM_FRAME_LIMIT - 1024;

/// Why a transfer is not completed.
enum Stopped {
    /// The peer is told.
    Refused(Fault),
    /// The peer is gone or stalls; nobody is there to be told.
    Gone,
}

impl From<FileError> for Stopped {
    fn from(error: FileError) -> Self {
        Self::Refused(fault_of(&error))
    }
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault)
    }
}

/// Does what one file stream asks for.
pub(crate) async fn serve(mut stream: PeerStream, action: FileAction, files: &Files) {
    let answer = match act(&mut stream, action, files).await {
        Ok(answer) => answer,
        Err(Stopped::Refused(fault)) => FileAnswer::Refused(fault),
        Err(Stopped::Gone) => return,
    };
    if put(&mut stream, &answer).await.is_ok() {
        let _ = timeout(STALL_TIME_MAX, stream.finish()).await;
    }
}

async fn act(stream: &mut PeerStream, action: FileAction, files: &Files) -> Result<FileAnswer, Stopped> {
    match action {
        FileAction::Upload { path, length, executable } => upload(stream, &path_of(&path)?, length, executable, files).await,
        FileAction::Download { path, offset } => download(stream, &path_of(&path)?, offset, files).await,
        FileAction::List { path } => {
            let below = if path.is_empty() { None } else { Some(path_of(&path)?) };
            list(below.as_ref(), files).await
        }
        FileAction::Remove { path } => {
            files.remove(&path_of(&path)?).await?;
            Ok(FileAnswer::Done { hash: Hash::ZERO, length: 0 })
        }
    }
}

async fn upload(stream: &mut PeerStream, path: &WorkPath, length: u64, executable: bool, files: &Files) -> Result<FileAnswer, Stopped> {
    let mut file = files.create_write(path, executable, length).await?;
    put(stream, &FileAnswer::Ready { length }).await?;
    let (mut hasher, mut left, mut block) = (blake3::Hasher::new(), length, vec![0; BLOCK_BYTES]);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let Some(room) = block.get_mut(..want) else { return Err(Stopped::Gone) };
        let count = match timeout(STALL_TIME_MAX, stream.raw().read(room)).await {
            // The end before the end: nothing of the file stays.
            Ok(Ok(0) | Err(_)) | Err(_) => return Err(Stopped::Gone),
            Ok(Ok(count)) => count,
        };
        let bytes = block.get(..count).unwrap_or_default();
        hasher.update(bytes);
        file.write(bytes).await?;
        left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
    }
    let length = file.commit().await?;
    Ok(FileAnswer::Done { hash: Hash::from_bytes(*hasher.finalize().as_bytes()), length })
}

async fn download(stream: &mut PeerStream, path: &WorkPath, offset: u64, files: &Files) -> Result<FileAnswer, Stopped> {
    let (mut file, size) = files.open_read(path).await?;
    let Some(length) = size.checked_sub(offset) else {
        return Err(Fault::new(FaultCode::MALFORMED, format!("the file has {size} bytes, fewer than the offset")).into());
    };
    file.seek(std::io::SeekFrom::Start(offset)).await.map_err(|error| Stopped::from(FileError::Io(error)))?;
    put(stream, &FileAnswer::Ready { length }).await?;
    let (mut hasher, mut left, mut block) = (blake3::Hasher::new(), length, vec![0; BLOCK_BYTES]);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let count = match block.get_mut(..want) {
            Some(room) => file.read(room).await.unwrap_or(0),
            None => 0,
        };
        let bytes = block.get(..count).unwrap_or_default();
        // A file that got shorter meanwhile cannot be completed, and raw bytes leave no room to say so.
        if bytes.is_empty() || !matches!(timeout(STALL_TIME_MAX, stream.raw().write_all(bytes)).await, Ok(Ok(()))) {
            return Err(Stopped::Gone);
        }
        hasher.update(bytes);
        left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok(FileAnswer::Done { hash: Hash::from_bytes(*hasher.finalize().as_bytes()), length })
}

async fn list(below: Option<&WorkPath>, files: &Files) -> Result<FileAnswer, Stopped> {
    let listing = match files.list(below, LISTING_LIMIT).await {
        // The path may name a single file.
        Err(FileError::NotDirectory) => match below {
            Some(path) => orien_sandbox::Listing { entries: vec![files.stat(path).await?], ..Default::default() },
            None => return Err(FileError::NotDirectory.into()),
        },
        listing => listing?,
    };
    let (mut entries, mut bytes, mut more) = (Vec::new(), 0_usize, listing.truncated);
    for entry in &listing.entries {
        bytes = bytes.saturating_add(entry.path.as_str().len()).saturating_add(ENTRY_OVERHEAD);
        if bytes > LISTING_BYTES {
            more = true;
            break;
        }
        // Links and devices cannot be fetched, so they are not shown as if they could.
        if matches!(entry.kind, Kind::File | Kind::Directory) {
            entries.push(shown(entry));
        }
    }
    Ok(FileAnswer::Listing { entries, more })
}

fn shown(entry: &Entry) -> FileEntry {
    let since = entry.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    FileEntry {
        path: entry.path.to_string(),
        size: entry.size,
        folder: entry.kind == Kind::Directory,
        executable: entry.executable,
        modified: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    }
}

async fn put(stream: &mut PeerStream, answer: &FileAnswer) -> Result<(), Stopped> {
    match timeout(STALL_TIME_MAX, stream.send(answer)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Stopped::Gone),
    }
}

fn path_of(path: &str) -> Result<WorkPath, Fault> {
    Files::validate_path(path).map_err(|error| Fault::new(FaultCode::BAD_PATH, error))
}

fn fault_of(error: &FileError) -> Fault {
    let code = match error {
        FileError::Missing => FaultCode::NO_SUCH_FILE,
        FileError::TooLarge { .. } => FaultCode::TOO_LARGE,
        FileError::WorkspaceFull => FaultCode::WORKSPACE_FULL,
        FileError::Io(error) => {
            tracing::warn!(%error, "a file operation failed");
            return Fault::new(FaultCode::INTERNAL, "the workspace cannot be used");
        }
        _ => FaultCode::BAD_PATH,
    };
    Fault::new(code, error)
}
