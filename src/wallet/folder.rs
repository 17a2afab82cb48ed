//! The folder of a funding wallet: its keystore, and a record of everything it was asked to send.
//!
//! Always true while a [`WalletFolder`] exists: nobody but its owner can enter the folder, and no other process sends from it, so that two commands never take the same
//! nonce.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::failure::{Failure, Told};
use crate::roles;

/// Permission bits of anyone but the owner.
const OTHERS: u32 = 0o077;

/// A wallet's folder that this process alone sends from.
#[derive(Debug)]
pub(crate) struct WalletFolder {
    path: PathBuf,
    _lock: File,
}

/// Where the folder is: what was said, else `wallet` beside the roles' directories.
pub(crate) fn place(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => Ok(roles::home()?.join("wallet")),
    }
}

/// The keystore of a folder.
pub(crate) fn keystore_in(folder: &Path) -> PathBuf {
    folder.join("keystore.json")
}

impl WalletFolder {
    /// Opens or makes (0700) the folder and locks it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let private = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        if !path.exists() {
            private(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let metadata = std::fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
        if !metadata.is_dir() {
            bail!("{} is not a folder; choose another one with --wallet", path.display());
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            bail!("the wallet's folder {} belongs to another user; run as that user or choose another one with --wallet", path.display());
        }
        if metadata.mode() & OTHERS != 0 {
            let shown = path.display();
            bail!(
                "the wallet's folder {shown} can be entered by other users (mode {:04o}); run: chmod 700 '{shown}'",
                metadata.mode() & 0o777
            );
        }
        let lock = lock(path)?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        let records = folder.records();
        private(&records).with_context(|| format!("cannot make {}", records.display()))?;
        Ok(folder)
    }

    /// Where the records of what was sent are.
    pub(crate) fn records(&self) -> PathBuf {
        self.path.join("transactions")
    }

    /// The keystore.
    pub(crate) fn keystore(&self) -> PathBuf {
        keystore_in(&self.path)
    }
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let text = format!("another command is sending from the wallet in {}; wait for it", folder.display());
            Err(Told::coded(Failure::Other, "wallet_in_use", text))
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_private_and_one_command_at_a_time_sends_from_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/wallet");
        let folder = WalletFolder::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let error = WalletFolder::open(&path).unwrap_err();
        assert_eq!(crate::failure::described(&error)["code"], "wallet_in_use");
        drop(folder);
        WalletFolder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_enter_is_refused_with_the_fix() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        let error = WalletFolder::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains("mode 0755") && error.contains("chmod 700"), "{error}");
    }
}
