//! Files in and out of a session's workspace, over a stream of their own each.
//!
//! Always true: a file is never held in memory, only the piece that is on its way; both ends hash what they see, and a transfer counts only if the hashes agree. The last piece of a
//! download is held back until they do, so a receiver of all bytes has the right ones.
//!
//! It does not know which paths exist, nor HTTP.

pub(crate) mod tar;
pub(crate) mod tree;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use orien_bootstrap::FrameStream;
use orien_net::{Net, NetError, NetStream, StreamKind};
use orien_protocol::fault::Fault;
use orien_protocol::frame::{FileAction, FileAnswer, FileEntry, FileRequest, STREAM_FRAME_LIMIT, UnfinishedUpload};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::peer::PeerId;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::body::BodyError;

/// One piece on its way: large enough that neither end is busy with counting pieces.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that are watched for being free again: one held back, and those that a connection is busy with.
const PIECES_REMEMBERED: usize = 4;
/// How long the other end may take for its next word or byte.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Longest path; the kernel's own limit.
pub(crate) const PATH_LIMIT: usize = 4096;

/// Why a transfer did not happen, or not to its end.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// The provider cannot be reached.
    #[error(transparent)]
    Unreachable(#[from] NetError),
    /// The provider refuses.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// The stream broke, stalled, or carried something unexpected.
    #[error("the transfer was interrupted: {0}")]
    Interrupted(String),
    /// The sender of an upload did not send what it announced.
    #[error("the body has {found} bytes of the {announced} announced")]
    Length {
        /// What Content-Length said.
        announced: u64,
        /// What came.
        found: u64,
    },
    /// The sender of an upload broke off.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The two ends saw different bytes.
    #[error("the provider has other bytes than were sent or received")]
    Mismatch,
    /// What should be a tar archive is none, or not to its end.
    #[error("the archive cannot be read: {0}")]
    Archive(String),
}

/// A finished transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// BLAKE3 of all bytes.
    pub(crate) hash: Hash,
    /// How many.
    pub(crate) length: u64,
    /// BLAKE3 of the whole file, as the provider says.
    pub(crate) whole: Option<Hash>,
}

/// Which part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The first byte.
    pub(crate) offset: u64,
    /// At most so many.
    pub(crate) length: u64,
    /// Only of this state of the file.
    pub(crate) version: Option<u64>,
}

impl Part {
    /// All of it.
    pub(crate) const WHOLE: Self = Self { offset: 0, length: u64::MAX, version: None };
}

/// What an upload puts where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    pub(crate) path: String,
    /// Bytes that follow.
    pub(crate) length: u64,
    pub(crate) executable: bool,
    /// Bytes that the provider holds of an earlier upload that broke off.
    pub(crate) offset: u64,
    /// What the whole file has to be.
    pub(crate) expected: Option<Hash>,
}

/// A file or folder as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) entry: FileEntry,
    pub(crate) version: u64,
    pub(crate) hash: Option<Hash>,
}

/// Whose workspace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workspace<'a> {
    pub(crate) net: &'a Net,
    pub(crate) provider: PeerId,
    pub(crate) session: SessionId,
}

/// Whether a path stays inside of a workspace, whatever is there.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.len() <= PATH_LIMIT && !path.chars().any(char::is_control) && path.split('/').all(plain)
}

type Frames = FrameStream<NetStream>;

