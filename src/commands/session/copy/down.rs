//! A file or folder of a workspace to this machine.
//!
//! Always true: the provider's listing is not believed: every path is checked before anything is made, and sizes are only for the bar.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::place::{Landing, Place, Relative};
use super::up::{absorb, hash_of};
use super::{BLOCK_BYTES, FILES_LIMIT, Manner, Moved, Summary, bar, failed, side_by_side};
use crate::client::files::{Entry, Stat, Workspace};
use crate::failure::{Failure, Told};
use crate::show::harmless;
use crate::show::progress::Progress;

/// What comes down, and where to.
#[derive(Debug)]
struct Plan {
    base: PathBuf,
    folders: Vec<Relative>,
    /// The entry and its place below the base.
    files: Vec<(Entry, Relative)>,
}

pub(super) fn run(
    workspace: Workspace<'_>,
    path: &str,
    target: &Path,
    is_alone: bool,
    manner: &Manner,
    summary: &mut Summary,
) -> Result<()> {
    let plan = plan(&workspace.list(path)?, path, target, is_alone)?;
    let total = plan.files.iter().map(|(entry, _)| entry.size).fold(0, u64::saturating_add);
    let progress = bar(total, manner);
    let place = Place::open(&plan.base)?;
    for folder in &plan.folders {
        place.make(folder)?;
    }
    let moved = side_by_side(&plan.files, |(entry, to)| {
        progress.doing(harmless(&entry.path));
        receive(workspace, entry, (&place, to), manner, &progress).map_err(|error| failed(&entry.path, error))
    })?;
    summary.add(moved);
    progress.clear();
    Ok(())
}

/// Which file goes where; every path is checked here.
fn plan(entries: &[Entry], path: &str, target: &Path, is_alone: bool) -> Result<Plan> {
    let top = path.trim_end_matches('/');
    ensure!(entries.len() <= FILES_LIMIT, "there are more than {FILES_LIMIT} files; copy folders one by one");
    if let [one] = entries
        && one.path == top
        && !one.is_folder
    {
        return alone(one, target, is_alone);
    }
    if entries.is_empty() && !top.is_empty() {
        return Err(Told::error(Failure::Missing, format!("the workspace has no {}", harmless(top))));
    }
    let keeps_name = !top.is_empty() && !path.ends_with('/');
    let name = top.rsplit('/').next().unwrap_or_default();
    let prefix = if top.is_empty() { String::new() } else { format!("{top}/") };
    let mut plan = Plan { base: target.to_owned(), folders: Vec::new(), files: Vec::new() };
    for entry in entries.iter().filter(|entry| !(entry.is_folder && entry.path == top)) {
        let Some(rest) = entry.path.strip_prefix(&prefix) else {
            bail!("the provider lists `{}`, which was not asked for; nothing is written", harmless(&entry.path));
        };
        let to = Relative::new(&if keeps_name { format!("{name}/{rest}") } else { rest.to_owned() })?;
        if entry.is_folder { plan.folders.push(to) } else { plan.files.push((entry.clone(), to)) }
    }
    Ok(plan)
}

/// A single file: under its own name in a folder, or under the target's name.
fn alone(entry: &Entry, target: &Path, is_alone: bool) -> Result<Plan> {
    let name = entry.path.rsplit('/').next().unwrap_or_default();
    let is_folder = target.is_dir() || target.as_os_str().as_encoded_bytes().ends_with(b"/") || !is_alone;
    let (base, name) = if is_folder {
        (target.to_owned(), name.to_owned())
    } else {
        let own = target.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} names no file", target.display()))?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        (parent.to_owned(), own.to_owned())
    };
    Ok(Plan { base, folders: Vec::new(), files: vec![(entry.clone(), Relative::new(&name)?)] })
}

fn receive(
    workspace: Workspace<'_>,
    entry: &Entry,
    (place, to): (&Place, &Relative),
    manner: &Manner,
    progress: &Progress,
) -> Result<Moved> {
    let moved = |size, hash, from| Moved { path: entry.path.clone(), size, hash, from };
    let stat = workspace.stat(&entry.path)?.context("it is not there any more")?;
    if !manner.fresh
        && let (Some(mut file), Some(hash)) = (place.existing(to), &stat.hash)
        && file.metadata()?.len() == stat.size
        && hash_of(&mut file, stat.size)? == *hash
    {
        progress.add(stat.size);
        return Ok(moved(stat.size, hash.clone(), None));
    }
    let mut landing = place.land(to, entry.is_executable)?;
    if manner.fresh || landing.held > stat.size || stat.hash.is_none() {
        landing.restart()?;
    }
    let from = landing.held;
    let hash = match fetch(workspace, entry, &stat, &mut landing, progress)? {
        Some(hash) => hash,
        // What an earlier copy left belongs to another state of the file.
        None if from > 0 => {
            landing.restart()?;
            match fetch(workspace, entry, &stat, &mut landing, progress)? {
                Some(hash) => hash,
                None => return Err(changed(landing)),
            }
        }
        None => return Err(changed(landing)),
    };
    landing.finish()?;
    Ok(moved(stat.size, hash, Some(from.min(stat.size))))
}

