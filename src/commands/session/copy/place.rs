//! A folder of this machine that a stranger's files are written into, and nothing outside of it.
//!
//! Always true: whatever a provider's listing says, only plain files and folders below the chosen folder are made or replaced; no link on the way is followed, no name climbs out; a file appears
//! under its name only when all of it is there.

use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::show::harmless;

/// Longest path of a file in a workspace.
const PATH_BYTES: usize = 1024;

/// A path of a listing, relative and without tricks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relative(Vec<String>);

impl Relative {
    /// Takes a path apart, or says what is wrong with it.
    pub(super) fn new(path: &str) -> Result<Self> {
        let refused = |why: &str| Err(anyhow::anyhow!("the provider lists `{}`, which {why}; nothing is written there", harmless(path)));
        if path.is_empty() || path.len() > PATH_BYTES {
            return refused("is no possible path");
        }
        if path.starts_with('/') {
            return refused("is not below its workspace");
        }
        if path.chars().any(char::is_control) {
            return refused("holds control characters");
        }
        let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
        match parts.iter().find(|part| part.is_empty() || *part == "." || *part == "..") {
            Some(_) => refused("is not a plain path"),
            None => Ok(Self(parts)),
        }
    }

    /// As a path below a folder, for people.
    pub(super) fn below(&self, base: &Path) -> PathBuf {
        self.0.iter().fold(base.to_owned(), |path, part| path.join(part))
    }
}

/// The folder that files go into.
#[derive(Debug)]
pub(super) struct Place {
    base: PathBuf,
    folder: OwnedFd,
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Landing {
    folder: OwnedFd,
    name: String,
    part: String,
    pub(super) file: File,
    /// Bytes of it that are there of an earlier copy.
    pub(super) held: u64,
}

impl Place {
    /// The folder itself is the user's word: it is made if need be, and may be reached through links.
    pub(super) fn open(base: &Path) -> Result<Self> {
        std::fs::create_dir_all(base).with_context(|| format!("cannot make {}", base.display()))?;
        let folder = rustix::fs::open(base, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { base: base.to_owned(), folder: folder.with_context(|| format!("cannot open {}", base.display()))? })
    }

    /// Makes a folder with all that lead to it.
    pub(super) fn make(&self, path: &Relative) -> Result<()> {
        self.walk(&path.0).map(drop)
    }

    /// Opens what is at a path for reading, if that is a plain file.
    pub(super) fn existing(&self, path: &Relative) -> Option<File> {
        let (name, folders) = path.0.split_last()?;
        let mut at = self.folder.as_fd().try_clone_to_owned().ok()?;
        for part in folders {
            at = openat(&at, part.as_str(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&at, name.as_str(), flags, Mode::empty()).ok()?);
        file.metadata().ok()?.is_file().then_some(file)
    }

    /// Begins to write a file, after what an earlier copy left of it.
    pub(super) fn land(&self, path: &Relative, is_executable: bool) -> Result<Landing> {
        let Some((name, folders)) = path.0.split_last() else { bail!("a file has no name") };
        let folder = self.walk(folders)?;
        let part = format!(".orien-{}.part", &blake3::hash(name.as_bytes()).to_hex()[..16]);
        let mode = Mode::from_raw_mode(if is_executable { 0o755 } else { 0o644 });
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&folder, part.as_str(), flags, mode).map(File::from);
        let mut file = file.with_context(|| format!("cannot write {}", path.below(&self.base).display()))?;
        if !file.metadata()?.is_file() {
            bail!("{} is in the way", self.base.join(&part).display());
        }
        let held = file.seek(std::io::SeekFrom::End(0))?;
        Ok(Landing { folder, name: name.clone(), part, file, held })
    }

    fn walk(&self, folders: &[String]) -> Result<OwnedFd> {
        let mut at = self.folder.as_fd().try_clone_to_owned()?;
        let mut shown = self.base.clone();
        for part in folders {
            shown.push(part);
            match mkdirat(&at, part.as_str(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot make {}", shown.display())),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            at = match openat(&at, part.as_str(), flags, Mode::empty()) {
                Err(Errno::LOOP | Errno::NOTDIR) => bail!("{} is a link or a file; nothing is written through it", shown.display()),
                opened => opened.with_context(|| format!("cannot open {}", shown.display()))?,
            };
        }
        Ok(at)
    }
}

impl Landing {
    /// Forgets what an earlier copy left.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.held = 0;
        Ok(())
    }

    /// Gives the file its name; what had it before is replaced.
    pub(super) fn finish(self) -> Result<()> {
        renameat(&self.folder, self.part.as_str(), &self.folder, self.name.as_str())
            .with_context(|| format!("{} cannot be replaced", harmless(&self.name)))
    }

    /// Leaves nothing behind.
    pub(super) fn discard(self) {
        let _ = unlinkat(&self.folder, self.part.as_str(), AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn no_path_of_a_listing_leads_out_of_the_folder() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", ".", "..", "a/", "a\0b", "a\nb", &"x/".repeat(600)] {
            assert!(Relative::new(path).is_err(), "{path:?}");
        }
        for path in ["a", "a/b.c", "..a/b..", ".hidden", "a b/c:d", "\\..\\x"] {
            assert!(Relative::new(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_and_a_link_with_the_name_of_a_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("kept"), b"kept").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("way")).unwrap();
        std::os::unix::fs::symlink(outside.join("kept"), inside.join("file")).unwrap();
        let place = Place::open(&inside).unwrap();
        assert!(place.land(&Relative::new("way/new").unwrap(), false).is_err());
        assert!(place.make(&Relative::new("way/folder").unwrap()).is_err());
        assert!(place.existing(&Relative::new("file").unwrap()).is_none());
        assert!(place.existing(&Relative::new("way/kept").unwrap()).is_none());
        let mut landing = place.land(&Relative::new("file").unwrap(), true).unwrap();
        landing.file.write_all(b"new").unwrap();
        landing.finish().unwrap();
        assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(inside.join("file")).unwrap().is_file());
        assert_eq!(std::fs::read(outside.join("kept")).unwrap(), b"kept");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn what_an_earlier_copy_left_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::open(folder.path()).unwrap();
        let path = Relative::new("deep/er/file").unwrap();
        let mut landing = place.land(&path, false).unwrap();
        landing.file.write_all(b"half").unwrap();
        drop(landing);
        let landing = place.land(&path, false).unwrap();
        assert_eq!(landing.held, 4);
        landing.discard();
        assert_eq!(place.land(&path, false).unwrap().held, 0);
    }
}
