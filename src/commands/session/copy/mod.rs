//! `orien session cp`, `files` and `rm`: files between this machine and a session's workspace.
//!
//! Always true: repeating a copy is harmless and cheap, because what is there already with the same content is left out.

mod down;
mod folders;
mod place;
mod up;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::resolve;
use crate::cli::Ask;
use crate::client::Client;
use crate::client::files::Workspace;
use crate::failure::{Failure, Told};
use crate::interrupt::Interrupt;
use crate::output;
use crate::show::progress::Progress;
use crate::show::table::Rows;
use crate::show::{bytes, harmless, is_seen, relative, text};

/// Most files that one copy moves: what can be listed at once.
const FILES_LIMIT: usize = 200_000;
/// Files moved at once: small ones wait for answers most of the time.
const WORKERS: usize = 4;
/// Bytes moved at a time.
const BLOCK_BYTES: usize = 256 * 1024;

/// How to copy.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// Also what is there already.
    pub(crate) fresh: bool,
    pub(crate) quiet: bool,
    /// Breaks a copy off.
    pub(crate) interrupt: Interrupt,
}

/// What a copy did.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    files: Vec<Value>,
    moved: u64,
    skipped: usize,
    /// Empty folders that were made.
    folders: usize,
    /// What was left out, and why.
    notes: Vec<String>,
}

/// A file that a copy came to.
#[derive(Debug)]
struct Moved {
    path: String,
    size: u64,
    hash: String,
    /// Where the copy began; none for a file that was there already.
    from: Option<u64>,
}

impl Summary {
    fn add(&mut self, moved: Vec<Moved>) {
        for Moved { path, size, hash, from } in moved {
            let action = match from {
                None => "skipped",
                Some(0) => "copied",
                Some(_) => "resumed",
            };
            self.skipped += usize::from(from.is_none());
            self.moved = self.moved.saturating_add(from.map_or(0, |from| size.saturating_sub(from)));
            self.files.push(json!({ "path": path, "size": size, "hash": hash, "action": action }));
        }
    }

    /// What was left out, and why.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter()
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "files": self.files, "bytes": self.moved, "copied": self.files.len() - self.skipped, "skipped": self.skipped, "folders": self.folders, "notes": self.notes })
    }

    /// In one line.
    pub(crate) fn said(&self, begun: Instant) -> String {
        let copied = self.files.len() - self.skipped;
        let folders = match self.folders {
            0 => String::new(),
            1 => ", 1 empty folder made".to_owned(),
            many => format!(", {many} empty folders made"),
        };
        let there = if self.skipped > 0 { format!(", {} there already", self.skipped) } else { String::new() };
        format!(
            "{copied} file{} copied, {}{folders}{there}, in {:.1} s",
            if copied == 1 { "" } else { "s" },
            bytes(self.moved),
            begun.elapsed().as_secs_f64()
        )
    }
}

/// `orien session cp`.
pub(crate) fn run(client: &Client, sources: &[String], target: &str, fresh: bool, ask: &Ask) -> Result<()> {
    let begun = Instant::now();
    let manner = Manner { fresh, quiet: ask.quiet || ask.json, interrupt: Interrupt::default() };
    let summary = match remote(target) {
        Some((session, path)) => {
            if let Some(source) = sources.iter().find(|source| remote(source).is_some()) {
                bail!("`{}` is in a session too; copy it here first", harmless(source));
            }
            upload(client, &resolve(client, session)?, sources, path, &manner)?
        }
        None => {
            let mut summary = Summary::default();
            let pairs = sources.iter().map(|source| remote(source).with_context(|| here(source))).collect::<Result<Vec<_>>>()?;
            let is_alone = pairs.len() == 1;
            for (session, path) in pairs {
                let id = resolve(client, session)?;
                let workspace = Workspace::new(client, &id);
                down::run(workspace, path, Path::new(target), is_alone, &manner, &mut summary).map_err(uncopied)?;
            }
            summary
        }
    };
    if ask.json {
        return output::json(&summary.json());
    }
    for note in &summary.notes {
        output::note(note);
    }
    if !ask.quiet {
        output::note(summary.said(begun));
    }
    Ok(())
}

fn here(source: &str) -> String {
    format!("`{}` and the target are both on this machine; one of them has to be SESSION:PATH", harmless(source))
}

/// Whether a file or folder of this machine can be copied to a path of a workspace, as far as that can be seen from here.
pub(crate) fn foresee(local: &str, path: &str) -> Result<()> {
    up::foresee(local, path).map_err(uncopied)
}

/// Whether a path can be one of a workspace; all of it has none.
pub(crate) fn check_remote(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    place::Relative::new(path).map(drop).map_err(|_| {
        Told::coded(
            Failure::Copying,
            "bad_path",
            format!("`{}` is no path of a workspace: it has plain parts between single slashes, and no `.` or `..`", harmless(path)),
        )
    })
}

/// Copies files and folders into a workspace.
pub(crate) fn upload(client: &Client, session: &str, sources: &[String], path: &str, manner: &Manner) -> Result<Summary> {
    up::run(Workspace::new(client, session), sources, path, manner).map_err(uncopied)
}

