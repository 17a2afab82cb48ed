//! The bearer token and the file it lives in.
//!
//! Always true: the token is 32 random bytes in hex, it is never printed by `Debug` or an error, and the file that
//! holds it is a regular file nobody but its owner can read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Random bytes in a token: 256 bits, beyond guessing.
const TOKEN_BYTES: usize = 32;

/// Hex characters of a token.
const TOKEN_CHARS: usize = TOKEN_BYTES * 2;

/// Bytes of a token file read at most: the token, a line end, and one more to notice that there is too much.
const TOKEN_FILE_BYTES_MAX: u64 = TOKEN_CHARS as u64 + 8;

/// Permission bits of anyone but the owner.
const OTHERS: u32 = 0o077;

/// What a caller must present. Shown by nothing but [`Token::expose`].
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// The token's text, for a client that is about to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `presented` is this token, in time that does not depend on where they differ.
    pub(crate) fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// Reads the token a door wrote to `path`, with the same checks the door makes.
    ///
    /// # Errors
    /// The file is absent, unreadable, not private or holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let failed = |source| TokenFileError::Read { path: path.to_owned(), source };
        // Not through a link, and not waiting for the other end of a pipe somebody put there.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(TokenFileError::NotAFile { path: path.to_owned() });
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(TokenFileError::NotOurs { path: path.to_owned(), uid: metadata.uid() });
        }
        if metadata.mode() & OTHERS != 0 {
            return Err(TokenFileError::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o777 });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let token = text.trim_end();
        if token.len() != TOKEN_CHARS || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TokenFileError::Malformed { path: path.to_owned() });
        }
        Ok(Self(Zeroizing::new(token.to_owned())))
    }

    /// Reads the token in `path`, first making the file if there is none.
    pub(crate) fn read_or_create(path: &Path) -> Result<Self, TokenFileError> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Self::create(path, file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(source) => Err(TokenFileError::Create { path: path.to_owned(), source }),
        }
    }

    fn create(path: &Path, mut file: File) -> Result<Self, TokenFileError> {
        let mut bytes = Zeroizing::new([0_u8; TOKEN_BYTES]);
        getrandom::fill(bytes.as_mut()).map_err(|_| TokenFileError::Random)?;
        let token = Zeroizing::new(hex::encode(bytes.as_ref()));
        let written = file.write_all(token.as_bytes()).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all());
        if let Err(source) = written {
            // Half a token would be refused at every later start.
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a token file that could not be written stays behind");
            }
            return Err(TokenFileError::Create { path: path.to_owned(), source });
        }
        Ok(Self(token))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// Why there is no token to be had from a file. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file could not be made or filled.
    #[error("cannot create the token file {path}: {source}; its directory must exist and be writable")]
    Create {
        /// The token file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file exists but cannot be read.
    #[error("cannot read the token file {path}: {source}")]
    Read {
        /// The token file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something other than a regular file is there.
    #[error("the token file {path} is not a regular file; remove it and a new token is made at the next start")]
    NotAFile {
        /// The token file.
        path: PathBuf,
    },
    /// Somebody else owns the file, so somebody else knows the token.
    #[error("the token file {path} belongs to user {uid}, not to this one; remove it and a new token is made at the next start")]
    NotOurs {
        /// The token file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others can read the file.
    #[error("the token file {path} can be read by others (mode {mode:04o}); run: chmod 600 '{path}', or remove it to get a new token")]
    Exposed {
        /// The token file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is no token.
    #[error(
        "the token file {path} does not hold a token of {TOKEN_CHARS} hex characters; remove it and a new one is made at the next start"
    )]
    Malformed {
        /// The token file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a token")]
    Random,
}
