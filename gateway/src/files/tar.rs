//! Tar archives: what is in one that comes, entry by entry, and the bytes of one that goes.
//!
//! Always true: whatever the bytes are, reading takes time and memory that are bounded by what was read: names and their extensions are read up to a limit, contents never; only regular files and
//! folders with plain paths are found, and everything else is named as a problem. Of permissions only whether a file may be executed is kept.
//!
//! It does not know where the files go to.

use std::io;

use futures::{Stream, StreamExt};
use orien_protocol::fault::FaultCode;
use orien_protocol::time::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tar::{Archive, Entry, EntryType, Header};

use super::{PATH_LIMIT, is_plain_path};

/// What everything in an archive is rounded up to.
const BLOCK_BYTES: u64 = 512;
/// Longest name in a header of its own.
const NAME_BYTES: usize = 100;
/// Longest extended header that is read; a path and a few attributes take far less.
const EXTENSION_LIMIT: u64 = 64 * 1024;
/// Headers of any kind between two entries that are found: extended ones, one of each kind at most.
const EXTENSIONS_IN_A_ROW: usize = 8;
/// What is shown of a name that cannot be used.
const SHOWN_CHARS: usize = 200;
/// Any of a file's execute bits.
const EXECUTE_BITS: u32 = 0o111;

/// What is next in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Folder {
        path: String,
        modified: Timestamp,
    },
    /// Its bytes are to be read from the reader.
    File {
        path: String,
        executable: bool,
        modified: Timestamp,
        length: u64,
    },
    /// Something that is left out.
    Problem {
        path: String,
        code: FaultCode,
        why: String,
    },
}

/// The raw entries of an archive, extended headers among them.
pub(crate) trait Raw<R: AsyncRead + Unpin>: Stream<Item = io::Result<Entry<Archive<R>>>> + Unpin {}
impl<R: AsyncRead + Unpin, E: Stream<Item = io::Result<Entry<Archive<R>>>> + Unpin> Raw<R> for E {}

/// Reads an archive, whose raw entries come one by one from `E`.
pub(crate) struct TarReader<R: AsyncRead + Unpin, E> {
    entries: Option<E>,
    current: Option<Entry<Archive<R>>>,
}

/// The archive in these bytes.
pub(crate) fn read<R: AsyncRead + Unpin>(bytes: R) -> TarReader<R, impl Raw<R>> {
    // It cannot fail on an archive of which nothing has been read.
    TarReader { entries: Archive::new(bytes).entries_raw().ok(), current: None }
}

/// What extended headers say of the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    problem: Option<&'static str>,
}

impl<R: AsyncRead + Unpin, E: Raw<R>> TarReader<R, E> {
    /// The next entry, after the rest of the one before was passed over; none at the end. After an error nothing more can be read.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Found>> {
        let mut extended = Extended::default();
        for _ in 0..EXTENSIONS_IN_A_ROW {
            self.current = None;
            let Some(entries) = &mut self.entries else { return Ok(None) };
            let mut entry = match entries.next().await {
                None => return Ok(None),
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    self.entries = None;
                    return Err(error);
                }
            };
            match entry.header().entry_type() {
                EntryType::GNULongName => match extension(&mut entry).await? {
                    Some(name) => extended.path = Some(name),
                    None => extended.problem = Some("its name is too long"),
                },
                EntryType::XHeader => match extension(&mut entry).await? {
                    Some(records) => extended.read(&records),
                    None => extended.problem = Some("its extended header is too long"),
                },
                // What they say is not used.
                EntryType::GNULongLink | EntryType::XGlobalHeader => {}
                _ => {
                    let Some(found) = extended.meet(entry.header())? else {
                        // The root of the tree itself.
                        extended = Extended::default();
                        continue;
                    };
                    self.current = Some(entry);
                    return Ok(Some(found));
                }
            }
        }
        self.entries = None;
        Err(io::Error::new(io::ErrorKind::InvalidData, "one extended header follows another without end"))
    }

    /// Reads bytes of the current file.
    pub(crate) async fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        let Some(entry) = &mut self.current else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        entry.read_exact(into).await.map(drop)
    }
}

