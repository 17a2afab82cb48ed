//! Whole trees in and out of a workspace, each over one stream, as tar archives on our side.
//!
//! Always true: every file of a tree is hashed at both ends and counts only if they agree; of a file that is fetched the last piece is held back until they do. No more than a few pieces are in
//! memory, however large the tree is. What cannot be stored is named and does not keep the rest from being stored.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::Stream;
use orien_bootstrap::{FrameReader, FrameWriter};
use orien_net::NetStream;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{FileAction, FileAnswer, TREE_ENTRIES_LIMIT, TREE_SMALL_LIMIT, TreeFrame, TreeProblem};
use orien_protocol::hash::Hash;
use orien_protocol::time::Timestamp;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::io::StreamReader;

use super::tar::{self, Found, Raw, TarReader};
use super::{FileError, Frames, PIECE_BYTES, Room, Workspace, interrupted, is_plain_path, raw_piece, timely, unexpected};
use crate::body::BodyError;

/// Small files are put together until so many bytes can go out at once.
const OUT_BYTES: usize = 128 * 1024;
/// Problems that are named in one answer.
const PROBLEMS_LIMIT: usize = 100;

/// What became of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) files: u64,
    pub(crate) folders: u64,
    pub(crate) bytes: u64,
    /// What was not stored, and why.
    pub(crate) problems: Vec<TreeProblem>,
    /// How many more were not.
    pub(crate) more: u64,
    /// What ended the archive before its end.
    pub(crate) broken: Option<String>,
}

impl Unpacked {
    fn problem(&mut self, path: String, fault: Fault) {
        if self.problems.len() < PROBLEMS_LIMIT {
            self.problems.push(TreeProblem { path, fault });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl Workspace<'_> {
    /// Stores what is in a tar archive below a folder.
    pub(crate) async fn unpack(
        &self,
        path: String,
        body: impl Stream<Item = Result<Bytes, BodyError>> + Unpin,
    ) -> Result<Unpacked, FileError> {
        let (frames, answer) = self.ask(FileAction::Unpack { path }).await?;
        let FileAnswer::Ready { .. } = answer else { return Err(unexpected()) };
        let (mut reader, writer) = frames.split();
        let body = futures::StreamExt::map(body, |piece| piece.map_err(std::io::Error::other));
        let mut sending = Sending { writer, unpacked: Unpacked::default(), names: 0 };
        match sending.all(tar::read(StreamReader::new(body))).await {
            Ok(()) => sending.finish(&mut reader).await,
            // The provider says why it reads no more, if it can.
            Err(FileError::Interrupted(why)) => match timely(reader.recv::<FileAnswer>()).await {
                Ok(Some(FileAnswer::Refused(fault))) => Err(FileError::Refused(fault.tamed())),
                _ => Err(FileError::Interrupted(why)),
            },
            Err(error) => Err(error),
        }
    }

    /// Fetches everything below a folder, as the bytes of a tar archive.
    pub(crate) async fn pack(&self, path: String) -> Result<Packing, FileError> {
        let (frames, answer) = self.ask(FileAction::Pack { path }).await?;
        let FileAnswer::Ready { .. } = answer else { return Err(unexpected()) };
        Ok(Packing { frames, room: Room::default(), entries: 0, large: None, ready: VecDeque::new(), out: Vec::new(), ended: false })
    }
}

fn unreadable(error: &std::io::Error) -> FileError {
    BodyError::below(error).map_or_else(|| FileError::Archive(error.to_string()), FileError::Body)
}

struct Sending {
    writer: FrameWriter<WriteHalf<NetStream>>,
    unpacked: Unpacked,
    /// Entries that were given on.
    names: u64,
}

impl Sending {
    async fn all<R: AsyncRead + Unpin, E: Raw<R>>(&mut self, mut archive: TarReader<R, E>) -> Result<(), FileError> {
        loop {
            match archive.next().await {
                Ok(Some(found)) => {
                    if self.names >= TREE_ENTRIES_LIMIT {
                        self.unpacked.broken = Some(format!("a tree has at most {TREE_ENTRIES_LIMIT} entries in one request"));
                        return Ok(());
                    }
                    self.one(&mut archive, found).await?;
                }
                Ok(None) => return Ok(()),
                Err(why) => {
                    if let Some(error) = BodyError::below(&why) {
                        return Err(error.into());
                    }
                    self.unpacked.broken = Some(why.to_string());
                    return Ok(());
                }
            }
        }
    }

    async fn one<R: AsyncRead + Unpin, E: Raw<R>>(&mut self, archive: &mut TarReader<R, E>, found: Found) -> Result<(), FileError> {
        match found {
            Found::Problem { path, code, why } => {
                self.unpacked.problem(path, Fault::new(code, why));
                Ok(())
            }
            Found::Folder { path, modified } => self.send(&TreeFrame::Folder { path, modified }).await,
            Found::File { path, executable, modified, length } if length <= TREE_SMALL_LIMIT as u64 => {
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(TREE_SMALL_LIMIT)];
                archive.read_exact(&mut bytes).await.map_err(|error| unreadable(&error))?;
                let hash = Hash::of(&bytes);
                self.send(&TreeFrame::Small { path, executable, modified, bytes, hash }).await
            }
            Found::File { path, executable, modified, length } => {
                self.send(&TreeFrame::Large { path, executable, modified, length }).await?;
                let sum = self.raw(archive, length).await?;
                timely(self.writer.send(&TreeFrame::Sum(sum))).await
            }
        }
    }

    async fn send(&mut self, frame: &TreeFrame) -> Result<(), FileError> {
        self.names = self.names.saturating_add(1);
        timely(self.writer.send(frame)).await
    }

    async fn raw<R: AsyncRead + Unpin, E: Raw<R>>(&mut self, archive: &mut TarReader<R, E>, length: u64) -> Result<Hash, FileError> {
        let (mut hasher, mut left, mut piece) = (blake3::Hasher::new(), length, vec![0; PIECE_BYTES]);
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let Some(part) = piece.get_mut(..want) else { return Err(unexpected()) };
            archive.read_exact(part).await.map_err(|error| unreadable(&error))?;
            hasher.update(part);
            timely(self.writer.raw().write_all(part)).await?;
            left = left.saturating_sub(u64::try_from(want).unwrap_or(u64::MAX));
        }
        Ok(Hash::from_bytes(*hasher.finalize().as_bytes()))
    }

