//! The environment a tool gets, built from nothing.
//!
//! Always true: no variable of the node reaches a tool, and no name that makes a loader, shell or interpreter run or load
//! something is accepted, not even from the provider's own configuration.

use std::collections::BTreeMap;

use thiserror::Error;

/// Where a tool looks for programs, and where a provider's programs are looked for.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// More than any tool's configuration needs; keeps the whole job within one frame.
pub const VARIABLES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 32 * 1024;

/// Set for each run; they say where the workspace is.
const FIXED: [&str; 2] = ["HOME", "TMPDIR"];

/// Whole families of names that load code or change how it is found.
const DENIED_PREFIXES: [&str; 11] =
    ["LD_", "GLIBC_", "DYLD_", "PYTHON", "PERL5", "RUBY", "BASH_FUNC_", "GIT_", "MALLOC_", "LUA_", "R_PROFILE"];

const DENIED: [&str; 27] = [
    "PERLLIB",
    "MAKEFILES",
    "PHPRC",
    "OPENSSL_CONF",
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

/// A variable that is not given to tools.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvError {
    /// Not letters, digits and underscores.
    #[error("{0:?} is not a name for an environment variable")]
    Name(String),
    /// On the deny list.
    #[error("the environment variable {0} changes what a program loads and is never passed to a tool")]
    Denied(String),
    /// Set by the sandbox.
    #[error("the environment variable {0} is set by the sandbox")]
    Fixed(String),
    /// Given twice.
    #[error("the environment variable {0} is given twice")]
    Twice(String),
    /// Too long, holds NUL, or a `PATH` with a relative part.
    #[error("the value of the environment variable {0} is not allowed: {1}")]
    Value(String, &'static str),
    /// Too many.
    #[error("more than {VARIABLES_MAX} environment variables")]
    TooMany,
}

/// The complete environment of a run, in order of name.
pub(crate) fn build(given: &[(String, String)], home: &str, temporary: &str, port: Option<u16>) -> Result<Vec<(String, String)>, EnvError> {
    if given.len() > VARIABLES_MAX {
        return Err(EnvError::TooMany);
    }
    let mut variables = BTreeMap::new();
    for (name, value) in given {
        check_variable(name, value)?;
        if variables.insert(name.clone(), value.clone()).is_some() {
            return Err(EnvError::Twice(name.clone()));
        }
    }
    for (name, value) in [("PATH", PATH), ("LANG", "C.UTF-8"), ("HOME", home), ("TMPDIR", temporary)] {
        variables.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    if let Some(port) = port {
        // The one way out. Programs look for it under either spelling.
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            variables.insert(name.to_owned(), format!("http://127.0.0.1:{port}"));
        }
    }
    Ok(variables.into_iter().collect())
}

/// Whether a variable may be given to a tool. The program checks its configuration with the same rule that holds when a run starts.
pub fn check_variable(name: &str, value: &str) -> Result<(), EnvError> {
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || !letters || name.len() > NAME_BYTES_MAX || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(EnvError::Name(name.chars().take(NAME_BYTES_MAX).collect()));
    }
    if DENIED.contains(&name) || DENIED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(EnvError::Denied(name.to_owned()));
    }
    if FIXED.contains(&name) {
        return Err(EnvError::Fixed(name.to_owned()));
    }
    let refuse = |why| Err(EnvError::Value(name.to_owned(), why));
    if value.len() > VALUE_BYTES_MAX {
        return refuse("longer than 32 KiB");
    }
    if value.contains('\0') {
        return refuse("it holds a NUL");
    }
    if name == "PATH" && !value.split(':').all(|part| part.starts_with('/')) {
        return refuse("every part of PATH has to be absolute");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<Vec<(String, String)>, EnvError> {
        build(&[(name.into(), value.into())], "/w", "/t", None)
    }

    #[test]
    fn the_environment_is_exactly_the_four_fixed_names_and_what_was_given() {
        let built = one("TOOL_MODE", "fast").unwrap();
        let names: Vec<_> = built.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["HOME", "LANG", "PATH", "TMPDIR", "TOOL_MODE"]);
    }

    #[test]
    fn names_that_load_code_are_refused() {
        for name in ["LD_PRELOAD", "PYTHONPATH", "NODE_OPTIONS", "BASH_ENV", "ENV", "IFS", "GIT_SSH_COMMAND", "GLIBC_TUNABLES"] {
            assert_eq!(one(name, "x"), Err(EnvError::Denied(name.into())));
        }
    }

    #[test]
    fn bad_names_values_and_doubles_are_refused() {
        for name in ["", "A=B", "1A", "A B", "A\0"] {
            assert!(matches!(one(name, "x"), Err(EnvError::Name(_))), "{name:?}");
        }
        assert!(matches!(one("HOME", "/"), Err(EnvError::Fixed(_))));
        assert!(matches!(one("A", "x\0y"), Err(EnvError::Value(..))));
        assert!(matches!(one("PATH", "/bin::/usr/bin"), Err(EnvError::Value(..))));
        let twice = [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
        assert_eq!(build(&twice, "/w", "/t", None), Err(EnvError::Twice("A".into())));
        assert_eq!(build(&vec![("A".to_owned(), String::new()); 65], "/w", "/t", None), Err(EnvError::TooMany));
    }
}