/// What an extended header holds; none if it is too long.
async fn extension<R: AsyncRead + Unpin>(entry: &mut Entry<Archive<R>>) -> io::Result<Option<Vec<u8>>> {
    if entry.header().raw_entry_size()? > EXTENSION_LIMIT {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    entry.take(EXTENSION_LIMIT).read_to_end(&mut bytes).await?;
    Ok(Some(bytes))
}

impl Extended {
    /// Takes records of the form `LENGTH KEY=VALUE\n`.
    fn read(&mut self, mut records: &[u8]) {
        while !records.is_empty() {
            let Some((record, rest)) = record(records) else {
                self.problem = Some("its extended header makes no sense");
                return;
            };
            records = rest;
            match record {
                (b"path", value) => self.path = Some(value.to_vec()),
                (b"size", value) => match std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()) {
                    Some(size) => self.size = Some(size),
                    None => self.problem = Some("its extended header makes no sense"),
                },
                (key, _) if key.starts_with(b"GNU.sparse.") => self.problem = Some("files with holes are not taken"),
                _ => {}
            }
        }
    }

    /// What an entry is, with what was said before it. None for the root.
    fn meet(&self, header: &Header) -> io::Result<Option<Found>> {
        let raw = self.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let raw = raw.split(|byte| *byte == 0).next().unwrap_or_default();
        let problem = |why: &str| {
            let path: String = String::from_utf8_lossy(raw).chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
            Ok(Some(Found::Problem { path, code: FaultCode::BAD_PATH, why: why.to_owned() }))
        };
        if let Some(why) = self.problem {
            return problem(why);
        }
        let kind = header.entry_type();
        let is_folder = kind.is_dir() || (kind.is_file() && raw.ends_with(b"/"));
        let Ok(name) = std::str::from_utf8(raw) else { return problem("its name is not UTF-8") };
        let mut path = name.trim_end_matches('/');
        while let Some(rest) = path.strip_prefix("./") {
            path = rest.trim_start_matches('/');
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::Directory => {}
            EntryType::Symlink => return problem("symbolic links are not taken"),
            EntryType::Link => return problem("hard links are not taken"),
            EntryType::Char | EntryType::Block | EntryType::Fifo => return problem("devices and pipes are not taken"),
            EntryType::GNUSparse => return problem("files with holes are not taken"),
            _ => return problem("this kind of entry is not taken"),
        }
        if is_folder && (path.is_empty() || path == ".") && !name.starts_with('/') {
            return Ok(None);
        }
        if path.len() > PATH_LIMIT {
            return problem("its name is too long");
        }
        if !is_plain_path(path) {
            return problem("its path does not stay inside, or has parts that are not plain");
        }
        // Times that cannot be read are no reason to leave a file out.
        let modified = Timestamp(header.mtime().unwrap_or(0).saturating_mul(1000));
        let path = path.to_owned();
        if is_folder {
            return Ok(Some(Found::Folder { path, modified }));
        }
        let length = header.raw_entry_size()?;
        if self.size.is_some_and(|size| size != length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has another size in its extended header than in its own"));
        }
        let executable = header.mode().unwrap_or(0) & EXECUTE_BITS != 0;
        Ok(Some(Found::File { path, executable, modified, length }))
    }
}

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// The first record of an extended header, and what follows it.
fn record(records: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(records.get(..space)?).ok()?.parse().ok()?;
    let whole = records.get(space.checked_add(1)?..length)?.strip_suffix(b"\n")?;
    let equals = whole.iter().position(|byte| *byte == b'=')?;
    Some(((whole.get(..equals)?, whole.get(equals.checked_add(1)?..)?), records.get(length..)?))
}

/// Appends a folder.
pub(crate) fn put_folder(out: &mut Vec<u8>, path: &str, modified: Timestamp) {
    put(out, &format!("{path}/"), EntryType::Directory, 0o755, modified, 0);
}

/// Appends what stands before the bytes of a file.
pub(crate) fn put_file(out: &mut Vec<u8>, path: &str, executable: bool, modified: Timestamp, length: u64) {
    put(out, path, EntryType::Regular, if executable { 0o755 } else { 0o644 }, modified, length);
}

/// Appends what stands after so many bytes of a file.
pub(crate) fn pad(out: &mut Vec<u8>, length: u64) {
    let missing = length.next_multiple_of(BLOCK_BYTES).saturating_sub(length);
    out.resize(out.len().saturating_add(usize::try_from(missing).unwrap_or(0)), 0);
}

/// Appends the end of the archive.
pub(crate) fn put_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 1024]);
}

