//! What a person or a script sees: results on standard output, everything else on standard error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the one place that talks to the terminal")]

use std::io::Write;

use serde::Serialize;

/// A line of result.
pub(crate) fn line(text: impl std::fmt::Display) {
    println!("{text}");
    // A closed pipe ends the program at the next write anyway.
    let _ = std::io::stdout().flush();
}

/// A line of progress or advice.
pub(crate) fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// An error with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("orien: {error:#}");
}

/// A value as JSON, indented.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}
