//! The workspace of the provider by script: a map of files, and uploads that broke off.
//!
//! A file whose name begins with `wrong` is announced with a wrong hash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use orien_bootstrap::FrameStream;
use orien_net::NetStream;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::*;
use orien_protocol::hash::Hash;
use orien_protocol::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Seen;

type Frames = FrameStream<NetStream>;
type Stored = (Vec<u8>, bool);

fn hash_of(path: &str, bytes: &[u8]) -> Hash {
    if path.starts_with("wrong") { Hash::ZERO } else { Hash::of(bytes) }
}

fn version(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(Hash::of(bytes).as_bytes()[..8].try_into().unwrap())
}

fn entry(path: &str, (bytes, executable): &Stored) -> FileEntry {
    FileEntry { path: path.to_owned(), size: bytes.len() as u64, folder: false, executable: *executable, modified: Timestamp(0) }
}

fn refused(code: FaultCode) -> FileAnswer {
    FileAnswer::Refused(Fault::new(code, "not here"))
}

pub(super) async fn serve(seen: Arc<Mutex<Seen>>, stream: NetStream) {
    let mut frames = FrameStream::new(stream, STREAM_FRAME_LIMIT);
    let Ok(Some(request)) = frames.recv::<FileRequest>().await else { return };
    if let Some(answer) = act(&seen, &mut frames, request.action).await {
        let _ = frames.send(&answer).await;
    }
    let _ = frames.finish().await;
    // Until the other side has read it.
    let _ = frames.recv::<FileAnswer>().await;
}

/// None when everything has been said, or nobody listens.
async fn act(seen: &Mutex<Seen>, frames: &mut Frames, action: FileAction) -> Option<FileAnswer> {
    let found = |path: &str| seen.lock().unwrap().files.get(path).cloned();
    Some(match action {
        FileAction::Upload { path, length, executable, offset, expected } => {
            upload(seen, frames, (path, length, executable), offset, expected).await?
        }
        FileAction::Unfinished => FileAnswer::Unfinished(
            seen.lock()
                .unwrap()
                .unfinished
                .iter()
                .map(|(path, (bytes, size))| UnfinishedUpload { path: path.clone(), held: bytes.len() as u64, size: *size })
                .collect(),
        ),
        FileAction::Download { path, offset, length, version: wanted } => match found(&path) {
            None => refused(FaultCode::NO_SUCH_FILE),
            Some((bytes, _)) if wanted.is_some_and(|wanted| wanted != version(&bytes)) => refused(FaultCode::FILE_CHANGED),
            Some((bytes, _)) => {
                let size = bytes.len() as u64;
                let end = offset.saturating_add(length).min(size);
                let part = &bytes[usize::try_from(offset).unwrap()..usize::try_from(end).unwrap()];
                frames.send(&FileAnswer::Ready { length: end - offset, size, version: version(&bytes) }).await.ok()?;
                frames.raw().write_all(part).await.ok()?;
                FileAnswer::Done { hash: hash_of(&path, part), length: end - offset, whole: None }
            }
        },
        FileAction::Stat { path, hash } => match found(&path) {
            None => refused(FaultCode::NO_SUCH_FILE),
            Some(file) => FileAnswer::Stat { entry: entry(&path, &file), version: version(&file.0), hash: hash.then(|| Hash::of(&file.0)) },
        },
        FileAction::List { path: below, after } => {
            let seen = seen.lock().unwrap();
            let is_below = |path: &str| below.is_empty() || path == below || path.starts_with(&format!("{below}/"));
            let mut entries: Vec<_> = seen.files.iter().filter(|(path, _)| is_below(path)).map(|(path, file)| entry(path, file)).collect();
            if entries.is_empty() && !below.is_empty() {
                return Some(refused(FaultCode::NO_SUCH_FILE));
            }
            entries.retain(|entry| after.as_ref().is_none_or(|after| entry.path > *after));
            let more = entries.len() > LISTING_LIMIT;
            entries.truncate(LISTING_LIMIT);
            FileAnswer::Listing { entries, more }
        }
        FileAction::Remove { path } => {
            let mut seen = seen.lock().unwrap();
            let before = seen.files.len();
            seen.files.retain(|other, _| *other != path && !other.starts_with(&format!("{path}/")));
            match seen.files.len() {
                after if after < before => FileAnswer::Done { hash: Hash::ZERO, length: 0, whole: None },
                _ => refused(FaultCode::NO_SUCH_FILE),
            }
        }
        FileAction::Pack { .. } => {
            let files = seen.lock().unwrap().files.clone();
            pack(frames, files).await;
            return None;
        }
        FileAction::Unpack { path } => unpack(seen, frames, &path).await?,
    })
}

