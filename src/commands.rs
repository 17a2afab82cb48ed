//! Carries out one command line.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod earnings;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod mcp;
pub(crate) mod open;
pub(crate) mod providers;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod settlement;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod tools;
pub(crate) mod wallet;
pub(crate) mod words;

use std::future::Future;
use std::process::ExitCode;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::cli::{BenchCommand, Cli, Command, SettlementCommand, ToolsCommand};
use crate::{demo, dev, failure, roles, shutdown};

/// Runs the command and says how the process ends.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Node(args) => role(|cancel| roles::node(args, cancel)),
        Command::Gateway(args) => role(|cancel| roles::gateway(args, cancel)),
        Command::Settlement(mut args) => match args.command.take() {
            Some(SettlementCommand::Deploy(args)) => Ok(told(done(deploy::run(&args)), args.json)),
            Some(command) => {
                let as_json = command.json();
                plainly(done(settlement::run(command)), as_json)
            }
            None => role(|cancel| roles::settlement(*args, cancel)),
        },
        Command::Bootstrap(args) => role(|cancel| roles::bootstrap(args, cancel)),
        Command::Earnings(args) => {
            let as_json = args.json();
            plainly(done(earnings::run(args)), as_json)
        }
        Command::Providers(args) => Ok(told(done(providers::run(&args)), args.ask.json)),
        Command::Run(args) => Ok(told(run::run(&args), args.ask.json)),
        Command::Session { command } => {
            let as_json = command.ask().json;
            Ok(told(session::run(*command), as_json))
        }
        Command::Completions(args) => done(words::completions(&args)),
        Command::Man(args) => done(words::man(&args)),
        Command::Dev(args) => done(runtime()?.block_on(dev::run(args))),
        Command::Demo(args) => done(runtime()?.block_on(demo::run(&args))),
        Command::Mcp(args) => role(|cancel| mcp::run(args, cancel)),
        Command::Init(args) => done(init::run(&args)),
        Command::Wallet { command } => {
            let as_json = command.json();
            Ok(told(done(wallet::run(*command)), as_json))
        }
        Command::Token { command } => {
            let as_json = command.ask().json;
            Ok(told(done(token::run(command)), as_json))
        }
        Command::Open(args) => done(open::run(&args)),
        Command::Status(args) => status::run(&args),
        Command::Audit(args) => plainly(audit::run(&args), args.json),
        Command::Keys(args) => plainly(done(keys::run(&args)), args.json),
        Command::Tools { command: ToolsCommand::Check { file, json } } => tools::check(&file, json),
        Command::Doctor(args) => runtime()?.block_on(doctor::run(&args)),
        Command::Bench { command: BenchCommand::Sandbox { runs, program, parent_mib, json } } => {
            done(runtime()?.block_on(bench::sandbox(bench::Plan { runs, program, parent_mib }, json)))
        }
        Command::Bench { command: BenchCommand::Files { mib, rounds, small_files, json } } => {
            done(runtime()?.block_on(bench::files(bench::FilesPlan { mib, rounds, small_files }, json)))
        }
        Command::Bench { command: BenchCommand::Runs { runs, concurrency, openings, floor_runs, program, json } } => {
            let plan = bench::RunsPlan { runs, concurrency, openings, floor_runs, program };
            let all_succeeded = runtime()?.block_on(bench::runs(plan, json))?;
            Ok(if all_succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// How a command of an agent ends: scripts can tell its failures apart.
fn told(result: anyhow::Result<ExitCode>, as_json: bool) -> ExitCode {
    result.unwrap_or_else(|error| failure::show(&error, as_json).into())
}

/// How a command of an operator ends that was asked for JSON: its failure is one object too.
fn plainly(result: anyhow::Result<ExitCode>, as_json: bool) -> anyhow::Result<ExitCode> {
    result.or_else(|error| if as_json { failure::show_plain(&error) } else { Err(error) })
}

fn done(result: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}

/// Runs a role until a signal, or until it fails.
fn role<F>(start: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let role = start(cancel.clone());
        let mut signals = tokio::task::JoinSet::new();
        signals.spawn(shutdown::watch(cancel));
        role.await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    done(result)
}
