//! `orien completions` and `orien man`: what shells and manuals know of the command line, made out of the command line itself.

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::output;

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "orien", &mut text);
    output::line(String::from_utf8(text)?.trim_end());
    Ok(())
}

/// Writes one page per command.
pub(crate) fn man(args: &ManArgs) -> Result<()> {
    let folder = args.folder.display();
    std::fs::create_dir_all(&args.folder).with_context(|| format!("cannot make {folder}"))?;
    clap_mangen::generate_to(Cli::command(), &args.folder).with_context(|| format!("cannot write into {folder}"))?;
    output::note(format!("the pages are in {folder}; try: man -l {}", args.folder.join("orien.1").display()));
    Ok(())
}
