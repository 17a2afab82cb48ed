//! Files and folders of this machine into a workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{BLOCK_BYTES, FILES_LIMIT, Manner, Moved, Summary, bar, check_remote, failed, folders, side_by_side};
use crate::client::Problem;
use crate::client::files::{Parcel, Workspace};
use crate::show::harmless;
use crate::show::progress::Progress;

/// Files smaller than this are sent again as a whole rather than looked for.
const GO_ON_BYTES: u64 = 1024 * 1024;

/// One file that goes up.
#[derive(Debug, PartialEq, Eq)]
struct Job {
    from: PathBuf,
    to: String,
    size: u64,
    is_executable: bool,
}

/// What goes up.
#[derive(Debug, Default)]
struct Plan {
    jobs: Vec<Job>,
    /// Every folder that was walked, by its path in the workspace.
    folders: Vec<String>,
}

pub(super) fn run(workspace: Workspace<'_>, sources: &[String], path: &str, manner: &Manner) -> Result<Summary> {
    let mut summary = Summary::default();
    let there = if manner.fresh && !needs_look(sources, path) { BTreeMap::new() } else { listing(workspace, path)? };
    let Plan { jobs, folders } = plan(sources, path, !is_folder(&there, path), &mut summary)?;
    let total = jobs.iter().map(|job| job.size).fold(0, u64::saturating_add);
    let progress = bar(total, manner);
    let moved = side_by_side(&jobs, |job| {
        progress.doing(harmless(&job.to));
        let known = there.get(&job.to).copied().flatten();
        send(workspace, job, known, manner, &progress).map_err(|error| failed(&job.to, error))
    })?;
    summary.add(moved);
    let empty = empty(folders, &jobs, &there);
    if !empty.is_empty() {
        workspace.unpack(&folders::archive(&empty)?)?;
        summary.folders = empty.len();
    }
    progress.clear();
    Ok(summary)
}

/// Folders that no file makes, and that are not there yet.
fn empty(folders: Vec<String>, jobs: &[Job], there: &BTreeMap<String, Option<u64>>) -> Vec<String> {
    let files: BTreeSet<&str> = jobs.iter().map(|job| job.to.as_str()).collect();
    let holds_one = |folder: &str| {
        let below = format!("{folder}/");
        files.range(below.as_str()..).next().is_some_and(|file| file.starts_with(&below))
    };
    folders.into_iter().filter(|folder| !there.contains_key(folder) && !holds_one(folder)).collect()
}

/// Whether the target's name decides where a file goes.
fn needs_look(sources: &[String], path: &str) -> bool {
    sources.len() == 1 && !path.is_empty() && !path.ends_with('/')
}

/// What is at and below a path: the size of each file, nothing for folders.
fn listing(workspace: Workspace<'_>, path: &str) -> Result<BTreeMap<String, Option<u64>>> {
    let entries = workspace.list(path)?;
    Ok(entries.into_iter().map(|entry| (entry.path, (!entry.is_folder).then_some(entry.size))).collect())
}

/// Whether something is below a path.
fn is_folder(there: &BTreeMap<String, Option<u64>>, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    there.keys().any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
        || there.get(path).is_some_and(Option::is_none)
}

/// Looks at everything that would go up, and at where it would go.
pub(super) fn foresee(local: &str, path: &str) -> Result<()> {
    check_remote(path.trim_end_matches('/'))?;
    for job in plan(&[local.to_owned()], path, true, &mut Summary::default())?.jobs {
        check_remote(&job.to)?;
        File::open(&job.from).with_context(|| format!("cannot read {}", job.from.display()))?;
    }
    Ok(())
}

