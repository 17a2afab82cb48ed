//! Moves files in and out of a session's workspace, one per stream.
//!
//! Always true: an upload appears whole or not at all, and has exactly the announced length; one that breaks off is kept, so that it can go on; both sides learn the
//! hash of every byte that crossed; a peer that stalls is given up. What a path may be and how much a workspace holds is the sandbox's concern.

use std::time::{Duration, UNIX_EPOCH};

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{FileAction, FileAnswer, FileEntry, LISTING_LIMIT, STREAM_FRAME_LIMIT, UnfinishedUpload};
use orien_protocol::hash::Hash;
use orien_protocol::time::Timestamp;
use orien_sandbox::{Entry, FileError, Files, Kind, Upload, WorkPath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::line::PeerStream;

mod tree;

/// Bytes moved at once; two such blocks per transfer, one on the way and one at the disk.
const BLOCK_BYTES: usize = 512 * 1024;
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
        Err(Stopped::Refused(fault)) => Some(FileAnswer::Refused(fault)),
        Err(Stopped::Gone) => return,
    };
    let said = match &answer {
        Some(answer) => put(&mut stream, answer).await,
        None => Ok(()),
    };
    if said.is_ok() {
        let _ = timeout(STALL_TIME_MAX, stream.finish()).await;
    }
}

/// None when everything has been said.
async fn act(stream: &mut PeerStream, action: FileAction, files: &Files) -> Result<Option<FileAnswer>, Stopped> {
    let answer = match action {
        FileAction::Upload { path, length, executable, offset, expected } => {
            let (path, size) = (path_of(&path)?, offset.saturating_add(length));
            let file = match offset {
                0 => files.create_write(&path, executable, size).await?,
                _ => files.resume_write(&path, executable, offset, size).await?,
            };
            upload(stream, file, length, size, expected).await?
        }
        FileAction::Unfinished => {
            let shown = |(path, held, size): (WorkPath, u64, u64)| UnfinishedUpload { path: path.to_string(), held, size };
            FileAnswer::Unfinished(files.unfinished().into_iter().map(shown).collect())
        }
        FileAction::Download { path, offset, length, version } => {
            download(stream, &path_of(&path)?, (offset, length), version, files).await?
        }
        FileAction::Stat { path, hash } => stat(&path_of(&path)?, hash, files).await?,
        FileAction::List { path, after } => {
            let after = after.as_deref().map(path_of).transpose()?;
            list(folder_of(&path)?.as_ref(), after.as_ref(), files).await?
        }
        FileAction::Remove { path } => {
            files.remove(&path_of(&path)?).await?;
            FileAnswer::Done { hash: Hash::ZERO, length: 0, whole: None }
        }
        FileAction::Pack { path } => return tree::pack(stream, folder_of(&path)?.as_ref(), files).await.map(|()| None),
        FileAction::Unpack { path } => tree::unpack(stream, folder_of(&path)?.as_ref(), files).await?,
    };
    Ok(Some(answer))
}

async fn upload(stream: &mut PeerStream, mut file: Upload, length: u64, size: u64, expected: Option<Hash>) -> Result<FileAnswer, Stopped> {
    put(stream, &FileAnswer::Ready { length, size, version: 0 }).await?;
    let (mut hasher, mut left) = (blake3::Hasher::new(), length);
    let is_whole = length == size;
    let mut spare = Vec::new();
    while left > 0 {
        let Some(block) = block(stream, left, spare).await else {
            // The end before the end: what came can be gone on with.
            file.keep().await;
            return Err(Stopped::Gone);
        };
        left = left.saturating_sub(u64::try_from(block.len()).unwrap_or(u64::MAX));
        if !is_whole {
            hasher.update(&block);
        }
        spare = file.write(block).await?;
    }
    let whole = Hash::from_bytes(file.hash().await?);
    if expected.is_some_and(|expected| expected != whole) {
        return Err(Fault::new(FaultCode::HASH_MISMATCH, format!("the bytes that came have the hash {whole}; nothing was stored")).into());
    }
    file.commit().await?;
    // Of a whole upload the file's hash is the transfer's.
    let hash = if is_whole { whole } else { Hash::from_bytes(*hasher.finalize().as_bytes()) };
    Ok(FileAnswer::Done { hash, length, whole: Some(whole) })
}

