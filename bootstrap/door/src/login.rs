//! How a browser comes in: a link that works once, then a cookie.
//!
//! Always true: a code lets one browser in, once, within its time; what a cookie holds is random, lives in memory alone, and ends with its time, with a
//! logout or with the process. Neither is ever the door's token.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::COOKIE;

/// Links that wait to be used; the oldest gives way. Nobody opens more browsers than this in two minutes.
const CODES_MAX: usize = 32;
/// Browsers that are logged in; the one that will end first gives way.
const BROWSERS_MAX: usize = 64;
/// Random bytes of a code and of a cookie: beyond guessing.
const SECRET_BYTES: usize = 32;

/// Codes and cookies of one door, by the hash of their secret: a lookup then tells nothing by its time.
#[derive(Debug)]
pub(crate) struct Logins {
    cookie: String,
    code_time: Duration,
    time: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    codes: BTreeMap<[u8; 32], Instant>,
    browsers: BTreeMap<[u8; 32], Instant>,
}

impl Logins {
    /// Nobody is logged in. Cookies do not know ports: the door's own is in the name, so that two doors of a machine do not log each other out.
    pub(crate) fn new(port: u16, code_time: Duration, time: Duration) -> Self {
        Self { cookie: format!("orien-{port}"), code_time, time, kept: Mutex::default() }
    }

    /// How long a link works.
    pub(crate) fn code_time(&self) -> Duration {
        self.code_time
    }

    /// A code for one login.
    pub(crate) fn mint(&self) -> Result<String, getrandom::Error> {
        let secret = secret()?;
        self.kept().codes.keep(hash(&secret), Instant::now() + self.code_time, CODES_MAX);
        Ok(secret)
    }

    /// Uses a code up; the header that makes the browser remember.
    pub(crate) fn log_in(&self, code: &str, is_secure: bool) -> Result<Option<String>, getrandom::Error> {
        let now = Instant::now();
        if self.kept().codes.remove(&hash(code)).is_none_or(|until| until <= now) {
            return Ok(None);
        }
        let secret = secret()?;
        self.kept().browsers.keep(hash(&secret), now + self.time, BROWSERS_MAX);
        Ok(Some(self.header(&secret, self.time, is_secure)))
    }

    /// Whether a request comes from a browser that is logged in.
    pub(crate) fn is_logged_in(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = self.presented(headers) else { return false };
        let until = self.kept().browsers.get(&hash(secret)).copied();
        until.is_some_and(|until| until > Instant::now())
    }

    /// Whether a request carries this door's cookie at all.
    pub(crate) fn has_cookie(&self, headers: &HeaderMap) -> bool {
        self.presented(headers).is_some()
    }

    /// Forgets the browser of a request; the header that makes it forget too.
    pub(crate) fn log_out(&self, headers: &HeaderMap, is_secure: bool) -> String {
        if let Some(secret) = self.presented(headers) {
            self.kept().browsers.remove(&hash(secret));
        }
        self.header("", Duration::ZERO, is_secure)
    }

    fn header(&self, secret: &str, time: Duration, is_secure: bool) -> String {
        let secure = if is_secure { "; Secure" } else { "" };
        format!("{}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", self.cookie, time.as_secs())
    }

    fn presented<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
        let mut own = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == self.cookie);
        // Two of them: one was planted by somebody else, and nobody can tell which.
        match (own.next(), own.next()) {
            (Some((_, secret)), None) => Some(secret),
            _ => None,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

trait Keep {
    /// Adds one, without those whose time is over, and without the one that would end first if there are too many.
    fn keep(&mut self, hash: [u8; 32], until: Instant, max: usize);
}

impl Keep for BTreeMap<[u8; 32], Instant> {
    fn keep(&mut self, hash: [u8; 32], until: Instant, max: usize) {
        let now = Instant::now();
        self.retain(|_, until| *until > now);
        while self.len() >= max {
            let first = self.iter().min_by_key(|(_, until)| **until).map(|(hash, _)| *hash);
            first.and_then(|hash| self.remove(&hash));
        }
        self.insert(hash, until);
    }
}

fn secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

fn hash(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(set_cookie: &str) -> HeaderMap {
        let pair = set_cookie.split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, pair.parse().unwrap())])
    }

    #[test]
    fn a_code_lets_one_browser_in_and_a_logout_ends_it() {
        let logins = Logins::new(80, Duration::from_secs(60), Duration::from_secs(60));
        let code = logins.mint().unwrap();
        let cookie = logins.log_in(&code, false).unwrap().unwrap();
        assert!(logins.log_in(&code, false).unwrap().is_none(), "a code works once");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"), "{cookie}");
        assert!(logins.is_logged_in(&browser(&cookie)));
        let mut planted = browser(&cookie);
        planted.append(COOKIE, "orien-80=0".parse().unwrap());
        assert!(!logins.is_logged_in(&planted));
        logins.log_out(&browser(&cookie), false);
        assert!(!logins.is_logged_in(&browser(&cookie)));
    }

    #[test]
    fn codes_and_cookies_end_with_their_time_and_the_oldest_give_way() {
        let late = Logins::new(80, Duration::ZERO, Duration::ZERO);
        let code = late.mint().unwrap();
        assert!(late.log_in(&code, false).unwrap().is_none());

        let logins = Logins::new(80, Duration::from_secs(60), Duration::ZERO);
        let first = logins.mint().unwrap();
        for _ in 0..CODES_MAX {
            logins.mint().unwrap();
        }
        assert_eq!(logins.kept().codes.len(), CODES_MAX);
        assert!(logins.log_in(&first, false).unwrap().is_none(), "it gave way");
        let code = logins.mint().unwrap();
        let cookie = logins.log_in(&code, false).unwrap().unwrap();
        assert!(!logins.is_logged_in(&browser(&cookie)), "its time is over");
    }
}
