//! Tokens beside the door's own: made for somebody, with a name, rights, an end, and a way to take them back.
//!
//! Always true: a secret is shown once, by [`Tokens::create`], and only its hash is kept; a token that was made or taken back is so on disk when the call
//! returns; one that was taken back opens nothing from that moment on, requests in flight included.
//!
//! Knows no route and no money: see [`crate::scope`].

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::rate::Rate;
use crate::scope::{Caller, Scope};
pub use file::TokensFileError;

/// Tokens at once: more than anybody can tell apart, few enough to rewrite the file at each change.
pub const TOKENS_MAX: usize = 256;
/// Characters of a token's name: what fits a line.
const NAME_CHARS_MAX: usize = 64;
/// How long an expired token is listed and told apart from an unknown one.
const EXPIRED_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest life of a token: ten years; longer is a mistake or means for ever.
const LIFE_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// When a token was last used is known to the hour: enough to find forgotten ones, and no diary.
const USED_GRAIN_SECONDS: u64 = 3600;

/// Random bytes of an id and of a secret: told apart, and beyond guessing.
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// What every token begins with, for people and for programs that look for leaked secrets.
const PREFIX: &str = "orien_";
/// What every id begins with.
const ID_PREFIX: &str = "tok_";

/// What somebody wants a token for.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// What it is for, in the words of whoever makes it.
    pub name: String,
    /// Its rights.
    pub scopes: BTreeSet<Scope>,
    /// How much it may commit in all, in millionths; for spenders, who have to have one.
    pub cap: Option<u64>,
    /// How long it is good for; for ever if none.
    pub life: Option<Duration>,
}

/// A token as everybody may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// Its rights.
    pub scopes: BTreeSet<Scope>,
    /// How much it may commit in all, in millionths.
    pub cap: Option<u64>,
    /// When it was made, Unix seconds.
    pub created_at: u64,
    /// When it ends, Unix seconds.
    pub expires_at: Option<u64>,
    /// The hour in which it was last used, Unix seconds.
    pub last_used_at: Option<u64>,
}

/// Why there is no new token, or none less.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// There are as many as there can be.
    #[error("there are {TOKENS_MAX} tokens already; revoke some first")]
    Full,
    /// It cannot be kept.
    #[error(transparent)]
    File(#[from] TokensFileError),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for a token")]
    Random,
}

/// A token that was presented, and what became of it.
#[derive(Debug)]
pub(crate) enum Presented {
    /// Good.
    Good(Arc<Entry>),
    /// It was good once.
    Expired,
    /// Never heard of, or taken back.
    Unknown,
}

/// A token in memory.
#[derive(Debug)]
pub(crate) struct Entry {
    info: TokenInfo,
    hash: [u8; 32],
    /// Unix seconds, coarse; 0 is never.
    used: AtomicU64,
    pub(crate) caller: Caller,
    pub(crate) rate: Rate,
    /// Cancelled when it is taken back.
    pub(crate) revoked: CancellationToken,
}

impl Entry {
    fn new(info: TokenInfo, hash: [u8; 32], rate: Rate) -> Self {
        let caller = Caller::new(info.id.clone(), info.scopes.clone(), info.cap);
        let used = AtomicU64::new(info.last_used_at.unwrap_or(0));
        Self { info, hash, used, caller, rate, revoked: CancellationToken::new() }
    }

    fn info(&self) -> TokenInfo {
        let used = self.used.load(Ordering::Relaxed);
        TokenInfo { last_used_at: (used > 0).then_some(used), ..self.info.clone() }
    }

    fn has_expired(&self, now: u64) -> bool {
        self.info.expires_at.is_some_and(|at| at <= now)
    }

    /// How much longer it is good for.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.info.expires_at.map(|at| Duration::from_secs(at.saturating_sub(now())))
    }
}

/// Every token of a door but its own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    requests_per_second: u32,
    /// Read by every request; held for the length of a lookup.
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Held by whoever changes something, while it is written.
    changing: Mutex<()>,
}

impl Tokens {
    /// The tokens that were made before.
    pub(crate) fn load(path: PathBuf, requests_per_second: u32) -> Result<Self, TokensFileError> {
        let kept = file::read(&path)?;
        let entries = kept.into_iter().map(|(info, hash)| {
            let entry = Entry::new(info, hash, Rate::per_second(requests_per_second));
            (entry.info.id.clone(), Arc::new(entry))
        });
        let entries = RwLock::new(entries.collect());
        Ok(Self(Arc::new(Inner { path, requests_per_second, entries, changing: Mutex::new(()) })))
    }

    /// All of them, in the order in which they were made.
    #[must_use]
    pub fn list(&self) -> Vec<TokenInfo> {
        let mut all: Vec<TokenInfo> = self.entries().values().map(|entry| entry.info()).collect();
        all.sort_by(|one, other| one.created_at.cmp(&other.created_at).then_with(|| one.id.cmp(&other.id)));
        all
    }

