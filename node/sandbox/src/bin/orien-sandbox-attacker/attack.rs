//! One row being carried out: its arguments, and what came of each try.
//!
//! Always true: exactly one line is printed, whole, however many tries there were. A try says `ok` when what was asked for happened,
//! `errno` when the kernel refused, `signal` when the process that tried was killed; `count` and `text` say how much and what.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::raw::{self, Arg, Ended};

/// Of what was found, enough to recognise it.
const TEXT_CHARS_MAX: usize = 8192;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Try {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Attack {
    row: String,
    tries: Vec<Try>,
    #[serde(skip)]
    given: Vec<(String, String)>,
    #[serde(skip)]
    told: bool,
}

impl Attack {
    pub(crate) fn new(row: &str, given: Vec<(String, String)>) -> Self {
        raw::prepare();
        Self { row: row.to_owned(), tries: Vec::new(), given, told: false }
    }

    /// Every value given for this key.
    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        self.given.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn value(&self, key: &str, default: &str) -> String {
        self.values(key).pop().unwrap_or_else(|| default.to_owned())
    }

    pub(crate) fn number(&self, key: &str, default: u64) -> u64 {
        self.values(key).pop().and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// Process numbers that were given.
    pub(crate) fn pids(&self) -> Vec<u64> {
        self.values("pid").iter().filter_map(|value| value.parse().ok()).collect()
    }

    /// Notes what came of something, and hands it on.
    pub(crate) fn note<T>(&mut self, what: impl Into<String>, outcome: io::Result<T>) -> Option<T> {
        let mut made = Try { what: what.into(), ..Try::default() };
        let found = match outcome {
            Ok(found) => {
                made.ok = Some(true);
                Some(found)
            }
            Err(error) => {
                made.fail(&error);
                None
            }
        };
        self.tries.push(made);
        found
    }

    /// A system call.
    pub(crate) fn call(&mut self, what: impl Into<String>, number: libc::c_long, args: &mut [Arg<'_>]) -> Option<u64> {
        let outcome = raw::call(number, args);
        self.note(what, outcome)
    }

    /// Something that succeeds with words, such as a file that was read.
    pub(crate) fn read(&mut self, what: impl Into<String>, outcome: io::Result<Vec<u8>>) {
        let text = self.note(what, outcome).map(|bytes| String::from_utf8_lossy(&bytes).chars().take(TEXT_CHARS_MAX).collect());
        if let Some(last) = self.tries.last_mut() {
            last.text = text;
        }
    }

    /// Something that is so or not.
    pub(crate) fn says(&mut self, what: impl Into<String>, ok: bool, text: impl Into<String>) {
        self.tries.push(Try { what: what.into(), ok: Some(ok), text: Some(text.into()), ..Try::default() });
    }

    /// Something done again and again: how often it worked, and what ended it (`None`: nothing did).
    pub(crate) fn counted(&mut self, what: impl Into<String>, count: u64, end: Option<&io::Error>) {
        let mut made = Try { what: what.into(), count: Some(count), ..Try::default() };
        match end {
            None => made.ok = Some(true),
            Some(error) => made.fail(error),
        }
        self.tries.push(made);
    }

    /// Tries in a process of its own, which may die of it or be changed by it. The count is what the try answers with.
    pub(crate) fn apart(&mut self, what: impl Into<String>, attempt: impl FnOnce() -> io::Result<u64>) {
        let what = what.into();
        match raw::apart(attempt) {
            Err(error) => self.counted(what + " (no process for it)", 0, Some(&error)),
            Ok((Ended::Signal(signal), count)) => {
                self.tries.push(Try { what, signal: Some(signal), count: Some(count).filter(|count| *count > 0), ..Try::default() });
            }
            Ok((Ended::Exit(0), 0)) => self.tries.push(Try { what, ok: Some(true), ..Try::default() }),
            Ok((Ended::Exit(0), count)) => self.counted(what, count, None),
            Ok((Ended::Exit(errno), 0)) => self.tries.push(Try { what, errno: Some(errno), ..Try::default() }),
            Ok((Ended::Exit(errno), count)) => self.counted(what, count, Some(&io::Error::from_raw_os_error(errno))),
        }
    }

    /// Shows that the row does what it says at all: it can use what it should have.
    pub(crate) fn control(&mut self, outcome: io::Result<()>) {
        self.note("control", outcome);
    }

    /// Prints the line, once.
    pub(crate) fn tell(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        let mut out = io::stdout();
        // A reader that is gone is part of some rows.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

impl Try {
    fn fail(&mut self, error: &io::Error) {
        self.errno = Some(error.raw_os_error().unwrap_or(0));
        if error.raw_os_error().is_none() {
            self.text = Some(error.to_string());
        }
    }
}
