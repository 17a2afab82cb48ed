//! The variables that a provider sets for a tool.
//!
//! The sandbox refuses a variable that makes a program load something, or that it sets itself, when a run starts; here its own rule is asked at load, so that the provider learns it before
//! the first agent does.

use std::collections::BTreeMap;

use orien_sandbox::{EnvError, VARIABLES_MAX, check_variable};

use super::findings::Findings;
use super::source::Field;

/// Longest value that is read; the sandbox's own limit is the same.
const VALUE_LIMIT_BYTES: usize = 32 * 1024;

/// Reads `{"NAME": "value"}`.
pub(super) fn read(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let entries = field.entries(findings).unwrap_or_default();
    if entries.len() > VARIABLES_MAX {
        field.fault(findings, format!("{} environment variables", entries.len()), format!("use at most {VARIABLES_MAX}"));
        return variables;
    }
    for (name, value) in entries {
        let Some(text) = value.text(findings, VALUE_LIMIT_BYTES) else { continue };
        match check_variable(name, text) {
            Ok(()) => {
                variables.insert(name.to_owned(), text.to_owned());
            }
            Err(error) => value.fault(findings, error.to_string(), fix(&error)),
        }
    }
    variables
}

const fn fix(error: &EnvError) -> &'static str {
    match error {
        EnvError::Name(_) => "use letters, digits and _, not beginning with a digit",
        EnvError::Fixed(_) => "remove it; tools find their workspace in it",
        EnvError::Denied(_) => "remove it; put what it should load into the command, or into a program of your own",
        EnvError::Value(..) => "shorten it, remove NULs, and start every part of PATH with /",
        EnvError::Twice(_) | EnvError::TooMany => "remove some",
    }
}