/// The next bytes of so many: a block, or fewer if the peer is gone after them; none when there are none. An older block is filled again, as it costs more to make one than to fill it.
async fn block(stream: &mut PeerStream, left: u64, mut block: Vec<u8>) -> Option<Vec<u8>> {
    let want = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
    block.resize(want, 0);
    let mut filled = 0;
    while let Some(room) = block.get_mut(filled..).filter(|room| !room.is_empty()) {
        match timeout(STALL_TIME_MAX, stream.raw().read(room)).await {
            Ok(Ok(0) | Err(_)) | Err(_) => break,
            Ok(Ok(count)) => filled = filled.saturating_add(count),
        }
    }
    block.truncate(filled);
    (filled > 0).then_some(block)
}

async fn download(
    stream: &mut PeerStream,
    path: &WorkPath,
    (offset, length): (u64, u64),
    version: Option<u64>,
    files: &Files,
) -> Result<FileAnswer, Stopped> {
    let mut file = files.open_read(path).await?;
    let (size, current) = (file.size, file.version);
    if version.is_some_and(|version| version != current) {
        return Err(Fault::new(FaultCode::FILE_CHANGED, "the file has changed since").into());
    }
    if offset > size {
        return Err(Fault::new(FaultCode::MALFORMED, format!("the file has {size} bytes, fewer than the offset")).into());
    }
    let length = file.only(offset, length)?;
    put(stream, &FileAnswer::Ready { length, size, version: current }).await?;
    while let Some(block) = file.next(BLOCK_BYTES).await.map_err(|_| Stopped::Gone)? {
        // A file that got shorter meanwhile cannot be completed, and raw bytes leave no room to say so.
        if !matches!(timeout(STALL_TIME_MAX, stream.raw().write_all(&block)).await, Ok(Ok(()))) {
            return Err(Stopped::Gone);
        }
        file.give_back(block);
    }
    let hash = file.hash().map(Hash::from_bytes).ok_or(Stopped::Gone)?;
    Ok(FileAnswer::Done { hash, length, whole: (length == size).then_some(hash) })
}

async fn stat(path: &WorkPath, with_hash: bool, files: &Files) -> Result<FileAnswer, Stopped> {
    let (entry, version) = files.stat(path).await?;
    if !matches!(entry.kind, Kind::File | Kind::Directory) {
        return Err(FileError::NotRegular.into());
    }
    let mut hash = None;
    if with_hash && entry.kind == Kind::File {
        let mut file = files.open_read(path).await?;
        while let Some(block) = file.next(BLOCK_BYTES).await? {
            file.give_back(block);
        }
        hash = file.hash().filter(|_| file.version == version).map(Hash::from_bytes);
    }
    Ok(FileAnswer::Stat { entry: shown(&entry), version, hash })
}

async fn list(below: Option<&WorkPath>, after: Option<&WorkPath>, files: &Files) -> Result<FileAnswer, Stopped> {
    let listing = match files.list(below, after, LISTING_LIMIT).await {
        // The path may name a single file.
        Err(FileError::NotDirectory) => match below {
            Some(path) => orien_sandbox::Listing { entries: vec![files.stat(path).await?.0], ..Default::default() },
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
    FileEntry {
        path: entry.path.to_string(),
        size: entry.size,
        folder: entry.kind == Kind::Directory,
        executable: entry.executable,
        modified: modified(entry),
    }
}

fn modified(entry: &Entry) -> Timestamp {
    let since = entry.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn put(stream: &mut PeerStream, answer: &impl serde::Serialize) -> Result<(), Stopped> {
    match timeout(STALL_TIME_MAX, stream.send(answer)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Stopped::Gone),
    }
}

/// A folder, or the workspace itself.
fn folder_of(path: &str) -> Result<Option<WorkPath>, Fault> {
    (!path.is_empty()).then(|| path_of(path)).transpose()
}

fn path_of(path: &str) -> Result<WorkPath, Fault> {
    Files::validate_path(path).map_err(|error| Fault::new(FaultCode::BAD_PATH, error))
}

fn fault_of(error: &FileError) -> Fault {
    let code = match error {
        FileError::Missing => FaultCode::NO_SUCH_FILE,
        FileError::TooLarge { .. } => FaultCode::TOO_LARGE,
        FileError::WorkspaceFull => FaultCode::WORKSPACE_FULL,
        FileError::TooManyUploads { .. } => FaultCode::BUSY,
        FileError::NothingToResume | FileError::WrongOffset { .. } => FaultCode::WRONG_OFFSET,
        FileError::Io(error) => {
            tracing::warn!(%error, "a file operation failed");
            return Fault::new(FaultCode::INTERNAL, "the workspace cannot be used");
        }
        _ => FaultCode::BAD_PATH,
    };
    Fault::new(code, error)
}
