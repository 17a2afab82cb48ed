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

/// What a listing leaves out because an earlier one had it.
fn is_wanted(entry: &Entry, after: Option<&WorkPath>) -> bool {
    after.is_none_or(|after| entry.path.walk_order(after).is_gt())
}

/// Whether something below a directory may still be wanted.
fn may_hold(directory: &WorkPath, after: Option<&WorkPath>) -> bool {
    after.is_none_or(|after| directory.walk_order(after).is_gt() || after.is_at_or_below(directory))
}

pub(super) fn list(inside: &Inside, below: Option<&WorkPath>, after: Option<&WorkPath>, limit: usize) -> Result<Listing, FileError> {
    let mut listing = Listing::default();
    let mut directories = 0;
    // A stack with the next path on top gives the order of a walk without recursion.
    let mut pending: Vec<Entry> = Vec::new();
    let reading = Reading { inside, after };
    reading.read(below.map_or(".", WorkPath::as_str), below, limit, &mut pending, &mut listing)?;
    while let Some(next) = pending.pop() {
        if listing.entries.len() >= limit || directories >= DIRECTORIES_MAX {
            listing.truncated = true;
            break;
        }
        if next.kind == Kind::Directory {
            directories += 1;
            let room = limit - listing.entries.len();
            match reading.read(next.path.as_str(), Some(&next.path), room, &mut pending, &mut listing) {
                // Gone, replaced or shut since it was seen.
                Ok(()) | Err(FileError::Missing | FileError::Link | FileError::NotDirectory | FileError::Denied) => {}
                Err(error) => return Err(error),
            }
        }
        if is_wanted(&next, after) {
            listing.entries.push(next);
        }
    }
    Ok(listing)
}

/// What one listing looks at.
#[derive(Clone, Copy)]
struct Reading<'a> {
    inside: &'a Inside,
    after: Option<&'a WorkPath>,
}

impl Reading<'_> {
    /// Adds what a directory holds to what is pending, of which no more are kept than may still be listed.
    fn read(
        self,
        directory: &str,
        path: Option<&WorkPath>,
        room: usize,
        pending: &mut Vec<Entry>,
        listing: &mut Listing,
    ) -> Result<(), FileError> {
        // A link at the end is refused by the way paths are resolved here, with its own error.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = self.inside.open(directory, flags)?;
        let mut found: Vec<Entry> = Vec::new();
        // One of them may be above where the listing begins: opened, but not listed.
        let keep = room.saturating_add(1);
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
            // Before it is looked at, which costs more.
            if !may_hold(&full, self.after) {
                continue;
            }
            if let Ok(stat) = rustix::fs::statat(&handle, item.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                let seen = entry(full, &stat);
                if seen.kind == Kind::Directory || is_wanted(&seen, self.after) {
                    found.push(seen);
                }
            }
            if found.len() > keep.saturating_mul(2) {
                found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
                found.truncate(keep);
                listing.truncated = true;
            }
        }
        found.sort_unstable_by(|a, b| b.path.cmp(&a.path));
        pending.append(&mut found);
        let excess = pending.len().saturating_sub(keep);
        listing.truncated |= excess > 0;
        pending.drain(..excess);
        Ok(())
    }
}
