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
    note(format_args!("orien: {error:#}"));
}

/// A value as JSON, indented.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}
