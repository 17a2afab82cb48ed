//! What `/proc` says about processes: who descends from whom, and what they use.
//!
//! Always true: a process that vanishes while it is read is simply not in the answer. An answer is a moment's view and may miss
//! a process that was just born, so callers that must find all of them ask again until nothing is left.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

/// The unit of CPU time in `/proc` is fixed at 1/100 s on every architecture this runs on.
const TICK: Duration = Duration::from_millis(10);

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// The thread by which it is looked at: the first one, or another where that has ended and others go on. What has ended has no
    /// memory, no environment and no directory to be seen.
    pub(crate) thread: i32,
    pub(crate) parent: i32,
    /// `R`, `S`, `T`, `Z`, ...
    pub(crate) state: u8,
    /// Controlling terminal, zero for none.
    pub(crate) terminal: i32,
    /// Of the process and of children it has waited for.
    pub(crate) cpu: Duration,
    pub(crate) threads: u32,
    pub(crate) resident_bytes: u64,
}

impl Process {
    /// A process whose first thread has ended looks like one that has ended, and may be as alive as any.
    pub(crate) fn read(pid: i32) -> Option<Self> {
        let first = Self::of(pid)?;
        if !first.is_dead() || first.threads <= 1 {
            return Some(first);
        }
        let others = threads(pid).into_iter().filter(|thread| *thread != pid);
        let living = others.filter_map(Self::of).find(|thread| !thread.is_dead());
        Some(living.map_or(first, |living| Self { pid, ..living }))
    }

    /// Of a process or of any of its threads.
    fn of(thread: i32) -> Option<Self> {
        Self::parse(thread, &fs::read(format!("/proc/{thread}/stat")).ok()?)
    }

    /// The name in brackets is the process's own choice and may hold anything, so fields are counted from the last bracket.
    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let name_end = stat.iter().rposition(|b| *b == b')')?;
        let text = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = [11, 12, 13, 14].iter().filter_map(|index| number(*index)).fold(0u64, u64::saturating_add);
        Some(Self {
            pid,
            thread: pid,
            parent: fields.get(1)?.parse().ok()?,
            state: *fields.first()?.as_bytes().first()?,
            terminal: fields.get(4)?.parse().ok()?,
            cpu: TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)),
            threads: u32::try_from(number(17)?).unwrap_or(u32::MAX),
            resident_bytes: number(21)?.saturating_mul(rustix::param::page_size() as u64),
        })
    }

    /// True once it has ended and only waits to be collected.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// True while a stop signal holds it.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }

    /// True while it waits for something that no signal but the last one interrupts.
    pub(crate) fn is_stuck(&self) -> bool {
        self.state == b'D'
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // It may be gone by now, which is what most callers want.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Every process number that can be seen.
pub(crate) fn all() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Every process but one. In a pid namespace that is all there is to see.
pub(crate) fn all_others(own: i32) -> Vec<Process> {
    all().unwrap_or_default().into_iter().filter(|pid| *pid != own).filter_map(Process::read).collect()
}

/// All descendants of a process, parents before children.
pub(crate) fn descendants(root: i32) -> Vec<Process> {
    if Path::new(&format!("/proc/{root}/task/{root}/children")).exists() { descendants_by_links(root) } else { descendants_by_scan(root) }
}

/// Follows the kernel's own lists: costs what the tree costs, not what the host costs.
fn descendants_by_links(root: i32) -> Vec<Process> {
    let mut found = Vec::new();
    // A process that changes its parent during the walk is met twice.
    let mut seen = HashSet::new();
    let mut open = children(root);
    while let Some(pid) = open.pop() {
        if !seen.insert(pid) {
            continue;
        }
        if let Some(process) = Process::read(pid) {
            found.push(process);
            open.extend(children(pid));
        }
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()).collect()
}

/// For kernels built without those lists.
fn descendants_by_scan(root: i32) -> Vec<Process> {
    let mut rest: Vec<Process> = all().unwrap_or_default().into_iter().filter_map(Process::read).collect();
    let mut found: Vec<Process> = Vec::new();
    let mut seen = HashSet::from([root]);
    loop {
        let known = |pid: i32| seen.contains(&pid);
        let (next, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|process| known(process.parent));
        if next.is_empty() {
            return found;
        }
        seen.extend(next.iter().map(|process| process.pid));
        found.extend(next);
        rest = others;
    }
}

fn threads(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Highest resident memory of a process so far, in bytes.
pub(crate) fn peak_resident_bytes(process: &Process) -> u64 {
    kib_line(&format!("/proc/{}/status", process.thread), "VmHWM:").unwrap_or(0)
}

/// A process's fair share of the pages it uses, in bytes. Slow for large processes.
pub(crate) fn proportional_bytes(process: &Process) -> Option<u64> {
    kib_line(&format!("/proc/{}/smaps_rollup", process.thread), "Pss:")
}

fn kib_line(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// Processes and threads of this user, other than kernel threads. The kernel counts its process limit per user.
pub(crate) fn tasks_of_user(user: u32) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let own = |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == user);
    let pids = all().unwrap_or_default().into_iter().filter(own);
    pids.filter_map(Process::read).map(|process| u64::from(process.threads)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let stat = b"7 (a) Z 1 ) (x) S 3 7 7 34816 7 0 0 0 0 0 1 2 3 4 20 0 5 0 100 1000 10 0";
        let process = Process::parse(7, stat).unwrap();
        assert_eq!((process.state, process.parent, process.terminal, process.threads), (b'S', 3, 34816, 5));
        assert_eq!(process.cpu, Duration::from_millis(100));
    }

    #[test]
    fn both_ways_of_finding_descendants_find_a_child() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(descendants_by_scan(own).iter().any(|process| process.pid == pid));
        assert!(descendants(own).iter().any(|process| process.pid == pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
