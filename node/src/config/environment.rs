//! The variables that a provider sets for a tool.
//!
//! Always true: no accepted name makes a loader, shell or interpreter load something, and none stands for what the sandbox itself sets. The sandbox
//! refuses such names again when a run starts; here the provider learns it before the first agent does.

use std::collections::BTreeMap;

use super::findings::{Findings, quote};
use super::source::Field;

/// More than any tool needs; the sandbox takes no more.
const VARIABLES_LIMIT: usize = 64;
const NAME_LIMIT_BYTES: usize = 128;
const VALUE_LIMIT_BYTES: usize = 32 * 1024;

/// Where the workspace is; set for each run.
const FIXED: [&str; 2] = ["HOME", "TMPDIR"];
/// Families of names that load code or change how it is found.
const DENIED_PREFIXES: [&str; 9] = ["LD_", "GLIBC_", "DYLD_", "PYTHON", "PERL5", "RUBY", "BASH_FUNC_", "GIT_", "MALLOC_"];
const DENIED: [&str; 23] = [
    "NODE_OPTIONS",
    "NODE_PATH",
    "BASH_ENV",
    "ENV",
    "IFS",
    "CDPATH",
    "GLOBIGNORE",
    "SHELLOPTS",
    "BASHOPTS",
    "PS4",
    "PROMPT_COMMAND",
    "ZDOTDIR",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "RESOLV_HOST_CONF",
    "TERMINFO",
];

/// Reads `{"NAME": "value"}`.
pub(super) fn read(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let entries = field.entries(findings).unwrap_or_default();
    if entries.len() > VARIABLES_LIMIT {
        field.fault(findings, format!("{} environment variables", entries.len()), format!("use at most {VARIABLES_LIMIT}"));
        return variables;
    }
    for (name, value) in entries {
        if let Some((problem, fix)) = refusal(name) {
            value.fault(findings, problem, fix);
        } else if let Some(text) = value.text(findings, VALUE_LIMIT_BYTES) {
            if name == "PATH" && !text.split(':').all(|part| part.starts_with('/')) {
                value.fault(findings, "a part of PATH is not absolute", "start every part with /");
            }
            variables.insert(name.to_owned(), text.to_owned());
        }
    }
    variables
}

fn refusal(name: &str) -> Option<(String, &'static str)> {
    let shape = !name.is_empty()
        && name.len() <= NAME_LIMIT_BYTES
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !shape {
        return Some((
            format!("{} cannot name an environment variable", quote(name)),
            "use letters, digits and _, not beginning with a digit",
        ));
    }
    if FIXED.contains(&name) {
        return Some((format!("{name} is set for each run"), "remove it; tools find their workspace in it"));
    }
    if DENIED.contains(&name) || DENIED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Some((
            format!("{name} changes what a program loads"),
            "remove it; put what it should load into the command, or into a program of your own",
        ));
    }
    None
}
