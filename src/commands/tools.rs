//! `orien tools check`: what a provider configuration would offer, or every fault in it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use orien_node::config::{self, ConfigReport, HostPrograms};

use crate::output;

pub(crate) fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let report = ConfigReport::of(&config::load(&text, &HostPrograms));
    if json {
        output::json(&report)?;
    } else {
        output::line(report.to_string().trim_end());
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(78) })
}
