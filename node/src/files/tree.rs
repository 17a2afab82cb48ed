//! Moves a whole tree in one stream, so that many small files cost no waiting for each other.
//!
//! Always true: each file appears whole, with the hash that was announced for it, or not at all; what cannot be stored is named and does not keep the rest from being stored; the number of entries
//! is bounded, and so is what is held in memory. Links, devices and what is gone by the time it is read are left out of a tree that is fetched.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{FileAnswer, LISTING_LIMIT, TREE_ENTRIES_LIMIT, TREE_PROBLEMS_LIMIT, TREE_SMALL_LIMIT, TreeFrame, TreeProblem};
use orien_protocol::hash::Hash;
use orien_sandbox::{Entry, FileError, Files, Item, Kind, Small, WorkPath};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{BLOCK_BYTES, STALL_TIME_MAX, Stopped, block, fault_of, modified, path_of, put};
use crate::line::PeerStream;

/// Small files that are read or stored at once: what they hold together.
const BATCH_BYTES: usize = 1024 * 1024;
/// And how many they are.
const BATCH_ITEMS: usize = 128;

/// Stores a tree.
pub(super) async fn unpack(stream: &mut PeerStream, base: Option<&WorkPath>, files: &Files) -> Result<FileAnswer, Stopped> {
    put(stream, &FileAnswer::Ready { length: 0, size: 0, version: 0 }).await?;
    let mut unpacking = Unpacking { base, files, waiting: Vec::new(), waiting_bytes: 0, tally: Tally::default() };
    let mut entries = 0_u64;
    loop {
        let frame = match timeout(STALL_TIME_MAX, stream.recv::<TreeFrame>()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Err(error)) => return Err(Fault::new(FaultCode::MALFORMED, error).into()),
            Ok(Ok(None)) | Err(_) => return Err(Stopped::Gone),
        };
        entries = entries.saturating_add(1);
        if entries > TREE_ENTRIES_LIMIT.saturating_add(1) {
            return Err(Fault::new(FaultCode::TOO_LARGE, format!("a tree has at most {TREE_ENTRIES_LIMIT} entries")).into());
        }
        match frame {
            TreeFrame::Folder { path, .. } => unpacking.add(&path, |path| Ok(Item::Directory(path))).await?,
            TreeFrame::Small { path, executable, bytes, hash, .. } => {
                let item = |path| match Hash::of(&bytes) == hash {
                    true => Ok(Item::File(Small { path, executable, bytes })),
                    false => Err(other_bytes()),
                };
                unpacking.add(&path, item).await?;
            }
            TreeFrame::Large { path, executable, length, .. } => unpacking.large(stream, path, executable, length).await?,
            TreeFrame::End => break,
            TreeFrame::Sum(_) | TreeFrame::Refused(_) => {
                return Err(Fault::new(FaultCode::MALFORMED, "this does not belong here").into());
            }
        }
    }
    unpacking.store().await?;
    let Tally { files, folders, bytes, problems, more } = unpacking.tally;
    Ok(FileAnswer::Unpacked { files, folders, bytes, problems, more })
}

/// What became of a tree.
#[derive(Default)]
struct Tally {
    files: u64,
    folders: u64,
    bytes: u64,
    problems: Vec<TreeProblem>,
    more: u64,
}

