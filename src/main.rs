//! The program `orien`: one binary for every role of the network.
//!
//! Always true: a call that confines a tool is recognised before anything else runs, so that such a process holds no configuration, no keys and no runtime. A panic is a bug: it is explained and
//! the process aborts, because state on disk is safe and state in memory is not.

mod cli;
mod client;
mod commands;
mod demo;
mod dev;
mod examples;
mod failure;
mod interrupt;
mod output;
mod roles;
mod show;
mod shutdown;
mod wallet;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if let Some(code) = orien_sandbox::run_if_helper() {
        return code;
    }
    install_panic_hook();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misspelt(&error),
    };
    start_logging(&cli);
    raise_descriptors();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Help and version, or what is wrong with the command line. Where the exit code is a tool's, this failure is told apart from it.
fn misspelt(error: &clap::Error) -> ExitCode {
    // What cannot be printed cannot be told.
    let _ = error.print();
    let runs_tools = std::env::args_os().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    match (error.use_stderr(), runs_tools.as_deref().and_then(std::ffi::OsStr::to_str)) {
        (false, _) => ExitCode::SUCCESS,
        (true, Some("run" | "session" | "providers" | "token" | "wallet")) => failure::Failure::Other.code().into(),
        (true, _) => 2.into(),
    }
}

fn install_panic_hook() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        tracing::error!("this is a bug in orien; what was committed is safe, the process stops");
        std::process::abort();
    }));
}

/// Descriptors that a process asks for: every bound of every role together stays far below.
const DESCRIPTORS: u64 = 65_536;

/// A role holds a descriptor for each connection and file. The usual soft limit is for programs that use `select`; ours do not.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
    {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
}

fn start_logging(cli: &cli::Cli) {
    use tracing_subscriber::EnvFilter;
    let quiet = if cli.verbose { "info" } else { cli.command.usual_log_level() };
    // Kademlia warns of every start at which nobody is known yet; rmcp calls it an error when a host does not wait for an answer.
    let filter = EnvFilter::try_from_env("ORIEN_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{quiet},libp2p_kad=error,rmcp=error,rmcp::service=off")));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        cli::LogFormat::Text => logs.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        cli::LogFormat::Json => logs.json().init(),
    }
}