    /// Makes a token, and gives the only copy of its secret. Waits for the disk.
    ///
    /// # Errors
    /// It makes no sense, there is no room, or it cannot be kept.
    pub fn create(&self, wanted: NewToken) -> Result<(TokenInfo, Secret), TokenError> {
        let NewToken { name, scopes, cap, life } = wanted;
        check(&name, &scopes, cap, life)?;
        let _changing = self.changing();
        let now = now();
        let mut all = self.entries().clone();
        all.retain(|_, entry| entry.info.expires_at.is_none_or(|at| at.saturating_add(EXPIRED_KEPT.as_secs()) > now));
        if all.len() >= TOKENS_MAX {
            return Err(TokenError::Full);
        }
        let (mut id, mut secret) = ([0; ID_BYTES], Zeroizing::new([0; SECRET_BYTES]));
        getrandom::fill(&mut id).and_then(|()| getrandom::fill(secret.as_mut())).map_err(|_| TokenError::Random)?;
        let (id, secret) = (hex::encode(id), Zeroizing::new(hex::encode(secret.as_ref())));
        let text = Secret(Zeroizing::new(format!("{PREFIX}{id}_{}", secret.as_str())));
        let info = TokenInfo {
            id: format!("{ID_PREFIX}{id}"),
            name,
            scopes,
            cap,
            created_at: now,
            expires_at: life.map(|life| now.saturating_add(life.as_secs())),
            last_used_at: None,
        };
        let entry = Entry::new(info.clone(), hash(text.expose().as_bytes()), Rate::per_second(self.0.requests_per_second));
        all.insert(info.id.clone(), Arc::new(entry));
        self.write(&all)?;
        self.replace(all);
        Ok((info, text))
    }

    /// Takes a token back; false if there is none of this id. Waits for the disk.
    ///
    /// # Errors
    /// It opens nothing any more, but the file still names it and a restart would bring it back.
    pub fn revoke(&self, id: &str) -> Result<bool, TokensFileError> {
        let _changing = self.changing();
        let mut all = self.entries().clone();
        let Some(entry) = all.remove(id) else { return Ok(false) };
        self.replace(all.clone());
        entry.revoked.cancel();
        self.write(&all)?;
        Ok(true)
    }

    /// Keeps what is only in memory: when tokens were last used. Waits for the disk.
    pub(crate) fn save(&self) -> Result<(), TokensFileError> {
        let _changing = self.changing();
        let all = self.entries().clone();
        if all.values().all(|entry| entry.info == entry.info()) {
            return Ok(());
        }
        self.write(&all)
    }

    /// Judges a token that a request brought.
    pub(crate) fn judge(&self, presented: &[u8]) -> Presented {
        let Some(id) = id_in(presented) else { return Presented::Unknown };
        let Some(entry) = self.entries().get(&id).cloned() else { return Presented::Unknown };
        if !bool::from(entry.hash.ct_eq(&hash(presented))) {
            return Presented::Unknown;
        }
        let now = now();
        if entry.has_expired(now) {
            return Presented::Expired;
        }
        // In the hour of its making: not before that.
        entry.used.store(now.saturating_sub(now % USED_GRAIN_SECONDS).max(entry.info.created_at), Ordering::Relaxed);
        Presented::Good(entry)
    }

    fn write(&self, all: &BTreeMap<String, Arc<Entry>>) -> Result<(), TokensFileError> {
        file::replace(&self.0.path, all.values().map(|entry| (entry.info(), entry.hash)))
    }

    fn replace(&self, all: BTreeMap<String, Arc<Entry>>) {
        *self.0.entries.write().unwrap_or_else(PoisonError::into_inner) = all;
    }

    fn entries(&self) -> impl std::ops::Deref<Target = BTreeMap<String, Arc<Entry>>> + '_ {
        self.0.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file of tokens beside a door's own token.
pub(crate) fn file_beside(token_file: &Path) -> PathBuf {
    let mut name = token_file.file_name().unwrap_or_default().to_owned();
    name.push("s");
    token_file.with_file_name(name)
}

/// The text of a token, shown once.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, for whoever made the token.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

fn check(name: &str, scopes: &BTreeSet<Scope>, cap: Option<u64>, life: Option<Duration>) -> Result<(), TokenError> {
    let length = name.chars().count();
    let is_spender = scopes.contains(&Scope::Spend) && !scopes.contains(&Scope::Admin);
    let fault = if name.trim().is_empty() || length > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        "a token's name has 1 to 64 characters on one line"
    } else if scopes.is_empty() {
        "a token has to have at least one scope: read, run, spend or admin"
    } else if is_spender && cap.is_none() {
        "a token that may spend has to have a cap: how much it may commit in all"
    } else if !is_spender && cap.is_some() {
        "a cap is for a token with the scope spend and without admin"
    } else if life.is_some_and(|life| life < Duration::from_secs(1) || life > LIFE_MAX) {
        "a token lives for one second to ten years"
    } else {
        return Ok(());
    };
    Err(TokenError::Invalid(fault))
}

/// The id that a token's text names.
fn id_in(presented: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(presented).ok()?.strip_prefix(PREFIX)?;
    let (id, secret) = text.split_once('_')?;
    (id.len() == ID_BYTES * 2 && secret.len() == SECRET_BYTES * 2).then(|| format!("{ID_PREFIX}{id}"))
}

/// One block is enough: what is hashed is random through and through.
fn hash(text: &[u8]) -> [u8; 32] {
    *blake3::hash(text).as_bytes()
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
