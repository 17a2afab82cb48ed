//! `orien doctor`: what confinement this host can give, tried for real, and what would give more.

use std::process::ExitCode;

use anyhow::Context;
use orien_sandbox::{Level, Sandbox, SandboxConfig, Survey};

use crate::cli::{DoctorArgs, LevelName};
use crate::output;

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::S0 => Self::S0,
            LevelName::S1 => Self::S1,
            LevelName::S2 => Self::S2,
            LevelName::S3 => Self::S3,
        }
    }
}

/// Tries every level from the strongest on. Fails when the strongest that holds is below the one asked for.
pub(crate) async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut config = SandboxConfig::new(directory.path().join("workspaces"));
    config.min_level = Level::S0;
    config.first_user = args.first_user.unwrap_or(config.first_user);
    let sandbox = Sandbox::open(config).await.context("cannot try to confine anything")?;
    let (survey, needed) = (sandbox.survey(), Level::from(args.min_level));
    if args.json {
        output::json(survey)?;
    } else {
        print(survey, needed);
    }
    Ok(if survey.level >= needed { ExitCode::SUCCESS } else { ExitCode::from(78) })
}

fn print(survey: &Survey, needed: Level) {
    for trial in &survey.tried {
        match &trial.failure {
            Some(failure) => output::line(format!("{}  not possible: {failure}", trial.level)),
            None => output::line(format!("{}  holds ({:.1} ms for a session with these checks)", trial.level, micros(trial.micros))),
        }
        if let Some(remedy) = trial.remedy {
            output::line(format!("    to change that: {remedy}"));
        }
        for check in &trial.checks {
            output::line(format!("    {check}"));
        }
    }
    let landlock = survey.landlock.map_or_else(|| "none".to_owned(), |version| format!("version {version}"));
    output::line(format!("access rules (Landlock): {landlock}"));
    let users = if survey.own_users { "each session has a user of its own" } else { "sessions share this user, apart in namespaces" };
    output::line(format!("users: {users}"));
    let verdict = if survey.level >= needed { "this host can serve" } else { "this host cannot serve" };
    output::line(format!("level {}: {verdict} (at least {needed} is asked for)", survey.level));
}

fn micros(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0
}
