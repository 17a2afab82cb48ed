//! The two secret keys of a peer: its network identity and the key that moves its money.
//!
//! Always true: a key is made once, is on the disk before it is used, and lies in a file that only its owner can open. No error, log line or `Debug`
//! shows a secret. A damaged key file is refused, never replaced: there may be money behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orien_protocol::signing::{MoneyKey, PeerKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::clock::{self, NoRandomness};
use crate::data_dir::DataDir;
use crate::files::{self, FileError};
use crate::secrets::{self, SecretError};

/// Longest key file: 64 hexadecimal digits and a line end, with room to notice that there is more.
const KEY_FILE_LIMIT: u64 = 80;

/// Attempts at a usable secp256k1 key; one of 2^128 random values is not.
const ATTEMPTS: usize = 8;

/// Why there are no keys.
#[derive(Debug, Error)]
pub enum KeysError {
    /// A key file cannot be read or written, or others can read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key file does not hold a key.
    #[error("{} does not hold a key: expected 64 hexadecimal digits; restore it from a backup, since a new key would be another peer with other money", path.display())]
    NotAKey {
        /// Which file.
        path: PathBuf,
    },
    /// The money key is locked and does not open.
    #[error(transparent)]
    Locked(SecretError),
    /// No new key could be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl From<SecretError> for KeysError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::File(error) => Self::File(error),
            SecretError::NotAKey { path } => Self::NotAKey { path },
            SecretError::NoRandomness(error) => Self::NoRandomness(error),
            error => Self::Locked(error),
        }
    }
}

/// The keys of a peer.
#[derive(Clone)]
pub struct Keys {
    seed: Zeroizing<[u8; 32]>,
    peer: Arc<PeerKey>,
    money: Arc<MoneyKey>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("peer", &self.peer).field("money", &self.money).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads both keys, making those that are not there yet.
    pub fn load_or_create(data: &DataDir) -> Result<Self, KeysError> {
        let seed = load_or_create(&data.peer_key(), |_| true)?;
        let money = load_or_create_money(&data.money_key())?;
        Ok(Self { peer: Arc::new(PeerKey::from_seed(&seed)), seed, money: Arc::new(money) })
    }

    /// The network identity.
    pub fn peer(&self) -> &Arc<PeerKey> {
        &self.peer
    }

    /// The key that moves money.
    pub fn money(&self) -> &Arc<MoneyKey> {
        &self.money
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

/// The money key of a file, bare or locked; a new one is bare.
fn load_or_create_money(path: &Path) -> Result<MoneyKey, KeysError> {
    match secrets::read_money_key(path) {
        Err(SecretError::File(error)) if error.is_absent() => {
            let secret = create(path, |bytes| MoneyKey::from_bytes(bytes).is_ok())?;
            MoneyKey::from_bytes(&secret).map_err(|_| KeysError::NotAKey { path: path.to_owned() })
        }
        read => Ok(read?),
    }
}

fn load_or_create(path: &Path, usable: impl Fn(&[u8; 32]) -> bool) -> Result<Zeroizing<[u8; 32]>, KeysError> {
    match files::read_secret(path, KEY_FILE_LIMIT) {
        Ok(text) => {
            let mut secret = Zeroizing::new([0; 32]);
            let decoded = hex::decode_to_slice(text.trim_end(), secret.as_mut_slice());
            if decoded.is_ok() && usable(&secret) { Ok(secret) } else { Err(KeysError::NotAKey { path: path.to_owned() }) }
        }
        Err(error) if error.is_absent() => create(path, usable),
        Err(error) => Err(error.into()),
    }
}

fn create(path: &Path, usable: impl Fn(&[u8; 32]) -> bool) -> Result<Zeroizing<[u8; 32]>, KeysError> {
    let mut secret = Zeroizing::new([0; 32]);
    for _ in 0..ATTEMPTS {
        clock::fill(secret.as_mut_slice())?;
        if usable(&secret) {
            let mut text = Zeroizing::new([b'\n'; 65]);
            // 32 bytes always fill 64 digits.
            if hex::encode_to_slice(secret.as_slice(), &mut text[..64]).is_ok() {
                files::replace(path, text.as_slice())?;
                return Ok(secret);
            }
        }
    }
    Err(NoRandomness.into())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::data_dir::RoleName;

    fn data() -> (tempfile::TempDir, DataDir) {
        let parent = tempfile::tempdir().unwrap();
        let data = DataDir::open(&parent.path().join("data"), RoleName::Node).unwrap();
        (parent, data)
    }

    #[test]
    fn keys_are_made_once_and_come_back_with_private_files() {
        let (_parent, data) = data();
        let made = Keys::load_or_create(&data).unwrap();
        let read = Keys::load_or_create(&data).unwrap();
        assert_eq!((made.peer.id(), made.money.address()), (read.peer.id(), read.money.address()));
        for path in [data.peer_key(), data.money_key()] {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(std::fs::read(&path).unwrap().len(), 65);
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_fix() {
        let (_parent, data) = data();
        Keys::load_or_create(&data).unwrap();
        std::fs::set_permissions(data.money_key(), Permissions::from_mode(0o640)).unwrap();
        let error = Keys::load_or_create(&data).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("money.key"), "{error}");
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_as_it_is() {
        let (_parent, data) = data();
        Keys::load_or_create(&data).unwrap();
        let path = data.peer_key();
        for content in ["", "xyz", &"0".repeat(63), &"0".repeat(79), &"0".repeat(5000)] {
            std::fs::write(&path, content).unwrap();
            assert!(Keys::load_or_create(&data).is_err(), "{content}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(data.money_key(), "0".repeat(64)).unwrap();
        let error = Keys::load_or_create(&data).unwrap_err();
        assert!(matches!(error, KeysError::NotAKey { ref path } if path.ends_with("money.key")), "{error}");
    }

    #[test]
    fn a_link_is_not_followed_to_a_key() {
        let (parent, data) = data();
        let elsewhere = parent.path().join("elsewhere");
        std::fs::write(&elsewhere, "1".repeat(64)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, data.peer_key()).unwrap();
        assert!(matches!(Keys::load_or_create(&data), Err(KeysError::File(FileError::Io { .. }))));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let (_parent, data) = data();
        let keys = Keys::load_or_create(&data).unwrap();
        let shown = format!("{keys:?}");
        assert!(!shown.contains(&hex::encode(keys.seed())), "{shown}");
        assert!(!shown.contains(std::fs::read_to_string(data.money_key()).unwrap().trim()), "{shown}");
    }
}
