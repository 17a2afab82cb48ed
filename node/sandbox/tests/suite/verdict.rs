//! What the attack program told, and how it is judged.
//!
//! Always true: judging is complete in both directions. A try that the table does not speak of fails the row, and so does a line of
//! the table that no try answers to.

use serde::Deserialize;

/// One thing that was tried.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Try {
    pub(crate) what: String,
    pub(crate) ok: Option<bool>,
    pub(crate) errno: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) count: Option<u64>,
    #[serde(default)]
    pub(crate) text: String,
}

/// What must have come of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Is {
    /// It worked.
    Done,
    /// It was looked at, and was not so.
    Not,
    /// The kernel refused with one of these.
    Refused(&'static [i32]),
    /// Whoever tried was killed by this signal.
    Killed(i32),
    /// The row looks at it by itself.
    Aside,
}

/// One attack's line.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Told {
    pub(crate) row: String,
    pub(crate) tries: Vec<Try>,
}

impl Told {
    /// The first line of an output.
    pub(crate) fn read(output: &[u8]) -> Self {
        let line = output.split(|byte| *byte == b'\n').next().unwrap();
        serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)))
    }

    /// Each try by the first line of the table whose name it begins with.
    pub(crate) fn judge(&self, table: &[(&str, Is)]) {
        let mut answered = vec![false; table.len()];
        let mut wrong = Vec::new();
        for tried in &self.tries {
            let Some(line) = table.iter().position(|(name, _)| tried.what.starts_with(name)) else {
                wrong.push(format!("not judged: {tried:?}"));
                continue;
            };
            answered[line] = true;
            if !tried.is(table[line].1) {
                wrong.push(format!("not {:?}: {tried:?}", table[line].1));
            }
        }
        let silent = answered.iter().zip(table).filter(|(answered, _)| !**answered);
        wrong.extend(silent.map(|(_, (name, _))| format!("never tried: {name}")));
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.row);
    }

    /// The try of exactly this name.
    pub(crate) fn of(&self, what: &str) -> &Try {
        self.tries.iter().find(|tried| tried.what == what).unwrap_or_else(|| panic!("{what} was not tried: {self:#?}"))
    }

    /// How many of the tries came out otherwise than there.
    pub(crate) fn differs(&self, other: &Self) -> Vec<String> {
        let same = |one: &&Try| {
            let there = other.tries.iter().find(|tried| tried.what == one.what);
            there.is_some_and(|two| (two.ok, two.errno, two.signal) == (one.ok, one.errno, one.signal))
        };
        self.tries.iter().filter(|tried| !same(tried)).map(|tried| tried.what.clone()).collect()
    }
}

impl Try {
    pub(crate) fn is(&self, expected: Is) -> bool {
        match expected {
            Is::Done => self.ok == Some(true),
            Is::Not => self.ok == Some(false),
            Is::Refused(errors) => self.errno.is_some_and(|errno| errors.contains(&errno)),
            Is::Killed(signal) => self.signal == Some(signal),
            Is::Aside => true,
        }
    }
}