/// Copies a file or folder out of a workspace.
pub(crate) fn download(client: &Client, session: &str, path: &str, target: &Path, manner: &Manner) -> Result<Summary> {
    let mut summary = Summary::default();
    down::run(Workspace::new(client, session), path, target, true, manner, &mut summary).map_err(uncopied)?;
    Ok(summary)
}

/// The session and the path of a word such as `last:src/main.c`. A word with a slash before its colon, and the name of a file that is here, are local.
fn remote(word: &str) -> Option<(&str, &str)> {
    let (session, path) = word.split_once(':')?;
    let is_here = || std::fs::symlink_metadata(word).is_ok();
    (!session.is_empty() && !session.contains('/') && !session.starts_with('.') && !is_here())
        .then_some((session, path.trim_start_matches('/')))
}

/// `orien session files`.
pub(crate) fn list(client: &Client, word: &str, ask: &Ask) -> Result<()> {
    let (session, path) = remote(word).unwrap_or((word, ""));
    let session = resolve(client, session)?;
    let entries = Workspace::new(client, &session).list(path)?;
    if ask.json {
        let entry = |entry: &crate::client::files::Entry| json!({ "path": entry.path, "size": entry.size, "folder": entry.is_folder, "executable": entry.is_executable, "modified": entry.modified });
        return output::json(&json!({ "sessionId": session, "files": entries.iter().map(entry).collect::<Vec<_>>() }));
    }
    let mut rows = Rows::new(&["PATH", "SIZE", "MODIFIED"], &[1]);
    for entry in entries {
        let kind = if entry.is_folder {
            "/"
        } else if entry.is_executable {
            "*"
        } else {
            ""
        };
        rows.add(vec![
            format!(
                "{}{}",
                harmless(&entry.path),
                if is_seen() {
                    kind
                } else if entry.is_folder {
                    "/"
                } else {
                    ""
                }
            ),
            if entry.is_folder {
                String::new()
            } else if is_seen() {
                bytes(entry.size)
            } else {
                entry.size.to_string()
            },
            if is_seen() { relative(&entry.modified) } else { text(&entry.modified) },
        ]);
    }
    rows.print("the workspace has no files");
    Ok(())
}

/// `orien session rm`.
pub(crate) fn remove(client: &Client, words: &[String], is_recursive: bool, ask: &Ask) -> Result<()> {
    for word in words {
        let (session, path) =
            remote(word).filter(|(_, path)| !path.is_empty()).with_context(|| format!("`{}` is not SESSION:PATH", harmless(word)))?;
        Workspace::new(client, &resolve(client, session)?).remove(path.trim_end_matches('/'), is_recursive)?;
    }
    if ask.json { output::json(&json!({ "removed": words.len() })) } else { Ok(()) }
}

/// A file that could not be copied.
fn failed(path: &str, error: anyhow::Error) -> anyhow::Error {
    uncopied(error.context(harmless(path)))
}

/// A copy that failed. What the gateway says about money or the session keeps its own meaning.
fn uncopied(error: anyhow::Error) -> anyhow::Error {
    match Failure::of(&error) {
        Failure::Other => Told::error(Failure::Copying, format!("{error:#}")),
        _ => error,
    }
}

/// Does something with each item, several at a time, and gives the outcomes in the order of the items. After a failure nothing more is begun.
fn side_by_side<T: Sync, D: Send>(items: &[T], work: impl Fn(&T) -> Result<D> + Sync) -> Result<Vec<D>> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || {
        let mut done = Vec::new();
        while !has_failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { break };
            let outcome = work(item).inspect_err(|_| has_failed.store(true, Ordering::Relaxed));
            done.push((number, outcome?));
        }
        Ok(done)
    };
    let outcomes: Vec<Result<Vec<(usize, D)>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS.min(items.len())).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a copy broke off"))).collect()
    });
    let mut done: Vec<(usize, D)> = outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
}

/// A bar for what is moved.
fn bar(total: u64, manner: &Manner) -> Progress {
    Progress::bytes(total, manner.quiet, manner.interrupt.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_done_at_once_in_order_and_after_a_failure_none_is_begun() {
        let numbers: Vec<usize> = (0..1000).collect();
        assert_eq!(side_by_side(&numbers, |number| Ok(number * 2)).unwrap(), (0..1000).map(|number| number * 2).collect::<Vec<_>>());
        let begun = AtomicUsize::new(0);
        let outcome = side_by_side(&numbers, |number| {
            begun.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(1));
            if *number == 3 { bail!("three") } else { Ok(()) }
        });
        assert!(outcome.is_err_and(|error| error.to_string() == "three") && begun.into_inner() < 100);
    }

    #[test]
    fn a_word_is_remote_when_a_session_stands_before_its_colon() {
        assert_eq!(remote("last:src/main.c"), Some(("last", "src/main.c")));
        assert_eq!(remote("last:"), Some(("last", "")));
        assert_eq!(remote("last:/abs"), Some(("last", "abs")));
        for word in ["./a:b", "dir/a:b", "plain", ":x", "/a:b"] {
            assert_eq!(remote(word), None, "{word}");
        }
    }
}
