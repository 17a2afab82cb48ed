//! The filter against the table read naively, number by number, and against the kernel of the machine the test runs on.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::assembler::{Assembler, Label};
use super::interpreter::{Call, run};
use super::program::{ALLOW, EAFNOSUPPORT, ENOSYS, EPERM, KILL_PROCESS, program, runs, tree};
use super::table::{self, Check, Rule};
use super::{Machine, Sockets, filter};

const MACHINES: [Machine; 2] = [Machine::X86_64, Machine::Aarch64];
const SOCKETS: [Sockets; 2] = [Sockets::Local, Sockets::Internet];
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
const I386: u32 = 0x4000_0003;
const ARM: u32 = 0x4000_0028;
const X32_BIT: u32 = 0x4000_0000;
/// Every bit above those that the kernel reads.
const HIGH: u64 = 0xffff_ffff_0000_0000;

fn audit(machine: Machine) -> u32 {
    match machine {
        Machine::X86_64 => X86_64,
        Machine::Aarch64 => AARCH64,
    }
}

/// The four filters, made once.
static FILTERS: LazyLock<Vec<(Machine, Sockets, Vec<libc::sock_filter>)>> = LazyLock::new(|| {
    let kinds = MACHINES.into_iter().flat_map(|machine| SOCKETS.map(|sockets| (machine, sockets)));
    kinds.map(|(machine, sockets)| (machine, sockets, program(machine, sockets).unwrap())).collect()
});

fn answer(machine: Machine, sockets: Sockets, number: u32, arguments: [u64; 6]) -> u32 {
    let filter = FILTERS.iter().find(|(of, with, _)| (*of, *with) == (machine, sockets));
    run(&filter.unwrap().2, &Call { number, machine: audit(machine), arguments }).0
}

fn number_of(machine: Machine, name: &str) -> u32 {
    table::calls(machine).find(|(_, of, _)| *of == name).unwrap().0
}

/// What the table says of a number, without runs and trees; `None` where the arguments decide.
fn naive(machine: Machine, number: u32) -> Option<u32> {
    match table::calls(machine).find(|(of, _, _)| *of == number).map(|(_, _, rule)| rule) {
        Some(Rule::Allow) => Some(ALLOW),
        Some(Rule::Deny) => Some(EPERM),
        Some(Rule::Absent) | None => Some(ENOSYS),
        Some(Rule::Check(_)) => None,
    }
}

#[test]
fn every_number_gets_the_answer_of_its_row() {
    for (machine, sockets) in FILTERS.iter().map(|(machine, sockets, _)| (*machine, *sockets)) {
        let mut asked = 0;
        for number in 0..=1023 {
            match naive(machine, number) {
                Some(expected) => assert_eq!(answer(machine, sockets, number, [0; 6]), expected, "{machine:?} {number}"),
                None => asked += 1,
            }
        }
        assert_eq!(asked, table::calls(machine).filter(|(_, _, rule)| matches!(rule, Rule::Check(_))).count());
    }
}

#[test]
fn a_number_with_the_x32_bit_or_beyond_all_numbers_does_not_exist() {
    for machine in MACHINES {
        for number in (0..=1023).map(|number| number | X32_BIT).chain([470, 512, 547, 1 << 31, u32::MAX]) {
            assert_eq!(answer(machine, Sockets::Internet, number, [0; 6]), ENOSYS, "{machine:?} {number:#x}");
        }
    }
}

#[test]
fn a_call_by_another_machines_convention_kills_whatever_its_number() {
    for machine in MACHINES {
        let program = program(machine, Sockets::Internet).unwrap();
        for other in [X86_64, AARCH64, I386, ARM, 0, u32::MAX].into_iter().filter(|other| *other != audit(machine)) {
            for number in (0..=1023).flat_map(|number| [number, number | X32_BIT]) {
                let call = Call { number, machine: other, arguments: [0; 6] };
                assert_eq!(run(&program, &call).0, KILL_PROCESS, "{machine:?} {other:#x} {number}");
            }
        }
    }
}

/// Arguments with this value at this place, the upper half clear, and the same with every bit of the upper half set.
fn with(index: usize, value: u32) -> [[u64; 6]; 2] {
    [0, HIGH].map(|high| {
        let mut arguments = [0; 6];
        arguments[index] = u64::from(value) | high;
        arguments
    })
}

fn expect(name: &str, index: usize, value: u32, expected: u32) {
    for machine in MACHINES.into_iter().filter(|machine| table::calls(*machine).any(|(_, of, _)| of == name)) {
        for arguments in with(index, value) {
            let given = answer(machine, Sockets::Local, number_of(machine, name), arguments);
            assert_eq!(given, expected, "{machine:?} {name} {arguments:#x?}");
        }
    }
}

