//! The text of a configuration as a tree whose every value knows where it stands.
//!
//! Always true: a text that is read is strict JSON (RFC 8259), of bounded size. Numbers stay text, so that no amount passes through a float.

use std::borrow::Cow;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::ParseErrorKind;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde::de::IgnoredAny;

use super::findings::{Findings, closest, quote};

/// Larger than any sensible configuration; 64 tools with everything they may have are about 200 KB.
const TEXT_LIMIT_BYTES: usize = 1024 * 1024;

const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
};

/// Parses a text, or records the one fault that stopped it.
pub(super) fn parse<'t>(text: &'t str, findings: &mut Findings<'_>) -> Option<Value<'t>> {
    if text.len() > TEXT_LIMIT_BYTES {
        findings.fault(0, "", "the file is larger than 1 MiB", "a provider configuration is a short list of tools");
        return None;
    }
    let parsed = match parse_to_ast(text, &CollectOptions::default(), &STRICT) {
        Ok(parsed) => parsed,
        Err(error) => {
            findings.fault(error.range().start, "", format!("this is not JSON: {}", error.kind()), syntax_fix(error.kind()));
            return None;
        }
    };
    if parsed.value.is_none() {
        findings.fault(0, "", "the file is empty", "start with {\"providerId\": \"my_provider\", \"tools\": []} and add tools");
        return None;
    }
    // The tree's parser is a little more tolerant than JSON in numbers and strings; this one is not.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let at = byte_of(text, error.line(), error.column());
        let why = error.to_string();
        let why = why.split(" at line ").next().unwrap_or(&why);
        findings.fault(at, "", format!("this is not JSON: {why}"), "correct it there");
        return None;
    }
    parsed.value
}

fn syntax_fix(kind: &ParseErrorKind) -> &'static str {
    match kind {
        ParseErrorKind::CommentsNotAllowed => "remove the comment; JSON has none",
        ParseErrorKind::TrailingCommasNotAllowed => "remove the last comma",
        ParseErrorKind::ExpectedComma | ParseErrorKind::UnexpectedTokenInObject => {
            "put a comma between two entries and quotes around each key"
        }
        ParseErrorKind::ExpectedStringObjectProperty | ParseErrorKind::SingleQuotedStringsNotAllowed => "put double quotes around it",
        ParseErrorKind::UnexpectedWord => "put double quotes around a text; the only bare words are true, false and null",
        ParseErrorKind::UnterminatedObject => "add the missing }",
        ParseErrorKind::UnterminatedArray => "add the missing ]",
        ParseErrorKind::MultipleRootJsonValues => "remove what follows the closing }",
        _ => "correct it there",
    }
}

/// The byte at a line and a column of bytes, both from 1.
fn byte_of(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut at = before.saturating_add(column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at = at.saturating_sub(1);
    }
    at
}

/// One value and the path that leads to it.
#[derive(Clone)]
pub(super) struct Field<'v, 't> {
    pub(super) value: &'v Value<'t>,
    pub(super) path: String,
}

impl<'v, 't> Field<'v, 't> {
    pub(super) fn at(&self) -> usize {
        self.value.start()
    }

    pub(super) fn fault(&self, findings: &mut Findings<'_>, problem: impl Into<String>, fix: impl Into<String>) {
        findings.fault(self.at(), &self.path, problem, fix);
    }

    pub(super) fn warn(&self, findings: &mut Findings<'_>, warning: impl Into<String>) {
        findings.warn(self.at(), &self.path, warning);
    }

    fn expected(&self, findings: &mut Findings<'_>, what: &str) {
        let found = match self.value {
            Value::StringLit(text) => format!("the text {}", quote(&text.value)),
            Value::NumberLit(number) => format!("the number {}", quote(number.value)),
            Value::BooleanLit(flag) => flag.value.to_string(),
            Value::Object(_) => "an object".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::NullKeyword(_) => "null".to_owned(),
        };
        self.fault(findings, format!("expected {what}, found {found}"), format!("write {what}, or leave the field out if it is optional"));
    }

    /// A text of at most so many bytes on one line; empty is allowed.
    pub(super) fn text(&self, findings: &mut Findings<'_>, limit_bytes: usize) -> Option<&'v str> {
        let Value::StringLit(literal) = self.value else {
            self.expected(findings, "a text in double quotes");
            return None;
        };
        let text: &'v Cow<'t, str> = &literal.value;
        if text.len() > limit_bytes {
            self.fault(findings, format!("the text has {} bytes", text.len()), format!("use at most {limit_bytes} bytes"));
            return None;
        }
        if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
            self.fault(findings, "the text holds a line break or another control character", "write it on one line of plain text");
            return None;
        }
        Some(text)
    }