fn put(out: &mut Vec<u8>, name: &str, kind: EntryType, mode: u32, modified: Timestamp, length: u64) {
    if name.len() > NAME_BYTES {
        // A name of any length, as the content of an entry of its own, ended by a zero.
        let length = (name.len() as u64).saturating_add(1);
        header(out, "././@LongLink", EntryType::GNULongName, 0, 0, length);
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        pad(out, length);
    }
    header(out, name, kind, mode, modified.0 / 1000, length);
}

fn header(out: &mut Vec<u8>, name: &str, kind: EntryType, mode: u32, seconds: u64, length: u64) {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    old.name.iter_mut().zip(name.as_bytes()).for_each(|(place, byte)| *place = *byte);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(seconds);
    header.set_size(length);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in an archive, with the bytes of its files, until its end or its first error.
    async fn walk(bytes: &[u8]) -> (Vec<(Found, Vec<u8>)>, Option<io::Error>) {
        let (mut reader, mut all) = (read(bytes), Vec::new());
        loop {
            match reader.next().await {
                Ok(None) => return (all, None),
                Err(error) => return (all, Some(error)),
                Ok(Some(found)) => {
                    let mut content = Vec::new();
                    if let Found::File { length, .. } = &found {
                        content.resize(usize::try_from(*length).unwrap_or(usize::MAX).min(1 << 16), 0);
                        if let Err(error) = reader.read_exact(&mut content).await {
                            return (all, Some(error));
                        }
                    }
                    all.push((found, content));
                }
            }
        }
    }

    fn sound() -> Vec<u8> {
        let (mut archive, at) = (Vec::new(), Timestamp(1_700_000_000_000));
        put_folder(&mut archive, "a", at);
        let long = format!("{}/{}", "b".repeat(200), "c".repeat(100));
        for (path, content, executable) in [("a/x", &b"12345"[..], true), (&long, &[7; 1000], false), ("empty", b"", false)] {
            put_file(&mut archive, path, executable, at, content.len() as u64);
            archive.extend_from_slice(content);
            pad(&mut archive, content.len() as u64);
        }
        put_end(&mut archive);
        archive
    }

    #[tokio::test]
    async fn what_is_put_into_an_archive_is_found_in_it() {
        let (found, error) = walk(&sound()).await;
        assert!(error.is_none(), "{error:?}");
        let modified = Timestamp(1_700_000_000_000);
        let file = |path: &str, executable, length| Found::File { path: path.to_owned(), executable, modified, length };
        let long = format!("{}/{}", "b".repeat(200), "c".repeat(100));
        let expected = [
            (Found::Folder { path: "a".to_owned(), modified }, Vec::new()),
            (file("a/x", true, 5), b"12345".to_vec()),
            (file(&long, false, 1000), vec![7; 1000]),
            (file("empty", false, 0), Vec::new()),
        ];
        assert_eq!(found, expected);
    }

    /// A header that is changed and still has the right sum: what is behind the sum is reached.
    fn mend(archive: &mut [u8], block: usize) {
        let Some(header) = archive.get_mut(block * 512..(block + 1) * 512) else { return };
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    #[tokio::test]
    async fn no_change_of_an_archive_makes_its_reader_panic_hang_or_find_what_leads_outside() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below).unwrap()).unwrap()
        };
        const TYPES: &[u8] = b"01234567LKxgSVXZ\0";
        for _ in 0..4000 {
            let mut archive = sound();
            for _ in 0..=random(4) {
                let at = random(archive.len());
                let block = at / 512;
                match random(6) {
                    0 => archive.truncate(at),
                    1 => archive[at] = u8::try_from(random(256)).unwrap(),
                    2 => archive[block * 512 + 156] = TYPES[random(TYPES.len())],
                    3 => archive[block * 512 + 124..block * 512 + 136].fill(b"07\xff8 \0"[random(6)]),
                    4 => archive[block * 512..block * 512 + 4]
                        .copy_from_slice([b"../x", b"/etc", b"a//b", b"a\0..", b"\xff\xff.."][random(5)]),
                    _ => archive.extend_from_within(block * 512..),
                }
                mend(&mut archive, block);
                if archive.is_empty() {
                    break;
                }
                archive.resize(archive.len().next_multiple_of(512), 0);
            }
            let walked = tokio::time::timeout(std::time::Duration::from_secs(30), walk(&archive)).await;
            let (found, _) = walked.expect("it comes to an end");
            assert!(found.len() <= archive.len() / 512, "more was found than there is");
            for (found, _) in found {
                if let Found::File { path, .. } | Found::Folder { path, .. } = found {
                    assert!(is_plain_path(&path), "{path:?}");
                }
            }
        }
    }
}