#[test]
fn clone_makes_processes_and_threads_but_no_namespace() {
    // As fork, as vfork and as a thread, in the order the C library asks for them.
    for flags in [17, 0x0120_0011, 0x4111, 0x003d_0f00] {
        expect("clone", 0, flags, ALLOW);
    }
    let namespaces = [0x80, 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    for bit in 0..32 {
        let flag = 1_u32 << bit;
        let expected = if namespaces.contains(&flag) { EPERM } else { ALLOW };
        expect("clone", 0, flag, expected);
        expect("clone", 0, flag | 17, expected);
    }
}

#[test]
fn without_the_internet_sockets_are_local() {
    for name in ["socket", "socketpair"] {
        for family in 0..=64 {
            expect(name, 0, family, if family == 1 { ALLOW } else { EAFNOSUPPORT });
        }
        expect(name, 0, 0x8000_0001, EAFNOSUPPORT);
        expect(name, 0, u32::MAX, EAFNOSUPPORT);
    }
}

#[test]
fn with_the_internet_there_is_tcp_and_nothing_else() {
    let flags = [0, 0x800, 0x8_0000, 0x8_0800];
    for (machine, name) in MACHINES.into_iter().flat_map(|machine| ["socket", "socketpair"].map(|name| (machine, name))) {
        let number = number_of(machine, name);
        let ask = |family: u64, kind: u64, protocol: u64| {
            let plain = answer(machine, Sockets::Internet, number, [family, kind, protocol, 0, 0, 0]);
            let high = answer(machine, Sockets::Internet, number, [family | HIGH, kind | HIGH, protocol | HIGH, 9, 9, 9]);
            assert_eq!(plain, high, "{machine:?} {name} {family} {kind} {protocol}");
            plain
        };
        for family in 0..=64 {
            for kind in (0..=16).flat_map(|kind| flags.map(|flags| kind | flags)) {
                for protocol in [0, 1, 2, 6, 17, 58, 132, 136, 255, 256, 262, 0x8000_0000] {
                    let expected = match (family, kind & 0xf, protocol) {
                        (1, _, _) | (2 | 10, 1, 0 | 6) => ALLOW,
                        (2 | 10, _, _) => EPERM,
                        _ => EAFNOSUPPORT,
                    };
                    assert_eq!(ask(family, kind, protocol), expected, "{machine:?} {name} {family} {kind:#x} {protocol}");
                }
            }
        }
    }
}

#[test]
fn a_node_of_the_file_system_can_be_anything_but_a_device() {
    for (name, index) in [("mknod", 1), ("mknodat", 2)] {
        for format in 0..=0xf {
            for rest in [0, 0o777, 0o7777, 0xffff_0000] {
                let expected = if format == 2 || format == 6 { EPERM } else { ALLOW };
                expect(name, index, (format << 12) | rest, expected);
            }
        }
    }
}

#[test]
fn nothing_types_into_a_terminal() {
    for (request, expected) in [(0x5411, ALLOW), (0x5412, EPERM), (0x5413, ALLOW), (0x541b, ALLOW), (0x541c, EPERM), (0x541d, ALLOW)] {
        expect("ioctl", 1, request, expected);
        // One bit more is another request.
        expect("ioctl", 1, request | 0x8000_0000, ALLOW);
    }
    expect("ioctl", 0, 0x5412, ALLOW);
}

#[test]
fn no_tree_is_made_that_cannot_be_removed_by_ordinary_means() {
    // As the headers of btrfs and fscrypt put them together: direction, length, letter, number.
    let request = |direction: u32, length: u32, letter: u32, number: u32| direction << 30 | length << 16 | letter << 8 | number;
    let (write, read) = (1, 2);
    for number in 0..64 {
        let expected = if [1, 14, 23, 24].contains(&number) { EPERM } else { ALLOW };
        expect("ioctl", 1, request(write, 4096, 0x94, number), expected);
    }
    let letter = u32::from(b'f');
    expect("ioctl", 1, request(read, 12, letter, 19), EPERM);
    expect("ioctl", 1, request(read | write, 80, letter, 23), EPERM);
    // Flags of a file, and copies that share their blocks.
    expect("ioctl", 1, request(write, 8, letter, 2), ALLOW);
    expect("ioctl", 1, request(write, 4, 0x94, 9), ALLOW);
}

#[test]
fn memory_files_are_made_only_with_the_seal_against_execution() {
    for flags in 0..32 {
        expect("memfd_create", 1, flags, if flags & 8 == 8 { ALLOW } else { EPERM });
    }
    expect("memfd_create", 1, !8, EPERM);
}

#[test]
fn the_personality_can_be_asked_for_and_not_changed() {
    for (persona, expected) in [(0, ALLOW), (u32::MAX, ALLOW), (0x0004_0000, EPERM), (1, EPERM), (u32::MAX - 1, EPERM), (1 << 31, EPERM)] {
        expect("personality", 0, persona, expected);
    }
}

#[test]
fn every_row_has_its_own_number_and_every_question_is_asked_by_name() {
    for machine in MACHINES {
        let mut numbers: Vec<u32> = table::calls(machine).map(|(number, _, _)| number).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "{machine:?}: a number stands twice");
        assert!(numbers.last().is_some_and(|last| *last < 512), "{machine:?}: above 511 the numbers belong to x32");
    }
    let asked: Vec<(&str, Check)> = table::ROWS
        .iter()
        .filter_map(|row| match row.3 {
            Rule::Check(check) => Some((row.0, check)),
            _ => None,
        })
        .collect();
    let expected = [
        ("ioctl", Check::Request),
        ("socket", Check::Socket),
        ("socketpair", Check::Socket),
        ("clone", Check::Namespaces),
        ("mknod", Check::Node(1)),
        ("personality", Check::Personality),
        ("mknodat", Check::Node(2)),
        ("memfd_create", Check::Memory),
    ];
    assert_eq!(asked, expected);
}

