//! The helper alone, for the tests of this crate: a test binary's `main` is not ours to enter first.

use std::process::ExitCode;

fn main() -> ExitCode {
    orien_sandbox::run_if_helper().unwrap_or(ExitCode::FAILURE)
}
