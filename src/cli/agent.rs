//! Words of the commands of an agent: what they ask of a gateway over HTTP.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// What every command that talks to a gateway can be told.
#[derive(Args, Debug, Clone)]
pub(crate) struct Ask {
    /// The gateway's address, such as http://127.0.0.1:8402 or https://gateway.example:8402 [default: the one that runs here]
    #[arg(long, env = "ORIEN_GATEWAY", value_name = "URL", help_heading = "Gateway")]
    pub(crate) gateway: Option<String>,
    /// Certificates that a gateway at https:// is trusted by, as PEM [default: those that this machine trusts]
    #[arg(long, env = "ORIEN_CA_FILE", value_name = "FILE", help_heading = "Gateway")]
    pub(crate) ca_file: Option<PathBuf>,
    /// A file with a token of the gateway [default: the token in ORIEN_TOKEN, else that of the gateway that runs here]
    #[arg(long, env = "ORIEN_TOKEN_FILE", value_name = "FILE", help_heading = "Gateway")]
    pub(crate) token_file: Option<PathBuf>,
    /// The data directory of the gateway, or the one given to `orien dev` [default: $ORIEN_HOME or ~/.local/share/orien, and every `orien dev` that runs]
    #[arg(long, env = "ORIEN_DATA_DIR", value_name = "DIR", help_heading = "Gateway")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print results only: no progress, no notes
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SortName {
    Price,
    Start,
    Uptime,
    Reputation,
}

/// What a provider has to be like.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Has this capability
    #[arg(long, help_heading = "Provider")]
    pub(crate) capability: Option<String>,
    /// Costs at most this much, in USDC per minute
    #[arg(long, value_name = "USDC", allow_negative_numbers = true, help_heading = "Provider")]
    pub(crate) max_price: Option<String>,
    /// Was up at least this share of the time, in percent
    #[arg(long, value_name = "PERCENT", help_heading = "Provider")]
    pub(crate) min_uptime: Option<String>,
    /// Is in this region
    #[arg(long, help_heading = "Provider")]
    pub(crate) region: Option<String>,
    /// Confines its tools at least this well
    #[arg(long, value_enum, ignore_case = true, help_heading = "Provider")]
    pub(crate) confinement: Option<super::LevelName>,
}

