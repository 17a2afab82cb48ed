//! What a person or a script sees: results on standard output, everything else on standard error.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// How a process ends that a closed pipe ends.
const BROKEN_PIPE: i32 = 141;

/// A line of result. When nobody reads it any more, the program ends quietly, as others do.
pub(crate) fn line(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        std::process::exit(BROKEN_PIPE);
    }
}

/// A line of progress or advice.
pub(crate) fn note(text: impl std::fmt::Display) {
    // Standard error may be closed too.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// An error with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    note(format_args!("orien: {}", causes(error)));
}

/// An error and what caused it, each once: many errors say in their own words what caused them.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |said, cause| {
        let cause = cause.to_string();
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

/// A value as JSON, indented.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once_even_if_the_error_says_it_itself() {
        #[derive(Debug)]
        struct Own(std::io::Error);
        impl std::fmt::Display for Own {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "cannot read x: {}", self.0)
            }
        }
        impl std::error::Error for Own {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let cause = || std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let repeated: Result<(), _> = Err(Own(cause()));
        assert_eq!(super::causes(&repeated.context("the audit failed").unwrap_err()), "the audit failed: cannot read x: no such file");
        let plain: Result<(), _> = Err(cause());
        assert_eq!(super::causes(&plain.context("cannot read y").unwrap_err()), "cannot read y: no such file");
    }
}
