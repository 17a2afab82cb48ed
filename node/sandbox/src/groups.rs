//! Control groups (version 2): the kernel's own count and bound of what a whole tree uses.
//!
//! Always true: groups are only made below the one this process was started in, and only when that is ours to divide; all of them are
//! gone when their run or session is, and what an earlier process left is emptied and removed at the start. Where a controller is
//! missing its limit is not claimed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{Access, CWD, Mode, OFlags};

use crate::limits::RunLimits;

/// Where the node itself is: a group that is divided may not hold processes of its own.
const NODE: &str = "orien-node";
/// Where a session's own helper is.
const HOLDER: &str = "holder";
const WANTED: [&str; 3] = ["memory", "pids", "cpu"];
/// Periods over which the kernel counts a share of the processors.
const PERIOD: Duration = Duration::from_millis(100);
/// A group whose last process has ended needs a moment until it can be removed.
const REMOVE_ATTEMPTS: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// The groups of this node.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    base: PathBuf,
    /// Our own groups are recognised by it: other nodes may divide the same group.
    prefix: String,
    /// True with memory, pids and cpu: limits of whole trees, as [`crate::Level::S3`] means.
    pub(crate) complete: bool,
}

/// A session's group.
#[derive(Debug)]
pub(crate) struct SessionGroup {
    path: PathBuf,
    complete: bool,
    next: AtomicU64,
}

/// A run's group.
#[derive(Debug)]
pub(crate) struct RunGroup {
    path: PathBuf,
    /// What the helper starts the run into.
    pub(crate) directory: OwnedFd,
}

/// What the kernel counted for a run, exactly, whatever its processes did to hide it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) cpu: Option<Duration>,
    pub(crate) peak_memory_bytes: Option<u64>,
    /// Processes killed because the group was out of memory.
    pub(crate) out_of_memory: u64,
}

impl Groups {
    /// Finds the group of this process and takes it over for the sandbox whose directory this is. The reason why not is for the
    /// operator.
    pub(crate) fn take_over(root: &OwnedFd) -> Result<Self, String> {
        let base = own_group().map_err(|error| format!("control groups: {error}"))?;
        let root = rustix::fs::fstat(root).map_err(|error| format!("control groups: {error}"))?;
        let groups = Self { base, prefix: format!("orien-{:x}-{:x}-", root.st_dev, root.st_ino), complete: false };
        groups.sweep().map_err(|error| format!("control groups: {} is not ours to divide: {error}", groups.base.display()))?;
        // What another user's node left there would look like ours below.
        rustix::fs::access(&groups.base, Access::WRITE_OK)
            .map_err(|error| format!("control groups: {} is not ours to divide: {}", groups.base.display(), io::Error::from(error)))?;
        let node = groups.base.join(NODE);
        make(&node).map_err(|error| format!("control groups: {} is not ours to divide: {error}", groups.base.display()))?;
        let available = fs::read_to_string(groups.base.join("cgroup.controllers")).unwrap_or_default();
        let missing: Vec<&str> = WANTED.into_iter().filter(|wanted| !available.split_whitespace().any(|have| have == *wanted)).collect();
        if !missing.is_empty() {
            return Ok(groups);
        }
        fs::write(node.join("cgroup.procs"), "0").map_err(|error| format!("control groups: the node cannot move into its own: {error}"))?;
        let complete = enable(&groups.base).is_ok();
        Ok(Self { complete, ..groups })
    }

    /// What is missing for limits of whole trees.
    pub(crate) fn gap(&self) -> String {
        format!("control groups: {} does not offer memory, pids and cpu, or other processes share it", self.base.display())
    }

    /// Kills and removes what an earlier process left.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.base)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(&self.prefix));
            if ours && entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// A group for a session, of whose inner groups a session's own user may be the owner.
    pub(crate) fn session(&self, name: &str, user: Option<u32>) -> io::Result<Arc<SessionGroup>> {
        let path = self.base.join(format!("{}{name}", self.prefix));
        make(&path)?;
        let group = SessionGroup { path, complete: self.complete, next: AtomicU64::new(0) };
        make(&group.path.join(HOLDER))?;
        if self.complete {
            enable(&group.path)?;
        }
        if let Some(user) = user {
            // A process is started into a group by one who may move processes between both; the limits stay ours.
            std::os::unix::fs::chown(group.path.join("cgroup.procs"), Some(user), Some(user))?;
        }
        Ok(Arc::new(group))
    }
}

