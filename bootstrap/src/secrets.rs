//! Money keys in files: bare, or locked with a passphrase as wallets do it (keystore version 3).
//!
//! Always true: a secret comes from a file that nobody else can open or from the environment, never from an argument; a file that is there is never written over, because there
//! may be money behind it; no error and no log shows a secret.

use std::path::{Path, PathBuf};

use orien_chain::keystore::{self, KeystoreError};
use orien_protocol::signing::MoneyKey;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::clock::{self, NoRandomness};
use crate::files::{self, FileError};

/// Names a file with the passphrase of a locked key.
pub const PASSPHRASE_FILE_VARIABLE: &str = "ORIEN_PASSPHRASE_FILE";

/// Holds the passphrase itself, where no file can be given.
pub const PASSPHRASE_VARIABLE: &str = "ORIEN_PASSPHRASE";

/// Longest key file: a keystore has about 500 bytes, with room for what some wallets add.
const KEY_FILE_LIMIT: u64 = 16 * 1024;

/// Longest passphrase.
const PASSPHRASE_LIMIT: u64 = 1024;

/// Attempts at a usable key; one of 2^128 random values is not.
const ATTEMPTS: usize = 8;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum SecretError {
    /// A file cannot be read or written, or others can read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold a key.
    #[error("{} does not hold a money key: expected 64 hexadecimal digits, or a keystore file of version 3", path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// A keystore file does not open.
    #[error("{}: {source}", path.display())]
    Keystore {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: KeystoreError,
    },
    /// A file is locked, and nobody said with what.
    #[error(
        "{} is locked with a passphrase; name a file that holds it in {PASSPHRASE_FILE_VARIABLE}, or give it in {PASSPHRASE_VARIABLE}",
        path.display()
    )]
    NoPassphrase {
        /// Which file.
        path: PathBuf,
    },
    /// The file with the passphrase cannot be read.
    #[error("the passphrase: {0}")]
    PassphraseFile(FileError),
    /// There is a file already.
    #[error("{} is there already, and there may be money behind it; choose another name, or move it away", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// No new key could be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// The passphrase that the environment gives, if it gives one. The end of its line does not belong to it.
pub fn passphrase() -> Result<Option<Zeroizing<String>>, SecretError> {
    if let Some(path) = std::env::var_os(PASSPHRASE_FILE_VARIABLE) {
        return read_passphrase(Path::new(&path)).map(Some);
    }
    Ok(std::env::var(PASSPHRASE_VARIABLE).ok().map(Zeroizing::new))
}

/// The passphrase in a file. That it cannot be read is an error of its own: it must not look as if there were no key.
pub fn read_passphrase(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let text = files::read_secret(path, PASSPHRASE_LIMIT).map_err(SecretError::PassphraseFile)?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The money key of a file, with the environment's passphrase if it is locked. A locked one takes about a second.
pub fn read_money_key(path: &Path) -> Result<MoneyKey, SecretError> {
    read_money_key_with(path, passphrase)
}

/// The same, with a passphrase from elsewhere; it is only asked for if the file is locked.
pub fn read_money_key_with(
    path: &Path,
    passphrase: impl FnOnce() -> Result<Option<Zeroizing<String>>, SecretError>,
) -> Result<MoneyKey, SecretError> {
    let text = files::read_secret(path, KEY_FILE_LIMIT)?;
    if keystore::is_keystore(&text) {
        let passphrase = passphrase()?.ok_or_else(|| SecretError::NoPassphrase { path: path.to_owned() })?;
        return keystore::open(&text, &passphrase).map_err(|source| SecretError::Keystore { path: path.to_owned(), source });
    }
    let bare = text.trim();
    parse_money_secret(bare)
        .and_then(|secret| MoneyKey::from_bytes(&secret).ok())
        .ok_or_else(|| SecretError::NotAKey { path: path.to_owned() })
}

/// 32 secret bytes out of 64 hexadecimal digits, with or without `0x`.
pub fn parse_money_secret(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), secret.as_mut_slice()).ok()?;
    MoneyKey::from_bytes(&secret).is_ok().then_some(secret)
}

