//! Makes the filter from the table: runs of equal rules, a balanced tree of comparisons over them, and the questions about
//! arguments as its leaves.
//!
//! Always true: what the program answers is what the table says for that number. The tree matters: the kernel runs the program for
//! every number when it is installed, and a list of comparisons ten times as long costs as much as starting the tool.

use libc::sock_filter;

use super::assembler::{Assembler, If, Label};
use super::table::{self, Check, Rule};
use super::{FilterError, Machine, Sockets};

/// Where the kernel shows the number, the machine, and the lower half of the first argument.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
pub(super) const EPERM: u32 = ERRNO | 1;
pub(super) const ENOSYS: u32 = ERRNO | 38;
pub(super) const EAFNOSUPPORT: u32 = ERRNO | 97;

/// Every bit that makes a namespace. The time namespace's is among the bits of the exit signal, where it is no valid signal.
pub(super) const NEW_NAMESPACES: u32 = 0x7e02_0080;
pub(super) const UNIX: u32 = 1;
pub(super) const INTERNET: [u32; 2] = [2, 10];
/// The rest of a socket's type are flags.
pub(super) const SOCKET_TYPE: u32 = 0xf;
pub(super) const STREAM: u32 = 1;
/// Whatever is usual for the type, or TCP by its name.
pub(super) const TCP: [u32; 2] = [0, 6];
/// Among the bits of a file's format, those that character and block devices have in common and no other format has.
pub(super) const DEVICE_MASK: u32 = 0xb000;
pub(super) const DEVICE: u32 = 0x2000;
/// Put a byte into a terminal's input; paste the console's selection into it.
pub(super) const TYPING: [u32; 2] = [0x5412, 0x541c];
/// Make subvolumes and snapshots of them (btrfs); bring a key and encrypt a directory with it: whoever removes the workspace could not
/// take such a tree apart.
pub(super) const TREES: [u32; 6] = [0x5000_9401, 0x5000_940e, 0x5000_9417, 0x5000_9418, 0x800c_6613, 0xc050_6617];
/// Requests from here on say how long their argument is. Most that are made say nothing of the kind, and are soon decided.
const FIRST_WITH_LENGTH: u32 = 0x4000_0000;
pub(super) const NOEXEC_SEAL: u32 = 8;
/// Linux as it is; and the question what it is.
pub(super) const PERSONALITIES: [u32; 2] = [0, 0xffff_ffff];

pub(super) fn program(machine: Machine, sockets: Sockets) -> Result<Vec<sock_filter>, FilterError> {
    let mut assembler = Assembler::default();
    let leaves: Vec<(u32, Label)> = runs(table::calls(machine).map(|(number, _, rule)| (number, rule)))
        .into_iter()
        .scan(Vec::new(), |known, (start, rule)| Some((start, leaf(&mut assembler, known, rule, sockets))))
        .collect();
    let number = tree(&mut assembler, &leaves);
    let number = assembler.load(NUMBER, number);
    let kill = assembler.answer(KILL_PROCESS);
    let machine = assembler.branch(If::Equal, machine.audit(), number, kill);
    assembler.load(MACHINE, machine);
    assembler.finish()
}

/// The first number of each run of equal rules. The last run has no end.
pub(super) fn runs(calls: impl Iterator<Item = (u32, Rule)>) -> Vec<(u32, Rule)> {
    let mut calls: Vec<(u32, Rule)> = calls.collect();
    calls.sort_by_key(|(number, _)| *number);
    let mut runs = Vec::new();
    let mut next = 0;
    let mut add = |start, rule| match runs.last() {
        Some((_, last)) if *last == rule => {}
        _ => runs.push((start, rule)),
    };
    for (number, rule) in calls {
        if number > next {
            add(next, Rule::Absent);
        }
        add(number, rule);
        next = number.saturating_add(1);
    }
    add(next, Rule::Absent);
    runs
}

/// Finds the run that the accumulator is in.
pub(super) fn tree(assembler: &mut Assembler, runs: &[(u32, Label)]) -> Label {
    match runs {
        [] => assembler.answer(KILL_PROCESS),
        [(_, label)] => *label,
        _ => {
            let (lower, upper) = runs.split_at(runs.len() / 2);
            let no = tree(assembler, lower);
            let yes = tree(assembler, upper);
            let start = upper.first().map_or(0, |(start, _)| *start);
            assembler.branch(If::AtLeast, start, yes, no)
        }
    }
}

/// The code of a rule, written once.
fn leaf(assembler: &mut Assembler, known: &mut Vec<(Rule, Label)>, rule: Rule, sockets: Sockets) -> Label {
    if let Some((_, label)) = known.iter().find(|(of, _)| *of == rule) {
        return *label;
    }
    let label = match rule {
        Rule::Allow => assembler.answer(ALLOW),
        Rule::Deny => assembler.answer(EPERM),
        Rule::Absent => assembler.answer(ENOSYS),
        Rule::Check(check) => question(assembler, check, sockets),
    };
    known.push((rule, label));
    label
}

fn question(assembler: &mut Assembler, check: Check, sockets: Sockets) -> Label {
    let (allow, deny) = (assembler.answer(ALLOW), assembler.answer(EPERM));
    match check {
        Check::Namespaces => {
            let asked = assembler.branch(If::AnyBit, NEW_NAMESPACES, deny, allow);
            assembler.load(argument(0), asked)
        }
        Check::Socket => socket(assembler, sockets),
        Check::Node(mode) => {
            let asked = assembler.branch(If::Equal, DEVICE, deny, allow);
            let format = assembler.mask(DEVICE_MASK, asked);
            assembler.load(argument(mode.into()), format)
        }
        Check::Request => {
            let plain = one_of(assembler, &TYPING, deny, allow);
            let with_length = one_of(assembler, &TREES, deny, allow);
            let asked = assembler.branch(If::AtLeast, FIRST_WITH_LENGTH, with_length, plain);
            assembler.load(argument(1), asked)
        }
        Check::Memory => {
            let asked = assembler.branch(If::AnyBit, NOEXEC_SEAL, allow, deny);
            assembler.load(argument(1), asked)
        }
        Check::Personality => {
            let asked = one_of(assembler, &PERSONALITIES, allow, deny);
            assembler.load(argument(0), asked)
        }
    }
}

fn socket(assembler: &mut Assembler, sockets: Sockets) -> Label {
    let (allow, deny) = (assembler.answer(ALLOW), assembler.answer(EPERM));
    let mut family = assembler.answer(EAFNOSUPPORT);
    if sockets == Sockets::Internet {
        let protocol = one_of(assembler, &TCP, allow, deny);
        let protocol = assembler.load(argument(2), protocol);
        let stream = assembler.branch(If::Equal, STREAM, protocol, deny);
        let stream = assembler.mask(SOCKET_TYPE, stream);
        let stream = assembler.load(argument(1), stream);
        family = one_of(assembler, &INTERNET, stream, family);
    }
    let family = assembler.branch(If::Equal, UNIX, allow, family);
    assembler.load(argument(0), family)
}

fn one_of(assembler: &mut Assembler, values: &[u32], yes: Label, no: Label) -> Label {
    values.iter().fold(no, |no, value| assembler.branch(If::Equal, *value, yes, no))
}

/// Where the lower half of an argument is: both machines are little-endian.
const fn argument(index: u32) -> u32 {
    ARGUMENTS.saturating_add(index.saturating_mul(ARGUMENT_BYTES))
}
