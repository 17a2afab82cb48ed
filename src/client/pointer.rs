//! Where a development network on this machine is: a small file per `orien dev`, so that other commands find it without being told.
//!
//! Always true: a pointer is readable by its owner only and is removed by the process that made it; one that a killed process left behind names a process that is gone.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::roles;

/// Most pointers that are looked at.
const POINTERS_LIMIT: usize = 256;
/// Longest path in a pointer.
const PATH_LIMIT: usize = 4096;

/// A pointer that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Pointer(PathBuf);

impl Pointer {
    /// Says where the development network of this process keeps its data.
    pub(crate) fn write(root: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(root)?;
        let folder = folders()?.into_iter().next().context("there is no place for it")?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        forget_the_dead(&folder);
        let path = folder.join(format!("dev-{}", std::process::id()));
        let fresh = path.with_extension("new");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(root.as_os_str().as_encoded_bytes())?;
        std::fs::rename(&fresh, &path)?;
        Ok(Self(path))
    }
}

impl Drop for Pointer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The roots of the development networks whose processes are there.
pub(crate) fn networks() -> Vec<PathBuf> {
    let folders = folders().unwrap_or_default();
    let pointers = folders.iter().flat_map(|folder| pointers(folder));
    let alive = pointers.filter(|(_, pid)| is_alive(*pid));
    alive.filter_map(|(path, _)| std::fs::read_to_string(path).ok()).filter(|root| root.len() <= PATH_LIMIT).map(PathBuf::from).collect()
}

/// Where pointers may be; a new one goes into the first.
fn folders() -> anyhow::Result<Vec<PathBuf>> {
    let at_home = roles::home().map(|home| home.join("run"));
    if std::env::var_os("ORIEN_HOME").is_some() {
        return Ok(vec![at_home?]);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    Ok(runtime.map(|path| path.join("orien")).into_iter().chain(at_home.ok()).collect())
}

fn pointers(folder: &Path) -> Vec<(PathBuf, u32)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let pid = |path: &Path| path.file_name()?.to_str()?.strip_prefix("dev-")?.parse().ok();
    entries.flatten().take(POINTERS_LIMIT).filter_map(|entry| pid(&entry.path()).map(|pid| (entry.path(), pid))).collect()
}

fn forget_the_dead(folder: &Path) {
    for (path, _) in pointers(folder).into_iter().filter(|(_, pid)| !is_alive(*pid)) {
        let _ = std::fs::remove_file(path);
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
