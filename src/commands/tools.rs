//! `orien tools check`: what a provider configuration would offer, or every fault in it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use orien_bootstrap::RoleName;
use orien_node::config::{self, ConfigReport, HostPaths, HostPrograms};

use crate::{output, roles};

pub(crate) fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // Where this machine's node would keep its keys; one that is started with another directory looks again.
    let paths = roles::data_dir(RoleName::Node, None).map_or_else(|_| HostPaths::default(), |data| HostPaths::beside(&data));
    let report = ConfigReport::of(&config::load(&text, &HostPrograms, &paths));
    if json {
        output::json(&report)?;
    } else {
        output::line(report.to_string().trim_end());
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(78) })
}