/// Which file goes where.
fn plan(sources: &[String], path: &str, may_name: bool, summary: &mut Summary) -> Result<Plan> {
    let mut plan = Plan::default();
    let into = path.trim_end_matches('/');
    for source in sources {
        let local = Path::new(source);
        // What the user names is followed, what is found below it is not.
        let facts = std::fs::metadata(local).with_context(|| format!("cannot read {}", local.display()))?;
        if facts.is_dir() {
            let keeps_name = !source.ends_with('/') && local.file_name().is_some() && !source.ends_with("/.");
            let below = if keeps_name { joined(into, name(local)?) } else { into.to_owned() };
            walk(local, &below, &mut plan, summary)?;
        } else if facts.is_file() {
            let is_named = sources.len() == 1 && may_name && !into.is_empty() && !path.ends_with('/');
            let to = if is_named { into.to_owned() } else { joined(into, name(local)?) };
            plan.jobs.push(Job { from: local.to_owned(), to, size: facts.len(), is_executable: facts.permissions().mode() & 0o111 != 0 });
        } else {
            bail!("{} is neither a file nor a folder", local.display());
        }
    }
    Ok(plan)
}

fn walk(top: &Path, below: &str, plan: &mut Plan, summary: &mut Summary) -> Result<()> {
    let mut pending = vec![(top.to_owned(), below.to_owned())];
    while let Some((folder, below)) = pending.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut entries = entries.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        if !below.is_empty() {
            ensure!(plan.folders.len() < FILES_LIMIT, "there are more than {FILES_LIMIT} folders; copy them one by one");
            plan.folders.push(below.clone());
        }
        let mut folders = Vec::new();
        for entry in entries {
            let (path, facts) = (entry.path(), entry.metadata()?);
            let to = joined(&below, name(&path)?);
            if facts.is_dir() {
                folders.push((path, to));
            } else if facts.is_file() {
                ensure!(plan.jobs.len() < FILES_LIMIT, "there are more than {FILES_LIMIT} files; copy folders one by one");
                plan.jobs.push(Job { from: path, to, size: facts.len(), is_executable: facts.permissions().mode() & 0o111 != 0 });
            } else {
                let what = if facts.is_symlink() { "a link" } else { "no plain file" };
                summary.notes.push(format!("left out, because it is {what}: {}", harmless(&path.to_string_lossy())));
            }
        }
        pending.extend(folders.into_iter().rev());
    }
    Ok(())
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn name(path: &Path) -> Result<&str> {
    let name = path.file_name().with_context(|| format!("{} has no name of its own; say it with a slash at its end", path.display()))?;
    name.to_str().with_context(|| format!("the name of {} is not UTF-8, so it cannot be in a workspace", path.display()))
}

fn send(workspace: Workspace<'_>, job: &Job, known: Option<u64>, manner: &Manner, progress: &Progress) -> Result<Moved> {
    let moved = |hash, from| Moved { path: job.to.clone(), size: job.size, hash, from };
    let mut file = File::open(&job.from).with_context(|| format!("cannot read {}", job.from.display()))?;
    if known == Some(job.size) && !manner.fresh {
        let hash = hash_of(&mut file, job.size)?;
        let stat = workspace.stat(&job.to)?;
        if stat.is_some_and(|stat| stat.size == job.size && stat.hash.as_ref() == Some(&hash)) {
            progress.add(job.size);
            return Ok(moved(hash, None));
        }
    }
    let may_go_on = job.size >= GO_ON_BYTES && !manner.fresh;
    let held = if may_go_on { workspace.held(&job.to)? } else { None };
    let mut from = held.filter(|held| held.size == job.size && held.offset < job.size).map_or(0, |held| held.offset);
    let hash = match store(workspace, job, from, &mut file, progress) {
        // What is there was the beginning of another file.
        Err(error) if from > 0 && is_another(&error) => {
            from = 0;
            store(workspace, job, from, &mut file, progress)
        }
        stored => stored,
    }?;
    Ok(moved(hash, Some(from)))
}

/// Sends a file from an offset, and says the hash of the whole.
fn store(workspace: Workspace<'_>, job: &Job, from: u64, file: &mut File, progress: &Progress) -> Result<String> {
    file.rewind()?;
    // Of a file that goes on, the provider is told what has to come of it.
    let whole = if from > 0 { Some(hash_of(file, job.size)?) } else { None };
    file.seek(SeekFrom::Start(from))?;
    progress.add(from);
    let parcel = Parcel { path: &job.to, size: job.size, is_executable: job.is_executable, from, hash: whole.as_deref() };
    let mut body = Hashing { inner: file.take(job.size.saturating_sub(from)), hasher: blake3::Hasher::new() };
    let stored = workspace.store(parcel, progress.reading(&mut body))?;
    let hash = whole.unwrap_or_else(|| format!("blake3:{}", body.hasher.finalize().to_hex()));
    ensure!(stored["hash"] == hash.as_str(), "it changed while it was sent, or other bytes arrived; copy it again");
    Ok(hash)
}

