//! Lists a workspace.
//!
//! Always true: the answer is at most as long as asked for, and no more than twice of that is ever kept in memory; directories with more
//! names than [`NAMES_MAX`] are cut, and `truncated` says so. Entries whose names could not be given back to us are counted, not listed.

use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, Dir, OFlags};

use super::inside::{Inside, entry, refusal};
use super::{Entry, FileError, Kind, WorkPath};
use crate::removal;

/// Names read from one directory: each of them costs a look.
const NAMES_MAX: usize = 100_000;
/// Directories read for one listing, so that empty ones cannot cost more than files.
const DIRECTORIES_MAX: usize = 20_000;

/// What a directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// In order of path, directories before what they hold.
    pub entries: Vec<Entry>,
    /// True when there is more than is listed.
    pub truncated: bool,
    /// Entries left out because their names are not valid paths (not UTF-8, control characters, too deep).
    pub unnameable: usize,
}

pub(super) fn list(inside: &Inside, below: Option<&WorkPath>, limit: usize) -> Result<Listing, FileError> {
    let mut listing = Listing::default();
    let mut directories = 0;
    // A stack with the next path on top gives the order of a walk without recursion.
    let mut pending: Vec<Entry> = Vec::new();
    read(inside, below.map_or(".", WorkPath::as_str), below, limit, &mut pending, &mut listing)?;
    while let Some(next) = pending.pop() {
        if listing.entries.len() >= limit || directories >= DIRECTORIES_MAX {
            listing.truncated = true;
            break;
        }
        if next.kind == Kind::Directory {
            directories += 1;
            let room = limit - listing.entries.len();
            match read(inside, next.path.as_str(), Some(&next.path), room, &mut pending, &mut listing) {
                // Gone, replaced or shut since it was seen.
                Ok(()) | Err(FileError::Missing | FileError::Link | FileError::NotDirectory | FileError::Denied) => {}
                Err(error) => return Err(error),
            }
        }
        listing.entries.push(next);
    }
    Ok(listing)
}

/// Adds what a directory holds to what is pending, of which the first `room` in order are kept: the rest would not be listed any more.
fn read(
    inside: &Inside,
    directory: &str,
    path: Option<&WorkPath>,
    room: usize,
    pending: &mut Vec<Entry>,
    listing: &mut Listing,
) -> Result<(), FileError> {
    // A link at the end is refused by the way paths are resolved here, with its own error.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = inside.open(directory, flags)?;
    let mut found: Vec<Entry> = Vec::new();
    let mut names = 0;
    for item in Dir::read_from(handle.as_fd()).map_err(refusal)? {
        let item = item.map_err(refusal)?;
        if removal::is_self_or_parent(item.file_name()) {
            continue;
        }
        if names >= NAMES_MAX {
            listing.truncated = true;
            break;
        }
        names += 1;
        let name = item.file_name().to_bytes();
        let full = path.map_or_else(|| name.to_vec(), |path| [path.as_str().as_bytes(), b"/", name].concat());
        let Ok(full) = WorkPath::parse_bytes(&full) else {
            listing.unnameable += 1;
            continue;
        };
        if let Ok(stat) = rustix::fs::statat(&handle, item.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            found.push(entry(full, &stat));
        }
        if found.len() > room.saturating_mul(2) {
            found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            found.truncate(room);
            listing.truncated = true;
        }
    }
    found.sort_unstable_by(|a, b| b.path.cmp(&a.path));
    pending.append(&mut found);
    let excess = pending.len().saturating_sub(room);
    listing.truncated |= excess > 0;
    pending.drain(..excess);
    Ok(())
}