async fn upload(
    seen: &Mutex<Seen>,
    frames: &mut Frames,
    (path, length, executable): (String, u64, bool),
    offset: u64,
    expected: Option<Hash>,
) -> Option<FileAnswer> {
    let size = offset + length;
    let kept = seen.lock().unwrap().unfinished.remove(&path);
    let mut bytes = match kept {
        Some((held, whole)) if held.len() as u64 == offset && whole == size => held,
        Some(other) if offset > 0 => {
            seen.lock().unwrap().unfinished.insert(path, other);
            return Some(refused(FaultCode::WRONG_OFFSET));
        }
        None if offset > 0 => return Some(refused(FaultCode::WRONG_OFFSET)),
        _ => Vec::new(),
    };
    let before = bytes.len();
    frames.send(&FileAnswer::Ready { length, size, version: 0 }).await.ok()?;
    while (bytes.len() as u64) < size {
        let left = size - bytes.len() as u64;
        match frames.raw().take(left).read_buf(&mut bytes).await {
            Ok(count) if count > 0 => {}
            _ => {
                seen.lock().unwrap().unfinished.insert(path, (bytes, size));
                return None;
            }
        }
    }
    if expected.is_some_and(|expected| expected != Hash::of(&bytes)) {
        return Some(refused(FaultCode::HASH_MISMATCH));
    }
    let answer = FileAnswer::Done { hash: hash_of(&path, &bytes[before..]), length, whole: Some(hash_of(&path, &bytes)) };
    seen.lock().unwrap().files.insert(path, (bytes, executable));
    Some(answer)
}

async fn pack(frames: &mut Frames, files: BTreeMap<String, Stored>) {
    let _ = frames.send(&FileAnswer::Ready { length: 0, size: 0, version: 0 }).await;
    let modified = Timestamp(1_700_000_000_000);
    for (path, (bytes, executable)) in files {
        let hash = hash_of(&path, &bytes);
        if bytes.len() <= TREE_SMALL_LIMIT {
            let _ = frames.send(&TreeFrame::Small { path, executable, modified, bytes, hash }).await;
        } else {
            let _ = frames.send(&TreeFrame::Large { path, executable, modified, length: bytes.len() as u64 }).await;
            let _ = frames.raw().write_all(&bytes).await;
            let _ = frames.send(&TreeFrame::Sum(hash)).await;
        }
    }
    let _ = frames.send(&TreeFrame::End).await;
}

async fn unpack(seen: &Mutex<Seen>, frames: &mut Frames, base: &str) -> Option<FileAnswer> {
    frames.send(&FileAnswer::Ready { length: 0, size: 0, version: 0 }).await.ok()?;
    let at = |path: &str| if base.is_empty() { path.to_owned() } else { format!("{base}/{path}") };
    let (mut files, mut folders, mut total, mut problems) = (0, 0, 0, Vec::new());
    loop {
        let (path, executable, bytes) = match frames.recv::<TreeFrame>().await.ok()?? {
            TreeFrame::End => return Some(FileAnswer::Unpacked { files, folders, bytes: total, problems, more: 0 }),
            TreeFrame::Folder { .. } => {
                folders += 1;
                continue;
            }
            TreeFrame::Small { path, executable, bytes, hash, .. } => {
                assert_eq!(Hash::of(&bytes), hash);
                (path, executable, bytes)
            }
            TreeFrame::Large { path, executable, length, .. } => {
                let mut bytes = vec![0; usize::try_from(length).unwrap()];
                frames.raw().read_exact(&mut bytes).await.ok()?;
                assert_eq!(frames.recv::<TreeFrame>().await.ok()??, TreeFrame::Sum(Hash::of(&bytes)));
                (path, executable, bytes)
            }
            TreeFrame::Sum(_) | TreeFrame::Refused(_) => return None,
        };
        if path.starts_with("full") {
            problems.push(TreeProblem { path, fault: Fault::new(FaultCode::WORKSPACE_FULL, "full") });
            continue;
        }
        files += 1;
        total += bytes.len() as u64;
        seen.lock().unwrap().files.insert(at(&path), (bytes, executable));
    }
}
