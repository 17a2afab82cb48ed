//! The file that tokens are kept in: JSON, private, whole.
//!
//! Always true: a reader finds the old list or the new one; a file that others could have read or written is refused, for its hashes decide who comes in.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{TOKENS_MAX, TokenInfo};
use crate::scope::Scope;

/// The layout written here.
const VERSION: u32 = 1;
/// Longest file: every token with the longest name, escaped.
const FILE_BYTES_MAX: u64 = TOKENS_MAX as u64 * 1024;
/// Permission bits of anyone but the owner.
const OTHERS: u32 = 0o077;

/// Why the tokens cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum TokensFileError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a private file of ours.
    #[error("{} has to be a regular file of this user that nobody else can open; move it away, and make the tokens anew", path.display())]
    NotPrivate {
        /// Which file.
        path: PathBuf,
    },
    /// Its content is not what was written.
    #[error("{} does not hold tokens: {reason}; move it away, and make the tokens anew", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    version: u32,
    tokens: Vec<KeptToken>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeptToken {
    id: String,
    name: String,
    scopes: BTreeSet<Scope>,
    cap_millionths: Option<u64>,
    created_at: u64,
    expires_at: Option<u64>,
    last_used_at: Option<u64>,
    /// BLAKE3 of the token's text.
    hash: String,
}

/// What was kept; nothing if there is no file.
pub(super) fn read(path: &Path) -> Result<Vec<(TokenInfo, [u8; 32])>, TokensFileError> {
    let io = |action| move |source| TokensFileError::Io { action, path: path.to_owned(), source };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(io("open"))?,
    };
    let metadata = file.metadata().map_err(io("look at"))?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & OTHERS != 0 {
        return Err(TokensFileError::NotPrivate { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).map_err(io("read"))?;
    let malformed = |reason: String| TokensFileError::Malformed { path: path.to_owned(), reason };
    let kept: Kept = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    if kept.version != VERSION {
        return Err(malformed(format!("its layout {} is not known to this program", kept.version)));
    }
    let tokens = kept.tokens.into_iter().take(TOKENS_MAX).map(|token| {
        let mut hash = [0; 32];
        hex::decode_to_slice(&token.hash, &mut hash).map_err(|_| malformed(format!("the hash of {} is none", token.id)))?;
        let info = TokenInfo {
            id: token.id,
            name: token.name,
            scopes: token.scopes,
            cap: token.cap_millionths,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        };
        Ok((info, hash))
    });
    tokens.collect()
}

/// Replaces what was kept; it is on the disk when this returns.
pub(super) fn replace(path: &Path, tokens: impl Iterator<Item = (TokenInfo, [u8; 32])>) -> Result<(), TokensFileError> {
    let tokens = tokens.map(|(info, hash)| KeptToken {
        id: info.id,
        name: info.name,
        scopes: info.scopes,
        cap_millionths: info.cap,
        created_at: info.created_at,
        expires_at: info.expires_at,
        last_used_at: info.last_used_at,
        hash: hex::encode(hash),
    });
    let kept = Kept { version: VERSION, tokens: tokens.collect() };
    let bytes = serde_json::to_vec_pretty(&kept)
        .map_err(|error| TokensFileError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    let io = |action| move |source| TokensFileError::Io { action, path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove the draft of")(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(io("create"))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io("write"))?;
    std::fs::rename(&draft, path).map_err(io("put in place"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync the directory of"))
}
