//! The helper alone, for the tests of this crate: a test binary's `main` is not ours to enter first.
//!
//! As `hold ROOT PROGRAM ARGUMENTS...` it is a whole node of one session that runs one program until somebody kills it. As
//! `open ROOT LEVEL PROGRAM ARGUMENTS...` it says on which level its sandbox opens and how the program ended; where `LEVEL` is
//! `unchecked`, without the checks. With `ORIEN_TEST_WAIT` it waits for a line before it makes its session.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use orien_sandbox::{Level, RunLimits, RunSpec, Sandbox, SandboxConfig, SessionSpec, Storage};

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    if let Some(code) = orien_sandbox::run_if_helper() {
        return code;
    }
    let mut words = std::env::args().skip(1);
    let (Some(what), Some(root)) = (words.next(), words.next()) else { return ExitCode::FAILURE };
    let (root, words) = (PathBuf::from(root), words.collect());
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let done = match what.as_str() {
        "hold" => runtime.block_on(hold(root, words)),
        "open" => runtime.block_on(open(root, words)),
        _ => return ExitCode::FAILURE,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stdout(), "error {error}");
            ExitCode::FAILURE
        }
    }
}

async fn hold(root: PathBuf, words: Vec<String>) -> Done {
    let mut config = SandboxConfig::new(root);
    if std::env::var_os("ORIEN_TEST_LEVEL").is_some_and(|level| level == "S0") {
        (config.min_level, config.max_level) = (Level::S0, Level::S0);
    }
    let sandbox = Sandbox::open(config).await?;
    let session = sandbox.session("session", SessionSpec { storage: Storage::Disk, ..SessionSpec::default() }).await?;
    let mut execution = session.start(spec(words)?).await?;
    execution.wait().await;
    Ok(())
}

async fn open(root: PathBuf, mut words: Vec<String>) -> Done {
    let mut config = SandboxConfig::new(root);
    config.max_level = Level::S2;
    match words.first().map(String::as_str) {
        Some("S1") => config.min_level = Level::S1,
        Some("S2") => {}
        Some("unchecked") => config.unchecked = true,
        _ => return Err("no level".into()),
    }
    words.remove(0);
    let sandbox = Sandbox::open(config).await?;
    writeln!(std::io::stdout(), "level {}", sandbox.level())?;
    if std::env::var_os("ORIEN_TEST_WAIT").is_some() {
        std::io::stdin().read_line(&mut String::new())?;
    }
    let session = sandbox.session("session", SessionSpec::default()).await?;
    let report = session.start(spec(words)?).await?.wait().await;
    session.close().await?;
    writeln!(std::io::stdout(), "ended {:?}", report.cause)?;
    Ok(())
}

fn spec(mut words: Vec<String>) -> Result<RunSpec, &'static str> {
    if words.is_empty() {
        return Err("no program");
    }
    let program = PathBuf::from(words.remove(0));
    Ok(RunSpec { program, args: words, env: Vec::new(), limits: RunLimits::default(), profile: 0, input: false })
}