    async fn finish(mut self, reader: &mut FrameReader<ReadHalf<NetStream>>) -> Result<Unpacked, FileError> {
        timely(self.writer.send(&TreeFrame::End)).await?;
        match timely(reader.recv::<FileAnswer>()).await?.ok_or_else(|| interrupted("the provider hung up"))? {
            FileAnswer::Unpacked { files, folders, bytes, problems, more } => {
                let mut unpacked = self.unpacked;
                (unpacked.files, unpacked.folders, unpacked.bytes) = (files, folders, bytes);
                for problem in problems {
                    unpacked.problem(problem.path, problem.fault.tamed());
                }
                unpacked.more = unpacked.more.saturating_add(more);
                Ok(unpacked)
            }
            FileAnswer::Refused(fault) => Err(FileError::Refused(fault.tamed())),
            _ => Err(unexpected()),
        }
    }
}

/// A tree on its way to us.
#[derive(Debug)]
pub(crate) struct Packing {
    frames: Frames,
    room: Room,
    entries: u64,
    large: Option<Large>,
    /// What can be given out.
    ready: VecDeque<Bytes>,
    /// Small things that are put together.
    out: Vec<u8>,
    ended: bool,
}

/// The file whose raw bytes come now.
#[derive(Debug)]
struct Large {
    length: u64,
    left: u64,
    hasher: blake3::Hasher,
    held: Option<Bytes>,
}

impl Packing {
    /// The next bytes of the archive; none after the last.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, FileError> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            if self.ended {
                return Ok(None);
            }
            match self.large.take() {
                Some(large) => self.raw(large).await?,
                None => self.frame().await?,
            }
        }
    }

    async fn frame(&mut self) -> Result<(), FileError> {
        let frame = timely(self.frames.recv::<TreeFrame>()).await?.ok_or_else(|| interrupted("the provider hung up"))?;
        match frame {
            TreeFrame::Folder { path, modified } => {
                self.entry(&path)?;
                tar::put_folder(&mut self.out, &path, modified);
            }
            TreeFrame::Small { path, executable, modified, bytes, hash } => {
                self.entry(&path)?;
                if Hash::of(&bytes) != hash {
                    return Err(FileError::Mismatch);
                }
                self.head(&path, executable, modified, bytes.len() as u64);
                self.out.extend_from_slice(&bytes);
                tar::pad(&mut self.out, bytes.len() as u64);
            }
            TreeFrame::Large { path, executable, modified, length } => {
                self.entry(&path)?;
                self.head(&path, executable, modified, length);
                self.give_out();
                self.large = Some(Large { length, left: length, hasher: blake3::Hasher::new(), held: None });
            }
            TreeFrame::End => {
                tar::put_end(&mut self.out);
                self.give_out();
                self.ended = true;
            }
            TreeFrame::Refused(fault) => return Err(FileError::Refused(fault.tamed())),
            TreeFrame::Sum(_) => return Err(unexpected()),
        }
        if self.out.len() >= OUT_BYTES {
            self.give_out();
        }
        Ok(())
    }

    /// One more entry, with a path that may stand in an archive.
    fn entry(&mut self, path: &str) -> Result<(), FileError> {
        self.entries = self.entries.saturating_add(1);
        // A page of a listing may go beyond the limit before that is noticed.
        if self.entries > TREE_ENTRIES_LIMIT.saturating_mul(2) {
            return Err(Fault::new(FaultCode::TOO_LARGE, "the provider sends more entries than a tree may have").into());
        }
        if is_plain_path(path) { Ok(()) } else { Err(interrupted("the provider sends paths that lead out of the tree")) }
    }

    fn head(&mut self, path: &str, executable: bool, modified: Timestamp, length: u64) {
        tar::put_file(&mut self.out, path, executable, modified, length);
    }

    fn give_out(&mut self) {
        if !self.out.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.out).into());
        }
    }

    async fn raw(&mut self, mut large: Large) -> Result<(), FileError> {
        if large.left > 0 {
            let piece = raw_piece(&mut self.frames, large.left, &mut self.room).await?;
            large.left = large.left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            large.hasher.update(&piece);
            self.ready.extend(large.held.replace(piece));
            self.large = Some(large);
            return Ok(());
        }
        let TreeFrame::Sum(sum) = self.sum().await? else { return Err(unexpected()) };
        if sum != Hash::from_bytes(*large.hasher.finalize().as_bytes()) {
            return Err(FileError::Mismatch);
        }
        self.ready.extend(large.held.take());
        tar::pad(&mut self.out, large.length);
        Ok(())
    }

    async fn sum(&mut self) -> Result<TreeFrame, FileError> {
        timely(self.frames.recv::<TreeFrame>()).await?.ok_or_else(|| interrupted("the provider hung up"))
    }
}