impl Tally {
    fn problem(&mut self, path: String, fault: Fault) {
        if self.problems.len() < TREE_PROBLEMS_LIMIT {
            self.problems.push(TreeProblem { path, fault });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    fn file(&mut self, bytes: u64) {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

struct Unpacking<'a> {
    base: Option<&'a WorkPath>,
    files: &'a Files,
    /// Small things that are stored together, with their paths as the agent knows them.
    waiting: Vec<(String, Item)>,
    waiting_bytes: usize,
    tally: Tally,
}

impl Unpacking<'_> {
    fn at(&self, path: &str) -> Result<WorkPath, Fault> {
        // Checked by itself: what is joined to a folder must not begin at the root.
        let own = path_of(path)?;
        match self.base {
            Some(base) => path_of(&format!("{base}/{own}")),
            None => Ok(own),
        }
    }

    /// One more small thing.
    async fn add(&mut self, path: &str, item: impl FnOnce(WorkPath) -> Result<Item, Fault>) -> Result<(), Stopped> {
        match self.at(path).and_then(item) {
            Ok(item) => {
                if let Item::File(small) = &item {
                    self.waiting_bytes = self.waiting_bytes.saturating_add(small.bytes.len());
                }
                self.waiting.push((path.to_owned(), item));
            }
            Err(fault) => self.tally.problem(path.to_owned(), fault),
        }
        if self.waiting.len() >= BATCH_ITEMS || self.waiting_bytes >= BATCH_BYTES { self.store().await } else { Ok(()) }
    }

    /// Stores what waits.
    async fn store(&mut self) -> Result<(), Stopped> {
        self.waiting_bytes = 0;
        let (paths, items): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        let sizes: Vec<_> = items.iter().map(|item| if let Item::File(small) = item { Some(small.bytes.len()) } else { None }).collect();
        let stored = match self.files.store_small(items).await {
            Ok(stored) => stored,
            Err(FileError::WorkspaceFull) => paths.iter().map(|_| Err(FileError::WorkspaceFull)).collect(),
            Err(error) => return Err(error.into()),
        };
        for ((path, size), stored) in paths.into_iter().zip(sizes).zip(stored) {
            match (stored, size) {
                (Ok(()), Some(size)) => self.tally.file(u64::try_from(size).unwrap_or(u64::MAX)),
                (Ok(()), None) => self.tally.folders = self.tally.folders.saturating_add(1),
                (Err(error), _) => self.tally.problem(path, fault_of(&error)),
            }
        }
        Ok(())
    }

    async fn large(&mut self, stream: &mut PeerStream, path: String, executable: bool, length: u64) -> Result<(), Stopped> {
        // In the order in which they came: the same path may come twice.
        self.store().await?;
        let mut upload = match self.at(&path) {
            Ok(at) => self.files.create_write(&at, executable, length).await.map_err(|error| fault_of(&error)),
            Err(fault) => Err(fault),
        };
        let (mut left, mut spare) = (length, Vec::new());
        while left > 0 {
            let block = block(stream, left, std::mem::take(&mut spare)).await.ok_or(Stopped::Gone)?;
            left = left.saturating_sub(u64::try_from(block.len()).unwrap_or(u64::MAX));
            // What has no place is read all the same: the next one comes after it.
            if let Ok(file) = &mut upload {
                match file.write(block).await {
                    Ok(block) => spare = block,
                    Err(error) => upload = Err(fault_of(&error)),
                }
            }
        }
        let Ok(Ok(Some(TreeFrame::Sum(announced)))) = timeout(STALL_TIME_MAX, stream.recv::<TreeFrame>()).await else {
            return Err(Stopped::Gone);
        };
        let stored = match upload {
            Err(fault) => Err(fault),
            Ok(mut file) => match file.hash().await {
                Ok(hash) if Hash::from_bytes(hash) == announced => file.commit().await.map_err(|error| fault_of(&error)),
                Ok(_) => Err(other_bytes()),
                Err(error) => Err(fault_of(&error)),
            },
        };
        match stored {
            Ok((bytes, _)) => self.tally.file(bytes),
            Err(fault) => self.tally.problem(path, fault),
        }
        Ok(())
    }
}

fn other_bytes() -> Fault {
    Fault::new(FaultCode::HASH_MISMATCH, "other bytes arrived than were announced")
}

/// Sends a tree.
pub(super) async fn pack(stream: &mut PeerStream, base: Option<&WorkPath>, files: &Files) -> Result<(), Stopped> {
    let mut listing = files.list(base, None, LISTING_LIMIT).await?;
    put(stream, &FileAnswer::Ready { length: 0, size: 0, version: 0 }).await?;
    let mut entries = 0_u64;
    loop {
        entries = entries.saturating_add(u64::try_from(listing.entries.len()).unwrap_or(u64::MAX));
        if let Err(stopped) = page(stream, base, &listing.entries, files).await {
            return refuse(stream, stopped).await;
        }
        let Some(last) = listing.entries.last().filter(|_| listing.truncated) else { break };
        if entries >= TREE_ENTRIES_LIMIT {
            let fault =
                Fault::new(FaultCode::TOO_LARGE, format!("there are more than {TREE_ENTRIES_LIMIT} entries; fetch parts of the tree"));
            return put(stream, &TreeFrame::Refused(fault)).await;
        }
        let after = last.path.clone();
        listing = match files.list(base, Some(&after), LISTING_LIMIT).await {
            Ok(listing) => listing,
            Err(error) => return refuse(stream, error.into()).await,
        };
    }
    put(stream, &TreeFrame::End).await
}

/// Says within the tree what ends it.
async fn refuse(stream: &mut PeerStream, stopped: Stopped) -> Result<(), Stopped> {
    match stopped {
        Stopped::Refused(fault) => put(stream, &TreeFrame::Refused(fault)).await,
        Stopped::Gone => Err(Stopped::Gone),
    }
}

async fn page(stream: &mut PeerStream, base: Option<&WorkPath>, entries: &[Entry], files: &Files) -> Result<(), Stopped> {
    let is_small = |entry: &Entry| entry.kind == Kind::File && entry.size <= TREE_SMALL_LIMIT as u64;
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let mut bytes = 0_usize;
        let small = rest.iter().take(BATCH_ITEMS).take_while(|entry| {
            let fits = bytes < BATCH_BYTES;
            bytes = bytes.saturating_add(usize::try_from(entry.size).unwrap_or(usize::MAX));
            fits && is_small(entry)
        });
        let count = small.count();
        let (batch, after) = rest.split_at(count.max(1));
        rest = after;
        match first.kind {
            Kind::Directory => put(stream, &TreeFrame::Folder { path: below(base, first), modified: modified(first) }).await?,
            Kind::File if count == 0 => large(stream, base, first, files).await?,
            Kind::File => smalls(stream, base, batch, files).await?,
            Kind::Link | Kind::Other => {}
        }
    }
    Ok(())
}

/// A path as seen from the folder that was asked for.
fn below(base: Option<&WorkPath>, entry: &Entry) -> String {
    let path = entry.path.as_str();
    let cut = base.and_then(|base| path.strip_prefix(base.as_str())).and_then(|rest| rest.strip_prefix('/'));
    cut.unwrap_or(path).to_owned()
}

async fn smalls(stream: &mut PeerStream, base: Option<&WorkPath>, batch: &[Entry], files: &Files) -> Result<(), Stopped> {
    let paths = batch.iter().map(|entry| entry.path.clone()).collect();
    let loaded = files.load_small(paths, TREE_SMALL_LIMIT as u64).await?;
    for (entry, loaded) in batch.iter().zip(loaded) {
        match loaded {
            Ok(Small { executable, bytes, .. }) => {
                let hash = Hash::of(&bytes);
                put(stream, &TreeFrame::Small { path: below(base, entry), executable, modified: modified(entry), bytes, hash }).await?;
            }
            // It has grown since it was listed.
            Err(FileError::TooLarge { .. }) => large(stream, base, entry, files).await?,
            Err(error) => left_out(&error)?,
        }
    }
    Ok(())
}

async fn large(stream: &mut PeerStream, base: Option<&WorkPath>, entry: &Entry, files: &Files) -> Result<(), Stopped> {
    let mut file = match files.open_read(&entry.path).await {
        Ok(file) => file,
        Err(error) => return left_out(&error),
    };
    let frame = TreeFrame::Large { path: below(base, entry), executable: entry.executable, modified: modified(entry), length: file.size };
    put(stream, &frame).await?;
    while let Some(block) = file.next(BLOCK_BYTES).await.map_err(|_| Stopped::Gone)? {
        if !matches!(timeout(STALL_TIME_MAX, stream.raw().write_all(&block)).await, Ok(Ok(()))) {
            return Err(Stopped::Gone);
        }
        file.give_back(block);
    }
    let hash = file.hash().map(Hash::from_bytes).ok_or(Stopped::Gone)?;
    put(stream, &TreeFrame::Sum(hash)).await
}

/// Fine if it is a fault of the file alone: gone, replaced or shut since it was listed, or linked.
fn left_out(error: &FileError) -> Result<(), Stopped> {
    match error {
        FileError::Io(_) => Err(fault_of(error).into()),
        _ => Ok(()),
    }
}