    /// A text that is not blank.
    pub(super) fn words(&self, findings: &mut Findings<'_>, limit_bytes: usize) -> Option<&'v str> {
        let text = self.text(findings, limit_bytes)?;
        if text.trim().is_empty() {
            self.fault(findings, "the text is empty", "write something, or leave the field out if it is optional");
            return None;
        }
        Some(text)
    }

    /// A name that requests and networks use: `[a-z0-9_-]{1,64}`.
    pub(super) fn id(&self, findings: &mut Findings<'_>) -> Option<&'v str> {
        let text = self.text(findings, 4 * orien_protocol::offer::NAME_LIMIT)?;
        let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if letters && (1..=orien_protocol::offer::NAME_LIMIT).contains(&text.len()) {
            return Some(text);
        }
        let fix = "use 1 to 64 of the characters a-z, 0-9, _ and -, such as `run_build`";
        self.fault(findings, format!("{} cannot be an id", quote(text)), fix);
        None
    }

    pub(super) fn flag(&self, findings: &mut Findings<'_>) -> Option<bool> {
        if let Value::BooleanLit(flag) = self.value {
            return Some(flag.value);
        }
        self.expected(findings, "true or false");
        None
    }

    /// A number as the file has it, whether or not it is in quotes.
    pub(super) fn digits(&self, findings: &mut Findings<'_>, what: &str) -> Option<&'v str> {
        match self.value {
            Value::NumberLit(number) => Some(number.value),
            Value::StringLit(text) => Some(&text.value),
            _ => {
                self.expected(findings, what);
                None
            }
        }
    }

    /// A whole number, in quotes or not, between both bounds.
    pub(super) fn whole<N>(&self, findings: &mut Findings<'_>, min: N, max: N) -> Option<N>
    where
        N: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let what = format!("a whole number from {min} to {max}");
        let digits = self.digits(findings, &what)?;
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
            self.expected(findings, &what);
            return None;
        }
        match digits.parse::<N>() {
            Ok(number) if number >= min && number <= max => Some(number),
            _ => {
                self.fault(findings, format!("{} is out of range", quote(digits)), format!("write {what}"));
                None
            }
        }
    }

    /// The elements of a list of at most so many.
    pub(super) fn list(&self, findings: &mut Findings<'_>, limit: usize) -> Option<Vec<Self>> {
        let Value::Array(array) = self.value else {
            self.expected(findings, "a list in [ ]");
            return None;
        };
        if array.elements.len() > limit {
            self.fault(findings, format!("the list has {} entries", array.elements.len()), format!("use at most {limit}"));
            return None;
        }
        let elements = array.elements.iter().enumerate();
        Some(elements.map(|(index, value)| Field { value, path: format!("{}[{index}]", self.path) }).collect())
    }

    /// The fields of an object, whatever their names; each name once.
    pub(super) fn entries(&self, findings: &mut Findings<'_>) -> Option<Vec<(&'v str, Self)>> {
        let Value::Object(object) = self.value else {
            self.expected(findings, "an object in { }");
            return None;
        };
        let mut entries: Vec<(&'v str, Self)> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        for property in &object.properties {
            let name = property.name.as_str();
            let path = self.below(name);
            if let Some(first) = seen.insert(name, property.start()) {
                let problem = format!("{} is given twice; the first is on line {}", quote(name), findings.line(first));
                findings.fault(property.start(), &path, problem, "keep one of them");
            } else {
                entries.push((name, Field { value: &property.value, path }));
            }
        }
        Some(entries)
    }

    /// The fields of an object that may only have the `known` ones.
    pub(super) fn object(&self, findings: &mut Findings<'_>, known: &[&str]) -> Option<Fields<'v, 't>> {
        let mut entries = self.entries(findings)?;
        let mut misspelt = Vec::new();
        entries.retain(|(name, field)| {
            if known.contains(name) {
                return true;
            }
            let near = closest(name, known.iter().copied());
            let fix = near.map_or_else(|| format!("remove it; known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            field.fault(findings, format!("unknown field {}", quote(name)), fix);
            misspelt.extend(near.map(str::to_owned));
            false
        });
        Some(Fields { of: self.clone(), entries, misspelt })
    }

    fn below(&self, name: &str) -> String {
        let name = quote(name);
        let name = name.trim_matches('`');
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// The known fields of one object.
pub(super) struct Fields<'v, 't> {
    /// The object itself.
    pub(super) of: Field<'v, 't>,
    entries: Vec<(&'v str, Field<'v, 't>)>,
    /// What the unknown fields were probably meant to be.
    misspelt: Vec<String>,
}

impl<'v, 't> Fields<'v, 't> {
    pub(super) fn get(&self, name: &str) -> Option<&Field<'v, 't>> {
        self.entries.iter().find(|(known, _)| *known == name).map(|(_, field)| field)
    }

    /// The field, or a fault that it is missing; not a second one if it was only misspelt.
    pub(super) fn required(&self, findings: &mut Findings<'_>, name: &str, example: &str) -> Option<&Field<'v, 't>> {
        let field = self.get(name);
        if field.is_none() && !self.misspelt.iter().any(|meant| meant == name) {
            let path = self.of.below(name);
            findings.fault(self.of.at(), &path, format!("`{name}` is missing"), format!("add \"{name}\": {example}"));
        }
        field
    }
}