impl SessionGroup {
    /// Puts the session's helper into it.
    pub(crate) fn admit(&self, process: u32) -> io::Result<()> {
        fs::write(self.path.join(HOLDER).join("cgroup.procs"), process.to_string())
    }

    /// A group for one run, with its limits.
    pub(crate) fn run(&self, limits: &RunLimits, user: Option<u32>) -> io::Result<RunGroup> {
        let path = self.path.join(format!("run-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        make(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let group = RunGroup { directory: rustix::fs::openat(CWD, &path, flags, Mode::empty())?, path };
        if self.complete {
            group.bound(limits)?;
        }
        if let Some(user) = user {
            std::os::unix::fs::chown(group.path.join("cgroup.procs"), Some(user), Some(user))?;
        }
        Ok(group)
    }
}

impl Drop for SessionGroup {
    fn drop(&mut self) {
        let removed = remove(&self.path);
        if let Err(error) = removed {
            tracing::warn!(group = %self.path.display(), %error, "a control group is left until the next start");
        }
    }
}

impl RunGroup {
    fn bound(&self, limits: &RunLimits) -> io::Result<()> {
        let write = |file: &str, value: String| fs::write(self.path.join(file), value);
        write("memory.max", limits.memory_bytes.to_string())?;
        write("memory.oom.group", "1".to_owned())?;
        // Kernels without swap accounting do not have it.
        let _ = write("memory.swap.max", "0".to_owned());
        // The stub is in the group too.
        write("pids.max", u64::from(limits.processes).saturating_add(1).to_string())?;
        let period = PERIOD.as_micros();
        let quota = period.saturating_mul(u128::from(limits.cpu_millis)) / 1000;
        write("cpu.max", format!("{} {period}", quota.max(1000)))
    }

    /// What was used until now.
    pub(crate) fn counted(&self) -> Counted {
        let read = |file: &str| fs::read_to_string(self.path.join(file)).ok();
        let field = |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        Counted {
            cpu: read("cpu.stat").and_then(|text| field(&text, "usage_usec ")).map(Duration::from_micros),
            peak_memory_bytes: read("memory.peak").and_then(|text| text.trim().parse().ok()),
            out_of_memory: read("memory.events").and_then(|text| field(&text, "oom_kill ")).unwrap_or(0),
        }
    }
}

impl Drop for RunGroup {
    fn drop(&mut self) {
        // Its last process may still be ending; the session's own end waits for that.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The group this process is in, of the version 2 hierarchy.
fn own_group() -> io::Result<PathBuf> {
    let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_owned());
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or_else(|| missing("this process is in none of version 2"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts.lines().find_map(mounted_at).ok_or_else(|| missing("version 2 is not mounted"))?;
    let own = Path::new(own.trim_start_matches('/'));
    // A path that leaves the mount belongs to somebody else's view.
    if own.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(missing("the group of this process is not in sight"));
    }
    let path = mount.join(own);
    // A process that an earlier node moved there, or that was started by one: its own group is the one above.
    Ok(if path.file_name().is_some_and(|name| name == NODE) { path.parent().map_or_else(|| path.clone(), Path::to_path_buf) } else { path })
}

/// The mount point of a line of mountinfo that is the whole version 2 hierarchy.
fn mounted_at(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn enable(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.subtree_control"), WANTED.map(|name| format!("+{name}")).join(" "))
}

/// Kills what is in a group and removes it with all below it. Groups nest only as deep as we made them.
fn remove(path: &Path) -> io::Result<()> {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    let mut inner = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            inner.push(entry.path());
        }
    }
    for group in inner.iter().map(PathBuf::as_path).chain([path]) {
        let mut attempts = 0;
        while let Err(error) = fs::remove_dir(group) {
            if error.kind() == io::ErrorKind::NotFound {
                break;
            }
            attempts += 1;
            if attempts > REMOVE_ATTEMPTS {
                return Err(error);
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_hierarchy_is_found_among_mounts() {
        let line = "37 29 0:33 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(mounted_at(line), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(mounted_at("37 29 0:33 /part /sys/fs/cgroup rw - cgroup2 cgroup2 rw"), None);
        assert_eq!(mounted_at("37 29 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
        assert_eq!(mounted_at("nonsense"), None);
    }
}