fn changed(landing: Landing) -> anyhow::Error {
    landing.discard();
    Told::error(
        Failure::Copying,
        "other bytes arrived than were announced; it changed meanwhile, or the provider is at fault: copy it again",
    )
}

/// Fetches what is missing of a file; none when the whole is not what was announced.
fn fetch(workspace: Workspace<'_>, entry: &Entry, stat: &Stat, landing: &mut Landing, progress: &Progress) -> Result<Option<String>> {
    let mut hasher = blake3::Hasher::new();
    if landing.held < stat.size || stat.size == 0 {
        let fetched = workspace.fetch(&entry.path, landing.held)?;
        if fetched.from != landing.held {
            landing.restart()?;
        }
        landing.file.rewind()?;
        absorb(&mut hasher, &mut landing.file, landing.held)?;
        progress.add(landing.held);
        // One byte more than announced is enough to see that it is not what was announced.
        let rest = stat.size.saturating_sub(landing.held).saturating_add(1);
        pour(progress.reading(fetched.body.take(rest)), &mut landing.file, &mut hasher)?;
    } else {
        landing.file.rewind()?;
        absorb(&mut hasher, &mut landing.file, landing.held)?;
        progress.add(landing.held);
    }
    let hash = format!("blake3:{}", hasher.finalize().to_hex());
    let is_right = landing.file.metadata()?.len() == stat.size && stat.hash.as_ref().is_none_or(|announced| *announced == hash);
    Ok(is_right.then_some(hash))
}

fn pour(mut from: impl Read, to: &mut File, hasher: &mut blake3::Hasher) -> Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let count = from.read(&mut block).context("the download broke off; the same command goes on with it")?;
        let Some(bytes) = block.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        to.write_all(bytes).context("cannot write it here")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn entry(path: &str, is_folder: bool) -> Entry {
        Entry { path: path.to_owned(), size: 1, is_folder, is_executable: false, modified: Value::Null }
    }

    fn places(entries: &[Entry], path: &str, target: &str) -> Vec<PathBuf> {
        let plan = plan(entries, path, Path::new(target), true).unwrap();
        plan.files.iter().map(|(_, to)| to.below(&plan.base)).collect()
    }

    #[test]
    fn a_folder_keeps_its_name_unless_a_slash_stands_behind_it() {
        let entries = [entry("out/bin", true), entry("out/bin/a", false), entry("out/log", false)];
        let expected = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(places(&entries, "out", "here"), expected(&["here/out/bin/a", "here/out/log"]));
        assert_eq!(places(&entries, "out/", "here"), expected(&["here/bin/a", "here/log"]));
        assert_eq!(places(&entries, "", "here"), expected(&["here/out/bin/a", "here/out/log"]));
    }

    #[test]
    fn a_single_file_takes_the_targets_name() {
        let entries = [entry("out/log", false)];
        assert_eq!(places(&entries, "out/log", "/no/such/name"), [PathBuf::from("/no/such/name")]);
        assert_eq!(places(&entries, "out/log", "/no/such/"), [PathBuf::from("/no/such/log")]);
        assert_eq!(places(&entries, "out/log", "name"), [PathBuf::from("./name")]);
    }

    #[test]
    fn a_hostile_listing_is_refused_before_anything_is_made() {
        for path in ["../x", "out/../../x", "/etc/passwd", "out//x", "elsewhere/x", "out/\u{1b}[2J"] {
            let entries = [entry("out/good", false), entry(path, false)];
            assert!(plan(&entries, "out", Path::new("here"), true).is_err(), "{path:?}");
        }
        for path in ["../x", "/etc/passwd", "a/../../x", ".."] {
            assert!(plan(&[entry("good", false), entry(path, false)], "", Path::new("here"), true).is_err(), "{path:?}");
            assert!(plan(&[entry(path, true)], "", Path::new("here"), true).is_err(), "{path:?}");
        }
    }
}
