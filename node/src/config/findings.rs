//! What is wrong with a configuration, and where: faults that stop it from loading, and warnings that do not.
//!
//! Always true: every finding has a line and a column that a person can jump to, the path of the field, and a fault says how to mend it. The lists are
//! bounded, however wrong a file is.

use std::fmt;

use serde::Serialize;

/// Most findings of one file; nobody reads further, and a hostile file cannot make more.
const FINDINGS_LIMIT: usize = 200;
/// Most bytes of the file's own words quoted in a finding.
const QUOTE_LIMIT_BYTES: usize = 80;

/// Where something is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The field, such as `tools[1].resourceLimits.memory`; empty for the whole file.
    pub path: String,
}

/// Something that stops the configuration from loading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFault {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub fix: String,
}

/// Something that the provider should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigWarning {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What follows from it.
    pub warning: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, ", {}", self.path) }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.fix)
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.warning)
    }
}

/// Collects the findings of one file.
pub(super) struct Findings<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    faults: Vec<ConfigFault>,
    warnings: Vec<ConfigWarning>,
    faults_dropped: usize,
}

impl<'t> Findings<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at.saturating_add(1))).collect();
        Self { text, line_starts, faults: Vec::new(), warnings: Vec::new(), faults_dropped: 0 }
    }

    /// Records a fault at a byte of the text.
    pub(super) fn fault(&mut self, at: usize, path: &str, problem: impl Into<String>, fix: impl Into<String>) {
        if self.faults.len() < FINDINGS_LIMIT {
            let place = self.place(at, path);
            self.faults.push(ConfigFault { place, problem: problem.into(), fix: fix.into() });
        } else {
            self.faults_dropped = self.faults_dropped.saturating_add(1);
        }
    }

    /// Records a warning at a byte of the text.
    pub(super) fn warn(&mut self, at: usize, path: &str, warning: impl Into<String>) {
        if self.warnings.len() < FINDINGS_LIMIT {
            let place = self.place(at, path);
            self.warnings.push(ConfigWarning { place, warning: warning.into() });
        }
    }

    /// The line on which a byte of the text lies, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= at).max(1)
    }

    /// The warnings when there was no fault, else the faults in the order of the file.
    pub(super) fn finish(mut self) -> Result<Vec<ConfigWarning>, Vec<ConfigFault>> {
        if self.faults.is_empty() {
            self.warnings.sort_by_key(|w| (w.place.line, w.place.column));
            return Ok(self.warnings);
        }
        self.faults.sort_by_key(|f| (f.place.line, f.place.column));
        if self.faults_dropped > 0 {
            let place = self.place(self.text.len(), "");
            let problem = format!("{} more faults are not shown", self.faults_dropped);
            self.faults.push(ConfigFault { place, problem, fix: "mend the ones above first".to_owned() });
        }
        Err(self.faults)
    }

    fn place(&self, at: usize, path: &str) -> Place {
        let line = self.line(at);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count()).saturating_add(1);
        Place { line, column, path: path.to_owned() }
    }
}

/// Words of the file, as quoted in a finding: escaped and shortened.
pub(super) fn quote(words: &str) -> String {
    let mut end = words.len().min(QUOTE_LIMIT_BYTES);
    while !words.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    let (shown, more) = (words.get(..end).unwrap_or(""), if end < words.len() { "..." } else { "" });
    format!("`{}{more}`", shown.escape_debug())
}

/// What an unknown word was probably meant to be; case and separators do not matter.
pub(super) fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // One change in three letters is a typing error; more makes another word.
    let plain = |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase();
    let word = plain(word.get(..QUOTE_LIMIT_BYTES).unwrap_or(word));
    let near = known.into_iter().map(|candidate| (strsim::osa_distance(&word, &plain(candidate)), candidate));
    near.filter(|(distance, candidate)| distance.saturating_mul(3) <= candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
