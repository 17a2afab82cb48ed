//! From the typed arguments of a job to the words that a tool's program gets.
//!
//! Always true of the words: each comes from one word of the provider's command or is one argument, whatever the values hold; a word begins with `-` only if
//! the provider's own text does; a file argument is an absolute path below the workspace. Links inside the workspace are the sandbox's concern.
//!
//! A boolean becomes `true` or `false`. An argument that is left out, and has no default, takes the whole word with it in which it stands.

use std::borrow::Cow;
use std::path::Path;

use orien_protocol::job::{ARGUMENT_LIMIT_BYTES, ARGUMENTS_LIMIT_BYTES, Argument, ArgumentValue};
use orien_protocol::offer::{NAME_LIMIT, ParameterKind};
use orien_sandbox::{PathError, WorkPath};
use thiserror::Error;

use crate::command::{Part, Placement, Word};
use crate::config::ConfiguredTool;

/// Most bytes of one word: the kernel's own limit, with its final NUL.
const WORD_LIMIT_BYTES: usize = 128 * 1024 - 1;
/// Most bytes of all words: a value may be placed more than once, and the kernel takes two megabytes together with the environment.
const WORDS_LIMIT_BYTES: usize = 512 * 1024;
/// Longest decimal number; more digits than any program reads.
const NUMBER_LIMIT_BYTES: usize = 40;

/// An argument with which no run starts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the argument `{argument}` {refusal}")]
pub struct ArgumentFault {
    /// Which argument; shortened if it is no possible name.
    pub argument: String,
    /// What is wrong with it.
    pub refusal: Refusal,
}

/// What is wrong with an argument.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is required and was not given.
    #[error("is required")]
    Missing,
    /// The tool has no such argument.
    #[error("is unknown; this tool takes {0}")]
    Unknown(String),
    /// It was given more than once.
    #[error("is given twice")]
    Twice,
    /// The value has another type.
    #[error("has to be {0}")]
    Type(&'static str),
    /// The value is too long.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// All values together are too long.
    #[error("brings all arguments together above {0} bytes")]
    TooLongTogether(usize),
    /// The text is not one plain line.
    #[error("holds a NUL, a line break or another control character")]
    Control,
    /// The number is not within its bounds.
    #[error("has to be from {min} to {max}")]
    Range {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// Not one of the choices.
    #[error("has to be one of {0}")]
    Choice(String),
    /// It begins with `-` where a program could take it for an option.
    #[error("begins with `-` and could be taken for an option")]
    Option,
    /// Not a path in the workspace.
    #[error("has to name a file in the workspace: {0}")]
    Path(#[from] PathError),
    /// The workspace is at no absolute UTF-8 path; nothing an agent can change.
    #[error("cannot be passed: the workspace has no absolute UTF-8 path")]
    Workspace,
}

/// The words after the program for one run.
pub fn bind(tool: &ConfiguredTool, arguments: &[Argument], workspace_root: &Path) -> Result<Vec<String>, ArgumentFault> {
    check_names(tool, arguments)?;
    let root = workspace_root.to_str().filter(|root| root.starts_with('/'));
    let mut values = Vec::new();
    let mut bytes = 0_usize;
    for parameter in &tool.tool.parameters {
        let refuse = |refusal| fault(&parameter.name, refusal);
        let given = arguments.iter().find(|a| a.name == parameter.name).map(|a| &a.value);
        let Some(value) = given.or_else(|| tool.defaults.get(&parameter.name)) else {
            if parameter.required {
                return Err(refuse(Refusal::Missing));
            }
            continue;
        };
        let text = checked(&parameter.kind, value, tool.template.placement(&parameter.name)).map_err(refuse)?;
        bytes = bytes.saturating_add(text.len());
        if bytes > ARGUMENTS_LIMIT_BYTES {
            return Err(refuse(Refusal::TooLongTogether(ARGUMENTS_LIMIT_BYTES)));
        }
        let text = match &parameter.kind {
            ParameterKind::File => {
                let root = root.ok_or_else(|| refuse(Refusal::Workspace))?;
                format!("{}/{text}", root.trim_end_matches('/'))
            }
            _ => text.into_owned(),
        };
        values.push((parameter.name.as_str(), text));
    }
    assemble(tool, &values)
}

/// Whether a run would accept a value for a parameter that is passed in this way.
pub fn check(kind: &ParameterKind, value: &ArgumentValue, placement: Placement) -> Result<(), Refusal> {
    checked(kind, value, placement).map(|_| ())
}

fn fault(argument: &str, refusal: Refusal) -> ArgumentFault {
    // A name comes from a stranger; what is longer is not repeated.
    ArgumentFault { argument: argument.chars().take(NAME_LIMIT).flat_map(char::escape_debug).collect(), refusal }
}

fn check_names(tool: &ConfiguredTool, arguments: &[Argument]) -> Result<(), ArgumentFault> {
    let parameters = &tool.tool.parameters;
    for (index, argument) in arguments.iter().enumerate() {
        if !parameters.iter().any(|p| p.name == argument.name) {
            let names: Vec<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(fault(&argument.name, Refusal::Unknown(known)));
        }
        if arguments.iter().take(index).any(|other| other.name == argument.name) {
            return Err(fault(&argument.name, Refusal::Twice));
        }
    }
    Ok(())
}

/// The value as text; a file as its path within the workspace.
fn checked<'v>(kind: &ParameterKind, value: &'v ArgumentValue, placement: Placement) -> Result<Cow<'v, str>, Refusal> {
    let text = match (kind, value) {
        (ParameterKind::Text { max_bytes }, ArgumentValue::Text(text)) => {
            let limit = usize::try_from(*max_bytes).unwrap_or(usize::MAX).min(ARGUMENT_LIMIT_BYTES);
            line(text, limit)?
        }
        (ParameterKind::Choice(choices), ArgumentValue::Text(text)) => {
            if !choices.contains(text) {
                return Err(Refusal::Choice(choices.join(", ")));
            }
            Cow::Borrowed(text.as_str())
        }
        (ParameterKind::File, ArgumentValue::Text(text)) => return Ok(Cow::Owned(WorkPath::parse(text)?.to_string())),
        (ParameterKind::Integer { min, max }, ArgumentValue::Integer(number)) => {
            if number < min || number > max {
                return Err(Refusal::Range { min: *min, max: *max });
            }
            Cow::Owned(number.to_string())
        }
        (ParameterKind::Number { min, max }, ArgumentValue::Integer(number)) => decimal(Cow::Owned(number.to_string()), *min, *max)?,
        (ParameterKind::Number { min, max }, ArgumentValue::Number(number)) => decimal(Cow::Borrowed(number), *min, *max)?,
        (ParameterKind::Boolean, ArgumentValue::Boolean(flag)) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        (ParameterKind::Text { .. }, _) => return Err(Refusal::Type("a text")),
        (ParameterKind::Choice(choices), _) => return Err(Refusal::Choice(choices.join(", "))),
        (ParameterKind::File, _) => return Err(Refusal::Type("a path as text")),
        (ParameterKind::Integer { .. }, _) => return Err(Refusal::Type("a whole number")),
        (ParameterKind::Number { .. }, _) => return Err(Refusal::Type("a decimal number")),
        (ParameterKind::Boolean, _) => return Err(Refusal::Type("true or false")),
    };
    if text.starts_with('-') && placement != Placement::AfterEquals {
        return Err(Refusal::Option);
    }
    Ok(text)
}

