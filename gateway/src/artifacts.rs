//! What runs leave in the workspace, told to those who follow the session.
//!
//! Always true: a workspace is listed only while somebody follows the session or has done so lately, one listing at a time, and everything that ended meanwhile is answered by the next
//! one. A file is told once per state of it. Which run made it is a guess by the provider's clock: the newest one that had begun when the file was changed.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use orien_protocol::frame::FileEntry;
use orien_protocol::id::ExecutionId;
use orien_protocol::time::{Millis, Timestamp};
use serde_json::{Value, json};

use crate::context::Context;
use crate::decimal::Time;
use crate::desk::Desk;
use crate::files::Workspace;
use crate::store::StoreError;

/// For how long after somebody followed a session its workspace is still listed: long enough to come back after a lost connection.
const WANTED: Millis = Millis::from_secs(300);
/// Ended runs that one listing answers for.
const ENDED_LIMIT: usize = 64;
/// Files whose state is remembered; more are told again.
const TOLD_LIMIT: usize = 4096;
/// Files that are named in one event.
const NAMED_LIMIT: usize = 100;
/// How much earlier than it was a file system may say that a file was changed: one tick of a kernel.
const TICK: Millis = Millis(4);

/// What a session knows of the files that its runs made.
#[derive(Debug, Default)]
pub(crate) struct Artifacts {
    wanted_until: Millis,
    is_looking: bool,
    ended: Vec<(ExecutionId, Timestamp)>,
    told: BTreeMap<String, (u64, Timestamp)>,
}

impl Artifacts {
    /// Somebody follows the session.
    pub(crate) fn want(&mut self, now: Millis) {
        self.wanted_until = Millis(now.0.saturating_add(WANTED.0));
    }

    /// A run that began then has ended. Whether somebody has to look.
    pub(crate) fn ended(&mut self, execution: ExecutionId, began: Timestamp, now: Millis) -> bool {
        if now > self.wanted_until || self.ended.len() >= ENDED_LIMIT {
            return false;
        }
        self.ended.push((execution, began));
        !mem::replace(&mut self.is_looking, true)
    }

    /// The runs to look for; none ends the looking.
    fn take(&mut self) -> Vec<(ExecutionId, Timestamp)> {
        let ended = mem::take(&mut self.ended);
        self.is_looking = !ended.is_empty();
        ended
    }

    /// Which of the files each run has made or changed, as far as they were not told.
    fn made(&mut self, mut ended: Vec<(ExecutionId, Timestamp)>, entries: Vec<FileEntry>) -> BTreeMap<ExecutionId, Vec<FileEntry>> {
        ended.sort_by_key(|(_, began)| *began);
        let mut made: BTreeMap<ExecutionId, Vec<FileEntry>> = BTreeMap::new();
        for entry in entries.into_iter().filter(|entry| !entry.folder) {
            let Some((execution, _)) = ended.iter().rev().find(|(_, began)| *began <= entry.modified.plus(TICK)) else { continue };
            let state = (entry.size, entry.modified);
            if self.told.get(&entry.path) != Some(&state) {
                if self.told.len() < TOLD_LIMIT {
                    self.told.insert(entry.path.clone(), state);
                }
                made.entry(*execution).or_default().push(entry);
            }
        }
        made
    }
}

/// Lists the workspace until no run has ended meanwhile. What cannot be listed is not told.
pub(crate) async fn look(context: Arc<Context>, desk: Arc<Desk>) -> Result<(), StoreError> {
    loop {
        let ended = desk.change(|state| state.artifacts.take());
        if ended.is_empty() {
            return Ok(());
        }
        let workspace = Workspace { net: &context.net, provider: desk.facts.provider, session: desk.id };
        match workspace.list(String::new(), None).await {
            Ok((entries, more)) => desk.change(|state| {
                for (execution, files) in state.artifacts.made(ended, entries) {
                    state.news.tell("artifact", event(execution, &files, more));
                }
            }),
            Err(error) => tracing::debug!(session = %desk.id, %error, "what runs left in the workspace cannot be listed"),
        }
    }
}

fn event(execution: ExecutionId, files: &[FileEntry], unseen: bool) -> Value {
    let named: Vec<Value> = files
        .iter()
        .take(NAMED_LIMIT)
        .map(|file| {
            json!({ "path": file.path, "size": file.size, "executable": file.executable, "modified": Time(file.modified).to_string() })
        })
        .collect();
    let more = unseen || files.len() > named.len();
    json!({ "executionId": execution.to_string(), "files": named, "more": more })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64, modified: u64) -> FileEntry {
        FileEntry { path: path.to_owned(), size, folder: false, executable: false, modified: Timestamp(modified) }
    }

    #[test]
    fn files_belong_to_the_newest_run_that_had_begun_and_are_told_once_per_state() {
        let (one, two) = (ExecutionId::from_bytes([1; 16]), ExecutionId::from_bytes([2; 16]));
        let mut artifacts = Artifacts::default();
        let ended = vec![(two, Timestamp(2_000)), (one, Timestamp(1_000))];
        let folder = FileEntry { folder: true, ..file("out", 0, 2_500) };
        let listing = || vec![file("in.txt", 3, 900), file("a", 1, 1_500), file("b", 2, 1_997), folder.clone()];
        let made = artifacts.made(ended.clone(), listing());
        let paths = |made: &BTreeMap<ExecutionId, Vec<FileEntry>>, of| made[of].iter().map(|file| file.path.clone()).collect::<Vec<_>>();
        assert_eq!((paths(&made, &one), paths(&made, &two)), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert!(artifacts.made(ended.clone(), listing()).is_empty(), "nothing has changed");
        let changed = artifacts.made(ended, vec![file("a", 9, 2_600)]);
        assert_eq!(paths(&changed, &two), vec!["a".to_owned()]);
    }

    #[test]
    fn nobody_looks_for_nobody_and_one_look_answers_for_all() {
        let run = ExecutionId::from_bytes([1; 16]);
        let mut artifacts = Artifacts::default();
        assert!(!artifacts.ended(run, Timestamp(0), Millis(1)), "nobody follows");
        artifacts.want(Millis(1));
        assert!(artifacts.ended(run, Timestamp(0), Millis(2)));
        assert!(!artifacts.ended(run, Timestamp(0), Millis(3)), "somebody looks already");
        assert_eq!(artifacts.take().len(), 2);
        assert!(!artifacts.ended(run, Timestamp(0), Millis(4)));
        assert_eq!((artifacts.take().len(), artifacts.take().len()), (1, 0));
        assert!(artifacts.ended(run, Timestamp(0), Millis(5)), "the look is over");
        assert!(!artifacts.ended(run, Timestamp(0), Millis(2).max(Millis(WANTED.0 + 2))), "too long ago");
    }
}