#[derive(Args, Debug)]
pub(crate) struct ProvidersArgs {
    /// One provider, with its tools and their arguments: its id or label
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Has this tool
    #[arg(long, help_heading = "Provider")]
    pub(crate) tool: Option<String>,
    #[command(flatten)]
    pub(crate) wish: Wish,
    /// The best first, by this
    #[arg(long, value_enum)]
    pub(crate) sort: Option<SortName>,
    /// Show also those that do not fit, and what each lacks
    #[arg(long)]
    pub(crate) rejected: bool,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// What a session is opened with.
#[derive(Args, Debug, Clone)]
pub(crate) struct Opening {
    /// Most that it may cost, in USDC
    #[arg(long, env = "ORIEN_BUDGET", value_name = "USDC", allow_negative_numbers = true)]
    pub(crate) budget: String,
    /// What it is for, in a sentence
    #[arg(long)]
    pub(crate) mission: Option<String>,
    /// A label to find it by; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// Time for work, such as 30m [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) expiry: Option<u64>,
    #[command(flatten)]
    pub(crate) wish: Wish,
}

/// A tool and what it is given.
#[derive(Args, Debug, Clone)]
pub(crate) struct Call {
    /// The tool
    pub(crate) tool: String,
    /// Its arguments, such as input_file=notes.txt; NAME:=JSON gives a value as JSON
    #[arg(value_name = "NAME=VALUE")]
    pub(crate) args: Vec<String>,
    /// All arguments as one JSON object; @FILE reads it, @- reads standard input
    #[arg(long, value_name = "JSON", conflicts_with = "args")]
    pub(crate) args_json: Option<String>,
    /// Most that this run may cost, in USDC
    #[arg(long, value_name = "USDC", allow_negative_numbers = true)]
    pub(crate) max_cost: Option<String>,
    /// Stop it after this long, such as 90s or 5m, or after the tool's own longest time if that is less
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) timeout: Option<u64>,
    /// What the tool finds on its standard input: a file, or `-` for this command's own [default: nothing]
    #[arg(long, value_name = "FILE")]
    pub(crate) stdin: Option<String>,
    /// Write the tool's output to a terminal as it is, with whatever control characters it holds
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `orien run`.
#[derive(Args, Debug)]
#[command(after_long_help = RUN_HELP)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) call: Call,
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// The provider's id or label [default: the best one that has the tool]
    #[arg(long, value_name = "ID", help_heading = "Provider")]
    pub(crate) provider: Option<String>,
    /// A file or folder to upload first; may be repeated. `dir` goes to `dir`, what is in `dir/` to the top of the workspace, LOCAL:PATH elsewhere
    #[arg(long = "in", value_name = "LOCAL[:PATH]")]
    pub(crate) inputs: Vec<String>,
    /// A file or folder to download at the end; may be repeated. It goes into the current folder, or to LOCAL
    #[arg(long = "out", value_name = "PATH[:LOCAL]")]
    pub(crate) outputs: Vec<String>,
    /// Leave the session open, and say its id
    #[arg(long)]
    pub(crate) keep: bool,
    /// If this command is killed, end the session when nothing was done for this long, such as 10m [default: 10m, with --keep none]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) idle_timeout: Option<u64>,
    /// When the provider vanishes, keep what is left of the budget in a session with another one; the run is not repeated [default: no]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) failover: Option<bool>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// Which exit code means what, for people; the last one depends on the command.
macro_rules! exit_codes {
    ($interrupted:literal) => {
        concat!(
            "\
Exit codes: the tool's own when it ended by itself, 128 and the signal's number when a signal ended it, and otherwise
  120  money: the budget, the account or the token does not cover it
  121  no provider fits, or there is no such provider, session, run, tool or file in the workspace
  122  the run was stopped or refused by the provider or a limit of the tool, or the provider stayed out of reach
  123  a file or folder here cannot be read or written, or files could not be copied
  124  the run took longer than it may
  125  the arguments do not fit the tool, or the gateway cannot be found or reached, or refused the request for another reason
  130  interrupted: ",
            $interrupted,
            " at the first Ctrl-C; the second one leaves at once"
        )
    };
}

/// What `orien run` looks at first, and its exit codes.
const RUN_HELP: &str = concat!(
    "\
Everything that can be seen beforehand is looked at before a session is opened: local files and folders, paths, the
arguments as the provider's offer has them, and whether the budget covers a start. Such a mistake costs nothing.

",
    exit_codes!("the run was cancelled and the session ended,")
);

/// The exit codes of `orien session run`.
const SESSION_RUN_HELP: &str = exit_codes!("the run was cancelled, the session stays open,");

#[derive(Subcommand, Debug)]
pub(crate) enum SessionCommand {
    /// Open a session with a budget, and print its id
    Open {
        /// The provider's id or label, or `auto`
        #[arg(default_value = "auto")]
        provider: String,
        #[command(flatten)]
        opening: Opening,
        /// End it when nothing was done for this long, such as 10m [default: it is not ended for that]
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        idle_timeout: Option<u64>,
        /// When the provider vanishes, go on with another one [default: the gateway's, which is yes with `auto`]
        #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
        failover: Option<bool>,
        /// A tool that it has to have; may be repeated
        #[arg(long = "tool", help_heading = "Provider")]
        tools: Vec<String>,
        /// Say what would be opened and what it costs, and open nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// List sessions, the newest first
    #[command(visible_alias = "list")]
    Ls {
        /// active, completed, expired or failed
        #[arg(long)]
        status: Option<String>,
        /// Only those with this label
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        label: Option<(String, String)>,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show a session and its runs
    Show(OneSession),
    /// Run a tool in a session and follow its output; the exit code is the tool's
    #[command(after_long_help = SESSION_RUN_HELP)]
    Run {
        /// The session: its id, a part of it that only one has, one of its labels, or `last`
        session: String,
        #[command(flatten)]
        call: Call,
        /// Start it, print the run's id, and do not wait
        #[arg(long, short, conflicts_with = "stdin")]
        detach: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Show the output of a run
    Logs {
        /// The session, or the run itself
        session: String,
        /// The run [default: the newest of the session]
        run: Option<String>,
        /// Wait for more until the run ends
        #[arg(long, short)]
        follow: bool,
        /// Write output to a terminal as it is, with whatever control characters it holds
        #[arg(long)]
        raw: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Stop a run; it costs the time it ran
    Cancel {
        /// The session, or the run itself
        session: String,
        /// The run [default: the newest of the session that still runs]
        run: Option<String>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Copy files and folders to or from a session's workspace, and go on where an earlier copy broke off
    #[command(after_long_help = COPYING)]
    Cp {
        /// What to copy: local paths, or SESSION:PATH
        #[arg(required = true, num_args = 1.., value_name = "SOURCE")]
        sources: Vec<String>,
        /// Where to: SESSION:PATH, or a local path
        target: String,
        /// Copy everything again, also what is there already
        #[arg(long)]
        fresh: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// List the files of a session's workspace
    Files {
        /// SESSION or SESSION:PATH
        path: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Remove files and empty folders of a session's workspace, or with -r folders and everything in them
    Rm {
        /// SESSION:PATH
        #[arg(required = true)]
        paths: Vec<String>,
        /// Remove folders with everything in them
        #[arg(long, short)]
        recursive: bool,
        #[command(flatten)]
        ask: Ask,
    },
    /// Follow what happens in a session
    Events(OneSession),
    /// Show the signed receipts of a session, each signature checked
    Receipts(OneSession),
    /// Raise a session's budget
    #[command(visible_alias = "topup")]
    TopUp {
        /// The session: its id, a part of it that only one has, one of its labels, or `last`
        session: String,
        /// The new total, in USDC; `+AMOUNT` adds to what it has
        budget: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Give a session more time
    Extend {
        /// The session: its id, a part of it that only one has, one of its labels, or `last`
        session: String,
        /// Time for work from now on, such as 30m
        #[arg(value_parser = seconds)]
        time: u64,
        #[command(flatten)]
        ask: Ask,
    },
    /// End a session: its workspace is removed, and what is left of the budget is free again
    End {
        /// The session: its id, a part of it that only one has, one of its labels, or `last`
        #[arg(required = true)]
        sessions: Vec<String>,
        #[command(flatten)]
        ask: Ask,
    },
}

/// How copying understands its words, for people.
const COPYING: &str = "\
A folder goes to the target under its own name; with a slash at its end, what is in it goes. A single file takes the
target's name, unless that is a folder or ends in a slash. What is there already with the same content is left out, and
a file that broke off goes on where it did. Empty folders are made. Links are not copied, and nothing is ever written
through one. A folder always goes into the target, also if that is not there yet: copied to out, build becomes out/build.

  orien session cp project last:            project becomes project in the workspace
  orien session cp project/ last:           what is in it goes to the top
  orien session cp last:build/ out          what was built comes to the folder out";

/// One session.
#[derive(Args, Debug)]
pub(crate) struct OneSession {
    /// The session: its id, a part of it that only one has, one of its labels, or `last`
    pub(crate) session: String,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

impl SessionCommand {
    /// What every command can be told.
    pub(crate) const fn ask(&self) -> &Ask {
        match self {
            Self::Show(one) | Self::Events(one) | Self::Receipts(one) => &one.ask,
            Self::Open { ask, .. }
            | Self::Ls { ask, .. }
            | Self::Run { ask, .. }
            | Self::Logs { ask, .. }
            | Self::Cancel { ask, .. }
            | Self::Cp { ask, .. }
            | Self::Files { ask, .. }
            | Self::Rm { ask, .. }
            | Self::TopUp { ask, .. }
            | Self::Extend { ask, .. }
            | Self::End { ask, .. } => ask,
        }
    }
}

/// A length of time: `90`, `90s`, `5m`, `2h`, `30d`.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 24 * 3600)];
    let with_unit = units.iter().find_map(|(letter, unit)| text.strip_suffix(*letter).map(|number| (number, *unit)));
    let (number, unit): (&str, u64) = with_unit.unwrap_or((text, 1));
    let refused = || "a length of time is such as 90s, 5m, 2h or 30d".to_owned();
    let count: u64 = number.parse().map_err(|_| refused())?;
    count.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(refused)
}

/// A name and its value.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it has to be NAME=VALUE".to_owned()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder that the pages are written into
    pub(crate) folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_unit_or_is_seconds() {
        for (text, count) in [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("30d", 2_592_000)] {
            assert_eq!(seconds(text), Ok(count));
        }
        for text in ["", "0", "m", "-5", "d", "1w", "1.5h", "5 m", "99999999999999999999h", "18446744073709551615d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