impl Workspace<'_> {
    async fn ask(&self, action: FileAction) -> Result<(Frames, FileAnswer), FileError> {
        let stream = self.net.open(self.provider, StreamKind::File).await?;
        let mut frames = FrameStream::new(stream, STREAM_FRAME_LIMIT);
        timely(frames.send(&FileRequest { session: self.session, action })).await?;
        let answer = next(&mut frames).await?;
        Ok((frames, answer))
    }

    /// Stores a file, or the rest of one. When it breaks off, the provider keeps what came.
    pub(crate) async fn upload(
        &self,
        parcel: Parcel,
        body: impl Stream<Item = Result<Bytes, BodyError>> + Unpin,
    ) -> Result<Moved, FileError> {
        let Parcel { path, length, executable, offset, expected } = parcel;
        let (frames, answer) = self.ask(FileAction::Upload { path, length, executable, offset, expected }).await?;
        let FileAnswer::Ready { .. } = answer else { return Err(unexpected()) };
        let (mut reader, mut writer) = frames.split();
        let (sent, done) = {
            let mut early = std::pin::pin!(reader.recv::<FileAnswer>());
            let mut sending = std::pin::pin!(send_all(writer.raw(), length, body));
            // A provider that gives up halfway says so at once and reads no more.
            tokio::select! {
                sent = &mut sending => (sent?, None),
                answer = &mut early => match answer.map_err(interrupted)? {
                    Some(done @ FileAnswer::Done { .. }) => (sending.await?, Some(done)),
                    other => return Err(early_end(other)),
                },
            }
        };
        let done = match done {
            Some(done) => done,
            None => timely(reader.recv::<FileAnswer>()).await?.ok_or_else(|| interrupted("the provider hung up"))?,
        };
        match done {
            FileAnswer::Done { hash, length, whole } if (hash, length) == (sent.hash, sent.length) => Ok(Moved { whole, ..sent }),
            FileAnswer::Done { .. } => Err(FileError::Mismatch),
            FileAnswer::Refused(fault) => Err(FileError::Refused(fault.tamed())),
            _ => Err(unexpected()),
        }
    }

    /// Uploads that broke off and can go on.
    pub(crate) async fn unfinished(&self) -> Result<Vec<UnfinishedUpload>, FileError> {
        match self.ask(FileAction::Unfinished).await?.1 {
            FileAnswer::Unfinished(uploads) => Ok(uploads),
            _ => Err(unexpected()),
        }
    }

    /// Fetches a file or a part of it.
    pub(crate) async fn download(&self, path: String, part: Part) -> Result<Download, FileError> {
        let Part { offset, length, version } = part;
        let (frames, answer) = self.ask(FileAction::Download { path, offset, length, version }).await?;
        let FileAnswer::Ready { length: left, size, version } = answer else { return Err(unexpected()) };
        if left > length || left > size {
            return Err(unexpected());
        }
        Ok(Download { frames, length: left, version, left, hasher: blake3::Hasher::new(), held: None, moved: None, room: Room::default() })
    }

    /// Looks at one file or folder.
    pub(crate) async fn stat(&self, path: String, hash: bool) -> Result<Found, FileError> {
        match self.ask(FileAction::Stat { path, hash }).await?.1 {
            FileAnswer::Stat { entry, version, hash } => Ok(Found { entry, version, hash }),
            _ => Err(unexpected()),
        }
    }

    /// Lists files below a path and after another, and whether there are more.
    pub(crate) async fn list(&self, path: String, after: Option<String>) -> Result<(Vec<FileEntry>, bool), FileError> {
        match self.ask(FileAction::List { path, after }).await?.1 {
            FileAnswer::Listing { entries, more } => Ok((entries, more)),
            _ => Err(unexpected()),
        }
    }

    /// Removes a file, or a folder with everything in it.
    pub(crate) async fn remove(&self, path: String) -> Result<(), FileError> {
        match self.ask(FileAction::Remove { path }).await?.1 {
            FileAnswer::Done { .. } => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

/// A file on its way to us.
#[derive(Debug)]
pub(crate) struct Download {
    frames: Frames,
    length: u64,
    version: u64,
    left: u64,
    hasher: blake3::Hasher,
    /// The newest piece; given out when the next one is here, or when all are and the hash is right.
    held: Option<Bytes>,
    moved: Option<Moved>,
    room: Room,
}

impl Download {
    /// How many bytes there will be.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Which state of the file this is.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// What was moved, once the last piece has been given out.
    pub(crate) const fn moved(&self) -> Option<Moved> {
        self.moved
    }

    /// The next piece; none after the last.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, FileError> {
        while self.left > 0 {
            let piece = raw_piece(&mut self.frames, self.left, &mut self.room).await?;
            self.left = self.left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            self.hasher.update(&piece);
            if let Some(ready) = self.held.replace(piece) {
                return Ok(Some(ready));
            }
        }
        if self.moved.is_some() {
            return Ok(None);
        }
        match next(&mut self.frames).await? {
            FileAnswer::Done { hash, length, whole } => {
                let moved = Moved { hash: Hash::from_bytes(*self.hasher.finalize().as_bytes()), length: self.length, whole };
                if (hash, length) != (moved.hash, moved.length) {
                    return Err(FileError::Mismatch);
                }
                self.moved = Some(moved);
                Ok(self.held.take())
            }
            _ => Err(unexpected()),
        }
    }
}

/// The next raw bytes of so many: a full piece, or all that is left.
async fn raw_piece(frames: &mut Frames, left: u64, room: &mut Room) -> Result<Bytes, FileError> {
    let mut piece = room.take(usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES));
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match timely(frames.raw().read(rest)).await? {
            0 => return Err(interrupted("the provider hung up")),
            count => filled = filled.saturating_add(count),
        }
    }
    Ok(room.give_out(piece))
}