/// A new money key's 32 secret bytes.
pub fn new_money_secret() -> Result<Zeroizing<[u8; 32]>, SecretError> {
    let mut secret = Zeroizing::new([0; 32]);
    for _ in 0..ATTEMPTS {
        clock::fill(secret.as_mut_slice())?;
        if MoneyKey::from_bytes(&secret).is_ok() {
            return Ok(secret);
        }
    }
    Err(NoRandomness.into())
}

/// Writes a money key into a new file (0600), locked if there is a passphrase.
pub fn write_money_key(path: &Path, secret: &[u8; 32], passphrase: Option<&str>) -> Result<(), SecretError> {
    if path.symlink_metadata().is_ok() {
        return Err(SecretError::Exists { path: path.to_owned() });
    }
    let text = match passphrase {
        Some(passphrase) => {
            let (mut salt, mut iv, mut id) = ([0; 32], [0; 16], [0; 16]);
            clock::fill(&mut salt)?;
            clock::fill(&mut iv)?;
            clock::fill(&mut id)?;
            let sealed = keystore::seal(secret, passphrase, &salt, &iv, &id);
            Zeroizing::new(sealed.map_err(|source| SecretError::Keystore { path: path.to_owned(), source })?)
        }
        None => Zeroizing::new(hex::encode(secret)),
    };
    let mut line = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    Ok(files::replace(path, &line)?)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn given(passphrase: &str) -> impl FnOnce() -> Result<Option<Zeroizing<String>>, SecretError> {
        let passphrase = Zeroizing::new(passphrase.to_owned());
        move || Ok(Some(passphrase))
    }

    #[test]
    fn a_key_comes_back_from_its_file_locked_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let secret = new_money_secret().unwrap();
        let address = MoneyKey::from_bytes(&secret).unwrap().address();
        let (bare, locked) = (directory.path().join("bare"), directory.path().join("locked"));
        write_money_key(&bare, &secret, None).unwrap();
        write_money_key(&locked, &secret, Some("open")).unwrap();
        for path in [&bare, &locked] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(read_money_key_with(path, given("open")).unwrap().address(), address);
        }
        assert!(!std::fs::read_to_string(&locked).unwrap().contains(&hex::encode(secret.as_slice())));
        let wrong = read_money_key_with(&locked, given("shut")).unwrap_err().to_string();
        assert!(wrong.contains("passphrase") && wrong.contains("locked"), "{wrong}");
        let none = read_money_key_with(&locked, || Ok(None)).unwrap_err().to_string();
        assert!(none.contains(PASSPHRASE_FILE_VARIABLE), "{none}");
    }

    #[test]
    fn a_missing_passphrase_file_is_not_taken_for_a_missing_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_money_key(&path, &[7; 32], Some("open")).unwrap();
        let refused = read_money_key_with(&path, || read_passphrase(&directory.path().join("nowhere")).map(Some)).unwrap_err();
        assert!(matches!(refused, SecretError::PassphraseFile(_)), "{refused}");
    }

    #[test]
    fn a_key_that_is_there_is_never_written_over_and_one_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write_money_key(&path, &[7; 32], None).unwrap();
        assert!(matches!(write_money_key(&path, &[8; 32], None), Err(SecretError::Exists { .. })));
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(read_money_key_with(&path, given("")).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for text in ["", "xyz", &"0".repeat(64), &"f".repeat(64), &"1".repeat(63)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let refused = read_money_key_with(&path, given("")).unwrap_err();
            assert!(matches!(refused, SecretError::NotAKey { .. }) && (text.len() < 4 || !refused.to_string().contains(text)), "{refused}");
        }
        std::fs::write(&path, format!("0x{}\n", "1".repeat(64))).unwrap();
        assert!(read_money_key_with(&path, given("")).is_ok());
        std::fs::write(&path, "{ \"version\": 3 }").unwrap();
        assert!(matches!(read_money_key_with(&path, given("")), Err(SecretError::Keystore { .. })));
    }
}
