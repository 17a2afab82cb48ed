//! For tests only, never part of a release: carries out, from inside, the attacks that the sandbox must withstand.
//!
//! `orien-sandbox-attacker ROW [key=value ...]` does for real what the row says and prints one line of JSON: what was tried, and what
//! came of each. It judges nothing; what may be is the caller's table. What an attack needs to know of the outside (paths, process
//! numbers, ports) is given in the arguments, and a key may be given more than once. `--list` prints the rows.
//!
//! Always true: a row that could do harm outside of a sandbox refuses to run unless the working directory is `/workspace`, and none
//! passes a value that would restart or reconfigure a machine on which nothing holds it back. A row that does not come back, or
//! whose point is its output, prints its line before.

mod attack;
mod bombs;
mod calls;
mod disk;
mod exec;
mod files;
mod identity;
mod leaks;
mod network;
mod output;
mod processes;
mod raw;
mod resources;

use std::io::{self, Write as _};
use std::process::ExitCode;

use attack::Attack;

/// Exit code for arguments that are none. No error number is as high, so a try that starts this program can tell.
const REFUSED: i32 = 200;

/// Where a row may run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// It only reads, or changes only itself.
    Anywhere,
    /// Only where the working directory is `/workspace`.
    Sandbox,
}
use Ground::{Anywhere, Sandbox};

type Row = (&'static str, Ground, &'static str, fn(&mut Attack));

const ROWS: &[Row] = &[
    ("A01", Anywhere, "read secrets by absolute path; secret=PATH", files::secrets),
    ("A02", Anywhere, "climb out of the working directory; secret=PATH", files::climb),
    ("A03", Sandbox, "read secrets through symbolic links; secret=PATH", files::links),
    ("A10", Sandbox, "hostile archives; tar=FILE zip=FILE escape=PATH (not below /tmp, where they may write)", files::archives),
    ("A11", Sandbox, "write, rename and link outside of the workspace; shared=DIRECTORY file=PATH", files::write_outside),
    ("A12", Sandbox, "write the kernel's settings", files::kernel_settings),
    ("A13", Anywhere, "look into process 1 and others; pid=N", files::other_processes),
    ("A14", Sandbox, "trace and read other processes; pid=N", processes::trace),
    ("A15", Sandbox, "signal other processes; pid=N", processes::signal),
    ("A16", Anywhere, "abstract sockets of the host; abstract=NAME", network::abstract_sockets),
    ("A18", Sandbox, "TCP to anywhere; port=N address=IP:PORT", network::connect),
    ("A19", Anywhere, "sockets of every family", network::families),
    ("A21", Sandbox, "new namespaces", identity::namespaces),
    ("A22", Sandbox, "mounts and roots", identity::mounts),
    ("A23", Sandbox, "set-user-id programs", exec::set_user_id),
    ("A24", Sandbox, "other users and capabilities", identity::privileges),
    ("A25", Sandbox, "devices", identity::devices),
    ("A26", Sandbox, "calls that no tool has business with", calls::forbidden),
    ("A27", Anywhere, "calls by the 32-bit convention", calls::foreign),
    ("A28", Anywhere, "numbers of x32 and beyond all", calls::beyond),
    ("A29", Sandbox, "typing into a terminal", calls::typing),
    ("A30", Anywhere, "another personality", calls::personality),
    ("A31", Sandbox, "execute a file made in the workspace", exec::own_file),
    ("A32", Sandbox, "execute it through the loader or a mapping", exec::by_loader),
    ("A33", Sandbox, "execute a file in memory", exec::memory_file),
    ("B01", Sandbox, "fork bomb; mode=count|bomb max=N", bombs::forks),
    ("B02", Sandbox, "thread bomb; max=N", bombs::threads),
    ("B03", Sandbox, "memory bomb; how=NAME bytes=N", bombs::memory),
    ("B04", Sandbox, "burn processor time without end; processes=N", bombs::burn),
    ("B05", Sandbox, "burn processor time where nobody counts; ms=N", bombs::hidden_burn),
    ("B06", Sandbox, "ignore every signal that can be ignored; processes=N", bombs::stubborn),
    ("B07", Sandbox, "stopped and suspended processes", bombs::stopped),
    ("B08", Sandbox, "leave a daemon behind; beat=FILE", bombs::daemon),
    ("B11", Sandbox, "flood of output; line=0|1 bytes=N", output::flood),
    ("B12", Sandbox, "flood of errors without output; mode=errors|both bytes=N", output::errors),
    ("B13", Anywhere, "bytes that are no text; bytes=N", output::bytes),
    ("B14", Sandbox, "hold the output after the end", output::hold),
    ("B16", Sandbox, "fill the workspace and /tmp", disk::fill),
    ("B17", Sandbox, "many small files; max=N", disk::many),
    ("B18", Sandbox, "deep directories; depth=N", disk::deep),
    ("B19", Sandbox, "files that resist deletion", disk::resisting),
    ("B20", Sandbox, "huge files", disk::huge),
    ("B21", Sandbox, "use up descriptors, watches, locks, timers", resources::exhaust),
    ("B22", Sandbox, "raise limits and priority", resources::raise),
    ("B23", Sandbox, "large core dump", resources::core_dump),
    ("B26", Sandbox, "the clock; sleep=SECONDS", resources::clock),
    ("C06", Anywhere, "what was inherited: environment, descriptors, keys; secret=TEXT", leaks::inherited),
    ("C09", Anywhere, "standard input that is a pipe", leaks::input),
    ("D10", Anywhere, "what names the host; needle=TEXT", leaks::host_names),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let wanted = words.next().unwrap_or_default();
    if wanted == "--list" {
        let lines: String = ROWS.iter().map(|(id, _, what, _)| format!("{id} {what}\n")).collect();
        return if io::stdout().write_all(lines.as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let Some((id, ground, _, run)) = ROWS.iter().find(|row| row.0 == wanted) else { return refuse("no such row; see --list") };
    if *ground == Sandbox && !std::env::current_dir().is_ok_and(|here| here.as_os_str() == "/workspace") {
        return refuse("this row runs only in /workspace");
    }
    let Some(given) = words.map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))).collect() else {
        return refuse("arguments are key=value");
    };
    let mut attack = Attack::new(id, given);
    run(&mut attack);
    attack.tell();
    ExitCode::SUCCESS
}

fn refuse(why: &str) -> ExitCode {
    // Nobody to tell if this fails too.
    let _ = writeln!(io::stderr(), "{why}");
    u8::try_from(REFUSED).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These only look, or change only the process itself; every other row could hurt the machine of whoever calls it by mistake.
    const HARMLESS: &[&str] = &["A01", "A02", "A13", "A16", "A19", "A27", "A28", "A30", "B13", "C06", "C09", "D10"];

    #[test]
    fn every_row_that_could_do_harm_is_bound_to_the_sandbox() {
        let anywhere: Vec<&str> = ROWS.iter().filter(|row| row.1 == Anywhere).map(|row| row.0).collect();
        assert_eq!(anywhere, HARMLESS);
    }

    #[test]
    fn rows_stand_once_and_in_order() {
        assert!(ROWS.is_sorted_by(|one, next| one.0 < next.0));
    }
}
