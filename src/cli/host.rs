//! Words of the commands that look at a host, its data directories and its files.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// A role's data directory, or a folder with several [default: $ORIEN_HOME or ~/.local/share/orien]
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// A batch, as `orien settlement batches ID --json` prints it, or the evidence of a session, as the gateway gives it; `-` for standard input
    pub(crate) file: PathBuf,
    /// Also demand that it belongs to the network of this file
    #[arg(long)]
    pub(crate) network: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysArgs {
    /// A role's data directory
    #[arg(long, env = "ORIEN_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Fail when the host confines less than this
    #[arg(long, value_enum, default_value = "s2")]
    pub(crate) min_level: LevelName,
    /// First of the users that tools run as when this is started as root [default: as the node's]
    #[arg(long)]
    pub(crate) first_user: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LevelName {
    S0,
    S1,
    S2,
    S3,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// What confinement costs: starting a program plainly, confined, and with bubblewrap if it is installed
    Sandbox {
        /// Runs of each kind
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=100_000))]
        runs: u32,
        /// The program to start
        #[arg(long, default_value = "/bin/true")]
        program: PathBuf,
        /// Memory that the starting process holds in the second half, in MiB; 0 leaves that half out
        #[arg(long, default_value_t = 1024)]
        parent_mib: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// How fast files go in and out of a session through a gateway's HTTP, beside plain TCP, scp and a bare stream between two peers
    Files {
        /// Size of the large file in MiB
        #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=5120))]
        mib: u64,
        /// Times that it goes up and down
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// Files of the tree that goes up and down as one archive
        #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
        small_files: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What an agent waits for: opening sessions and running a tool that does nothing, through a gateway's HTTP, beside the floors
    Runs {
        /// Runs at each number of callers
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        runs: u32,
        /// Callers at once; several numbers are measured one after the other
        #[arg(long, value_delimiter = ',', default_value = "1,10,50", value_parser = clap::value_parser!(u16).range(1..=1024))]
        concurrency: Vec<u16>,
        /// Sessions to open and end
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        openings: u32,
        /// Samples of each floor
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..=100_000))]
        floor_runs: u32,
        /// The program that the tool starts
        #[arg(long, default_value = "/bin/true")]
        program: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum ToolsCommand {
    /// Show what a provider configuration would offer, or every fault in it with line and fix
    Check {
        /// The configuration, such as provider-config.json
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