/// Numbers by another hand, for the calls where a wrong number would open a door.
macro_rules! denied {
    ($($constant:ident)*) => { [$((stringify!($constant), libc::$constant)),*] };
}

#[test]
fn the_denied_calls_have_the_numbers_that_this_machines_library_knows() {
    #[rustfmt::skip]
    let common = denied![
        SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_pidfd_getfd SYS_mount SYS_umount2 SYS_open_tree SYS_move_mount SYS_fsopen
        SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_pivot_root SYS_chroot SYS_unshare SYS_setns SYS_init_module SYS_finit_module
        SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter
        SYS_io_uring_register SYS_keyctl SYS_add_key SYS_request_key SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_quotactl_fd
        SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime SYS_syslog SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init
        SYS_fanotify_mark SYS_mbind SYS_migrate_pages SYS_move_pages SYS_set_mempolicy SYS_set_mempolicy_home_node SYS_memfd_secret SYS_shmget SYS_shmat
        SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semctl SYS_semtimedop SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink
        SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify SYS_mq_getsetattr SYS_vhangup SYS_sethostname SYS_setdomainname
        SYS_lookup_dcookie SYS_nfsservctl
    ];
    for (name, number) in common {
        let name = name.trim_start_matches("SYS_");
        assert_eq!(i64::from(number_of(Machine::host().unwrap(), name)), number, "{name}");
        for machine in MACHINES {
            assert_eq!(naive(machine, number_of(machine, name)), Some(EPERM), "{machine:?} {name}");
        }
    }
    #[cfg(target_arch = "x86_64")]
    for (name, number) in denied![SYS_iopl SYS_ioperm SYS_modify_ldt SYS_ustat SYS_sysfs SYS_uselib SYS__sysctl] {
        let name = name.trim_start_matches("SYS_");
        assert_eq!(i64::from(number_of(Machine::X86_64, name)), number, "{name}");
        assert_eq!(naive(Machine::X86_64, u32::try_from(number).unwrap()), Some(EPERM), "{name}");
    }
}

#[test]
fn a_filter_is_short_and_a_number_is_decided_in_few_steps() {
    for (machine, sockets, program) in FILTERS.iter() {
        assert!(program.len() <= 160, "{machine:?} {sockets:?}: {} instructions", program.len());
        let steps = (0..=1023).map(|number| run(program, &Call { number, machine: audit(*machine), arguments: [0; 6] }).1).max();
        assert!(steps.unwrap() <= 16, "{machine:?} {sockets:?}: {steps:?} steps");
    }
}

#[test]
fn a_number_without_a_row_is_a_run_of_its_own() {
    let calls = [(6, Rule::Deny), (1, Rule::Allow), (3, Rule::Allow), (4, Rule::Allow), (5, Rule::Deny)];
    let expected = [(0, Rule::Absent), (1, Rule::Allow), (2, Rule::Absent), (3, Rule::Allow), (5, Rule::Deny), (7, Rule::Absent)];
    assert_eq!(runs(calls.into_iter()), expected);
}

