//! The helper alone, for the tests of this crate: a test binary's `main` is not ours to enter first.
//!
//! As `hold ROOT PROGRAM ARGUMENTS...` it is a whole node of one session that runs one program until somebody kills it.

use std::path::PathBuf;
use std::process::ExitCode;

use orien_sandbox::{Level, RunLimits, RunSpec, Sandbox, SandboxConfig, SessionSpec, Storage};

fn main() -> ExitCode {
    if let Some(code) = orien_sandbox::run_if_helper() {
        return code;
    }
    let mut words = std::env::args().skip(1);
    let (Some("hold"), Some(root), Some(program)) = (words.next().as_deref(), words.next(), words.next()) else { return ExitCode::FAILURE };
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    match runtime.block_on(hold(PathBuf::from(root), PathBuf::from(program), words.collect())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn hold(root: PathBuf, program: PathBuf, args: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = SandboxConfig::new(root);
    if std::env::var_os("ORIEN_TEST_LEVEL").is_some_and(|level| level == "S0") {
        (config.min_level, config.max_level) = (Level::S0, Level::S0);
    }
    let sandbox = Sandbox::open(config).await?;
    let session = sandbox.session("session", SessionSpec { storage: Storage::Disk, ..SessionSpec::default() }).await?;
    let spec = RunSpec { program, args, env: Vec::new(), limits: RunLimits::default(), profile: 0 };
    let mut execution = session.start(spec).await?;
    execution.wait().await;
    Ok(())
}
