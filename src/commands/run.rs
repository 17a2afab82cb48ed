//! `orien run`: the whole job in one command: find, open, upload, run, stream, download, end.
//!
//! Always true: nothing is opened for what can be seen to fail; a session that was opened is ended however the job goes, unless `--keep` was said; what it cost is said.

mod beforehand;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::session::arguments::Given;
use super::session::copy::{Manner, download, upload};
use super::session::end;
use super::session::running::{carry_out, exit_code, said};
use crate::cli::RunArgs;
use crate::client::Client;
use crate::failure::{self, Failure, described};
use crate::interrupt::Interrupt;
use crate::output;
use crate::show::progress::Progress;
use crate::show::{harmless, money, text, usdc};

/// Carries out the command.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let client = Client::find(&args.ask)?;
    let beforehand::Prepared { order, given, cut_to } = beforehand::prepare(&client, args)?;
    let interrupt = Interrupt::watch(&client)?;
    let quiet = args.ask.quiet || args.ask.json;
    let opening = Progress::spinner(quiet);
    opening.doing(format!("opening a session for {}", harmless(&args.call.tool)));
    let session = client.post("/api/sessions", &order, None)?;
    opening.clear();
    let id = session["id"].as_str().context("the gateway did not say which session it opened")?.to_owned();
    let mut job = Job { client: &client, session: &id, args, interrupt: &interrupt, quiet, told: json!({}) };
    job.note(format!("{id} with {}, at most {}", text(&session["providerLabel"]), money(&session["budgetAllowance"])));
    if let Some(longest) = cut_to {
        job.note(format!("--timeout is longer than {} may run; it is stopped after {longest} s", harmless(&args.call.tool)));
    }
    let done = job.work(given);
    let code = match &done {
        _ if interrupt.is_hit() => Failure::Interrupted.code(),
        Ok(code) => *code,
        Err(error) => failure::Failure::of(error).code(),
    };
    match &done {
        // What breaks off then broke off because of it.
        _ if interrupt.is_hit() => job.told["error"] = json!({ "code": "interrupted", "exitCode": code }),
        Ok(_) => {}
        Err(error) => {
            output::error(error);
            job.told["error"] = described(error);
        }
    }
    job.conclude();
    if args.ask.json {
        job.told["exitCode"] = json!(code);
        output::json(&job.told)?;
    }
    Ok(code.into())
}

/// A job in its session.
struct Job<'a> {
    client: &'a Client,
    session: &'a str,
    args: &'a RunArgs,
    interrupt: &'a Interrupt,
    quiet: bool,
    /// What `--json` prints at the end.
    told: Value,
}

impl Job<'_> {
    fn note(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            output::note(line);
        }
    }

    /// Everything between opening and ending; the exit code of the tool.
    fn work(&mut self, given: Given) -> Result<u8> {
        let manner = Manner { fresh: false, quiet: self.quiet, interrupt: self.interrupt.clone() };
        let mut uploaded = Vec::new();
        for word in &self.args.inputs {
            self.interrupt.check()?;
            let (local, path) = input(word);
            let begun = Instant::now();
            let summary = upload(self.client, self.session, &[local.to_owned()], path, &manner)?;
            summary.notes().for_each(|note| self.note(note));
            self.note(format!("{}: {}", harmless(local), summary.said(begun)));
            uploaded.push(summary.json());
        }
        self.told["uploaded"] = json!(uploaded);
        self.interrupt.check()?;
        let run = carry_out(self.client, self.session, &self.args.call, given, &self.args.ask, self.interrupt)?;
        self.note(said(&run));
        let code = exit_code(&run, self.interrupt);
        self.told["run"] = run;
        self.interrupt.check()?;
        self.outputs(code == 0, &manner)?;
        Ok(code)
    }

    /// Downloads what was asked for. After a tool that failed, what is not there is no further failure.
    fn outputs(&mut self, must_be_there: bool, manner: &Manner) -> Result<()> {
        let mut downloaded = Vec::new();
        for word in &self.args.outputs {
            let (path, local) = output(word);
            let begun = Instant::now();
            match download(self.client, self.session, path, Path::new(local), manner) {
                Ok(summary) => {
                    self.note(format!("{}: {}", harmless(path), summary.said(begun)));
                    downloaded.push(summary.json());
                }
                Err(error) if !must_be_there => output::error(&error),
                Err(error) => return Err(error.context("an output was not downloaded")),
            }
        }
        self.told["downloaded"] = json!(downloaded);
        Ok(())
    }

    /// Ends the session, or says how to.
    fn conclude(&mut self) {
        let again = format!("orien session end {}", self.session);
        if self.args.keep {
            self.told["sessionId"] = json!(self.session);
            return self.note(format!("{} stays open; end it with: {again}", self.session));
        }
        let ending = Progress::spinner(self.quiet);
        ending.doing("ending the session");
        match end(self.client, self.session) {
            Ok(session) => {
                ending.clear();
                self.note(format!(
                    "{} is {}: it cost {} of {}",
                    self.session,
                    text(&session["status"]),
                    usdc(&session["budgetConsumed"]),
                    money(&session["budgetAllowance"])
                ));
                self.told["session"] = session;
            }
            Err(error) => {
                ending.clear();
                output::error(&error.context(format!("the session could not be ended; again with: {again}")));
                self.told["sessionId"] = json!(self.session);
            }
        }
    }
}

/// A word of `--in`: what is here, and where it goes. A name with a colon that is here is taken as it is.
fn input(word: &str) -> (&str, &str) {
    if std::fs::symlink_metadata(word).is_ok() {
        return (word, "");
    }
    let (local, path) = word.rsplit_once(':').unwrap_or((word, ""));
    (local, path.trim_start_matches('/'))
}

/// A word of `--out`: what is in the workspace, and where it goes here.
fn output(word: &str) -> (&str, &str) {
    let (path, local) = word.split_once(':').unwrap_or((word, ""));
    (path.trim_start_matches('/'), if local.is_empty() { "." } else { local })
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_input_goes_to_the_top_unless_a_path_is_said() {
        for (word, expected) in [("a/b", ("a/b", "")), ("a:b/c", ("a", "b/c")), ("a:", ("a", "")), ("a:/b/", ("a", "b/"))] {
            assert_eq!(super::input(word), expected);
        }
    }
}