fn is_another(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<Problem>();
    problem.is_some_and(|problem| ["hash_mismatch", "wrong_offset", "too_large"].contains(&problem.code()))
}

/// The hash of the next bytes of a file.
pub(super) fn hash_of(file: &mut File, bytes: u64) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    absorb(&mut hasher, file, bytes)?;
    Ok(format!("blake3:{}", hasher.finalize().to_hex()))
}

/// Adds the next bytes of a file to a hash.
pub(super) fn absorb(hasher: &mut blake3::Hasher, file: &mut File, bytes: u64) -> Result<()> {
    let (mut left, mut block) = (file.take(bytes), vec![0; BLOCK_BYTES]);
    loop {
        match left.read(&mut block)? {
            0 => return Ok(()),
            count => hasher.update(block.get(..count).unwrap_or_default()),
        };
    }
}

/// A reader that hashes what it gives.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(sources: &[String], path: &str, may_name: bool) -> Vec<String> {
        plan(sources, path, may_name, &mut Summary::default()).unwrap().jobs.into_iter().map(|job| job.to).collect()
    }

    #[test]
    fn a_folder_keeps_its_name_unless_a_slash_stands_behind_it_and_links_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        std::fs::create_dir_all(project.join("src")).unwrap();
        std::fs::write(project.join("src/main.c"), "").unwrap();
        std::fs::write(project.join("Makefile"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", project.join("link")).unwrap();
        let word = project.to_str().unwrap().to_owned();
        assert_eq!(places(std::slice::from_ref(&word), "", true), ["project/Makefile", "project/src/main.c"]);
        assert_eq!(places(std::slice::from_ref(&word), "in", true), ["in/project/Makefile", "in/project/src/main.c"]);
        assert_eq!(places(&[format!("{word}/")], "", true), ["Makefile", "src/main.c"]);
        assert_eq!(places(&[format!("{word}/.")], "to/", true), ["to/Makefile", "to/src/main.c"]);
        let mut summary = Summary::default();
        plan(std::slice::from_ref(&word), "", true, &mut summary).unwrap();
        assert_eq!(summary.notes.len(), 1, "{:?}", summary.notes);
    }

    #[test]
    fn folders_that_no_file_makes_and_that_are_not_there_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("p");
        for path in ["empty", "full", "deep/er", "there", "full-not"] {
            std::fs::create_dir_all(top.join(path)).unwrap();
        }
        std::fs::write(top.join("full/f"), "").unwrap();
        let there = BTreeMap::from([("p/there".to_owned(), None)]);
        let made = |word: &str| {
            let Plan { jobs, folders } = plan(&[word.to_owned()], "", true, &mut Summary::default()).unwrap();
            empty(folders, &jobs, &there)
        };
        assert_eq!(made(top.to_str().unwrap()), ["p/deep", "p/deep/er", "p/empty", "p/full-not"]);
        assert_eq!(made(&format!("{}/", top.display())), ["deep", "deep/er", "empty", "full-not", "there"]);
    }

    #[test]
    fn a_single_file_takes_the_targets_name_unless_that_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        std::fs::write(&file, "").unwrap();
        let word = [file.to_str().unwrap().to_owned()];
        assert_eq!(places(&word, "", true), ["a.txt"]);
        assert_eq!(places(&word, "b.txt", true), ["b.txt"]);
        assert_eq!(places(&word, "dir", false), ["dir/a.txt"]);
        assert_eq!(places(&word, "dir/", true), ["dir/a.txt"]);
        assert_eq!(places(&[word[0].clone(), word[0].clone()], "dir", true), ["dir/a.txt", "dir/a.txt"]);
    }
}