/// Memory of pieces that were given out; as soon as nobody holds one any more it is filled again.
#[derive(Debug, Default)]
struct Room {
    given: VecDeque<Bytes>,
}

impl Room {
    fn take(&mut self, length: usize) -> BytesMut {
        match self.given.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(mut room)) => {
                room.resize(length, 0);
                return room;
            }
            Some(Err(held)) => self.given.push_front(held),
            None => {}
        }
        BytesMut::zeroed(length)
    }

    fn give_out(&mut self, piece: BytesMut) -> Bytes {
        let piece = piece.freeze();
        if self.given.len() < PIECES_REMEMBERED {
            self.given.push_back(piece.clone());
        }
        piece
    }
}

async fn send_all(
    raw: &mut (impl tokio::io::AsyncWrite + Unpin),
    announced: u64,
    mut body: impl Stream<Item = Result<Bytes, BodyError>> + Unpin,
) -> Result<Moved, FileError> {
    let mut hasher = blake3::Hasher::new();
    let mut found = 0_u64;
    while let Some(piece) = body.next().await {
        let piece = piece?;
        found = found.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if found > announced {
            return Err(FileError::Length { announced, found });
        }
        hasher.update(&piece);
        timely(raw.write_all(&piece)).await?;
    }
    if found != announced {
        return Err(FileError::Length { announced, found });
    }
    timely(raw.flush()).await?;
    Ok(Moved { hash: Hash::from_bytes(*hasher.finalize().as_bytes()), length: found, whole: None })
}

/// The next answer; a refusal is an error.
async fn next(frames: &mut Frames) -> Result<FileAnswer, FileError> {
    match timely(frames.recv::<FileAnswer>()).await? {
        Some(FileAnswer::Refused(fault)) => Err(FileError::Refused(fault.tamed())),
        Some(answer) => Ok(answer),
        None => Err(interrupted("the provider hung up")),
    }
}

async fn timely<T, E: std::fmt::Display>(work: impl Future<Output = Result<T, E>>) -> Result<T, FileError> {
    match tokio::time::timeout(STALL_LIMIT, work).await {
        Ok(done) => done.map_err(interrupted),
        Err(_) => Err(interrupted("nothing moved for too long")),
    }
}

fn early_end(answer: Option<FileAnswer>) -> FileError {
    match answer {
        Some(FileAnswer::Refused(fault)) => FileError::Refused(fault.tamed()),
        Some(_) => unexpected(),
        None => interrupted("the provider hung up"),
    }
}

fn interrupted(reason: impl std::fmt::Display) -> FileError {
    FileError::Interrupted(reason.to_string())
}

fn unexpected() -> FileError {
    interrupted("the provider answered something else than was asked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_inside_are_plain() {
        for path in ["a", "a/b.c", "a b/\u{e4}", "..a", "a..", ".hidden"] {
            assert!(is_plain_path(path), "{path}");
        }
        for path in ["", "/", "/etc/passwd", "../a", "a/../b", "a//b", "a/", ".", "a/.", "a\0", "a\nb", &"a/".repeat(4000)] {
            assert!(!is_plain_path(path), "{path:?}");
        }
    }

    #[tokio::test]
    async fn an_upload_that_is_shorter_or_longer_than_announced_is_refused() {
        for (announced, bytes) in [(4, "abc"), (2, "abc")] {
            let body = futures::stream::iter([Ok::<_, BodyError>(Bytes::from_static(bytes.as_bytes()))]);
            let sent = send_all(&mut tokio::io::sink(), announced, body).await;
            assert!(matches!(sent, Err(FileError::Length { .. })), "{sent:?}");
        }
    }
}