fn line(text: &str, limit: usize) -> Result<Cow<'_, str>, Refusal> {
    if text.len() > limit {
        return Err(Refusal::TooLong(limit));
    }
    // A tab is ordinary text; everything else can forge log lines or steer a terminal. Unicode's own line breaks count as such, though not as controls.
    if text.chars().any(|c| c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(Refusal::Control);
    }
    Ok(Cow::Borrowed(text))
}

/// A decimal number as JSON has it, without exponent, within whole bounds; compared digit by digit, never rounded.
fn decimal(text: Cow<'_, str>, min: i64, max: i64) -> Result<Cow<'_, str>, Refusal> {
    if text.len() > NUMBER_LIMIT_BYTES {
        return Err(Refusal::TooLong(NUMBER_LIMIT_BYTES));
    }
    let not_decimal = || Refusal::Type("a decimal number such as 0.5, without exponent");
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(not_decimal());
    }
    // The two whole numbers it lies between; they are the same for a whole number. 40 digits may pass 128 bits, and that is out of any bounds.
    let range = Refusal::Range { min, max };
    let Ok(size) = whole.parse::<i128>() else { return Err(range) };
    let beyond = size.saturating_add(i128::from(fraction.bytes().any(|b| b != b'0')));
    let (floor, ceiling) = if text.starts_with('-') { (beyond.saturating_neg(), size.saturating_neg()) } else { (size, beyond) };
    if floor < i128::from(min) || ceiling > i128::from(max) { Err(range) } else { Ok(text) }
}

fn assemble(tool: &ConfiguredTool, values: &[(&str, String)]) -> Result<Vec<String>, ArgumentFault> {
    let mut words = Vec::new();
    let mut bytes = 0_usize;
    let appended = values.iter().filter(|(name, _)| tool.template.placement(name) == Placement::Appended);
    let appended = appended.map(|(name, text)| Ok(Some((*name, text.clone()))));
    let placed = tool.template.words().iter().map(|word| fill(word, values));
    let mut blamed = "";
    for word in placed.chain(appended) {
        let Some((last, word)) = word? else { continue };
        blamed = if last.is_empty() { blamed } else { last };
        bytes = bytes.saturating_add(word.len());
        if bytes > WORDS_LIMIT_BYTES {
            return Err(fault(blamed, Refusal::TooLongTogether(WORDS_LIMIT_BYTES)));
        }
        words.push(word);
    }
    Ok(words)
}

/// A word with its values, and the argument to name should it be too long; nothing if a value is lacking.
fn fill<'w>(word: &'w Word, values: &[(&'w str, String)]) -> Result<Option<(&'w str, String)>, ArgumentFault> {
    let mut filled = String::new();
    let mut blamed = "";
    for part in word.parts() {
        match part {
            Part::Literal(text) => filled.push_str(text),
            Part::Argument(name) => {
                let Some((_, text)) = values.iter().find(|(known, _)| known == name) else { return Ok(None) };
                blamed = name;
                filled.push_str(text);
            }
        }
        if filled.len() > WORD_LIMIT_BYTES {
            return Err(fault(blamed, Refusal::TooLongTogether(WORD_LIMIT_BYTES)));
        }
    }
    // An empty value in front of the provider's own `-` would make an option of the rest.
    match word.parts().first() {
        Some(Part::Argument(name)) if filled.starts_with('-') => Err(fault(name, Refusal::Option)),
        _ => Ok(Some((blamed, filled))),
    }
}

#[cfg(test)]
mod tests;