#[test]
fn a_load_goes_on_at_its_place_whatever_was_written_between() {
    let mut assembler = Assembler::default();
    let wanted = assembler.answer(1);
    assembler.answer(2);
    assembler.load(0, wanted);
    let program = assembler.finish().unwrap();
    assert_eq!(run(&program, &Call { number: 0, machine: 0, arguments: [0; 6] }).0, 1);
}

#[test]
fn jumps_beyond_eight_bits_go_through_others() {
    let mut assembler = Assembler::default();
    // 1,000 runs over 500 answers: most of them out of reach of the comparisons at the top.
    let runs: Vec<(u32, Label)> = (0..1000).map(|run| (run * 3, assembler.answer(run % 500))).collect();
    let root = tree(&mut assembler, &runs);
    assembler.load(0, root);
    let program = assembler.finish().unwrap();
    assert!(program.iter().any(|instruction| instruction.code == 0x05), "this test needs far jumps");
    for number in 0..3010 {
        let expected = (number / 3).min(999) % 500;
        assert_eq!(run(&program, &Call { number, machine: 0, arguments: [0; 6] }).0, expected, "{number}");
    }
}

#[test]
fn a_program_that_the_kernel_would_not_take_is_refused() {
    let mut assembler = Assembler::default();
    for value in 0..4097 {
        assembler.answer(value);
    }
    assert_eq!(assembler.finish().unwrap_err(), super::FilterError::TooLong(4097));
}

/// Every number up to the last row, as a reviewer reads it.
fn dump(machine: Machine) -> String {
    let mut text = String::from("# number name action; generated from the table by the test that compares it, with SECCOMP_GOLDEN=write\n");
    let last = table::calls(machine).map(|(number, _, _)| number).max().unwrap();
    for number in 0..=last {
        let row = table::calls(machine).find(|(of, _, _)| *of == number);
        let (name, action) = match row {
            None => ("-", "ENOSYS".to_owned()),
            Some((_, name, Rule::Allow)) => (name, "allow".to_owned()),
            Some((_, name, Rule::Deny)) => (name, "EPERM".to_owned()),
            Some((_, name, Rule::Absent)) => (name, "ENOSYS".to_owned()),
            Some((_, name, Rule::Check(check))) => (name, format!("by arguments: {check:?}")),
        };
        writeln!(text, "{number} {name} {action}").unwrap();
    }
    text + "above: ENOSYS\n"
}

#[test]
fn what_is_allowed_is_what_was_reviewed() {
    for (machine, file) in MACHINES.into_iter().zip(["x86_64.golden.txt", "aarch64.golden.txt"]) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/helper/seccomp").join(file);
        if std::env::var_os("SECCOMP_GOLDEN").is_some_and(|value| value == "write") {
            std::fs::write(&path, dump(machine)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), dump(machine), "{file} is not what the table says");
    }
}

/// Installs the filter that it is given in hexadecimal, tries a few calls, and becomes another program.
const INSTALL: &str = r"
import ctypes, os, socket, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
code = bytes.fromhex(sys.argv[1])
buffer = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(struct.pack('@HxxxxxxQ', len(code) // 8, ctypes.addressof(buffer)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, 'the kernel refuses the filter'
def errno(call, *arguments):
    ctypes.set_errno(0)
    return ctypes.get_errno() if call(*arguments) < 0 else 0
def family(number, kind):
    try:
        socket.socket(number, kind).close()
        return 0
    except OSError as error:
        return error.errno
thread = threading.Thread(target=lambda: None)
thread.start(); thread.join()
print(errno(libc.unshare, 0x10000000), errno(libc.chroot, b'/'), errno(libc.syscall, 9999), errno(libc.personality, 0x40000),
      errno(libc.syscall, 0x40000000 | 39), family(2, 2), family(2, 1), family(1, 1), flush=True)
if os.fork() == 0: os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
os.execv('/bin/sh', ['sh', '-c', '/bin/echo it runs | /bin/cat'])
";

#[test]
fn the_kernel_takes_the_filter_and_programs_start_under_it() {
    for (sockets, tcp, udp) in [(Sockets::Local, 97, 97), (Sockets::Internet, 0, 1)] {
        let mut code = String::new();
        for instruction in filter(sockets).unwrap() {
            let (op, k) = (instruction.code.to_le_bytes(), instruction.k.to_le_bytes());
            for byte in op.into_iter().chain([instruction.jt, instruction.jf]).chain(k) {
                write!(code, "{byte:02x}").unwrap();
            }
        }
        let done = std::process::Command::new("/usr/bin/python3").args(["-c", INSTALL, &code]).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(out, format!("1 1 38 1 38 {udp} {tcp} 0\nit runs\n"), "{err}");
        assert!(done.status.success());
    }
}
