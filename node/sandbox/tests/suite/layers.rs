//! What each layer is for: with one of them left out, the rows it is there for come out differently, and those alone show that the
//! suite would notice.
//!
//! Always true: each comparison carries out the same attack twice, with every layer and without one. What must differ is named, and so
//! a layer that stopped doing anything fails here although another may still hold.

use orien_sandbox::{Cause, Layer, Level, Profile, SessionLimits, Storage};

use crate::verdict::{Is, Told};
use crate::world::{World, is_root, python, row, row_with, run, sh, small};

/// Everything that rows need to know of the outside.
fn words<'a>(row: &'a str, given: &'a [String]) -> Vec<&'a str> {
    std::iter::once(row).chain(given.iter().map(String::as_str)).collect()
}

async fn session(world: &World) -> orien_sandbox::SessionSandbox {
    let limits = SessionLimits { parallel_runs: 1, ..small() };
    world.session_of(Storage::Memory, limits, world.profile()).await
}

async fn attack(world: &World, row: &str) -> Told {
    let session = session(world).await;
    let given = ["max=200".to_owned(), format!("port={}", world.port())];
    let given = if matches!(row, "B01" | "B02" | "A18") { &given[..] } else { &[] };
    let told = world.attack(&session, &words(row, given)).await;
    world.close(session).await;
    told
}

/// Rows, with those of their tries that must come through without a layer, and how that shows.
type Rows<'a> = &'a [(&'a str, &'a [(&'a str, Is)])];

fn without(layer: Layer, rows: Rows<'_>) {
    let mut with_all = Vec::new();
    row(async |world| {
        for (row, _) in rows {
            with_all.push(attack(world, row).await);
        }
    });
    row_with(
        |config| (config.without, config.unchecked) = (vec![layer], true),
        async |world| {
            for ((row, through), whole) in rows.iter().zip(&with_all) {
                let told = attack(world, row).await;
                let changed = told.differs(whole);
                println!("{layer:?} left out, {row}: {} of {} come out otherwise: {changed:?}", changed.len(), told.tries.len());
                for (what, how) in *through {
                    // Where the step before it was refused it was not even tried.
                    let held = whole.tries.iter().all(|tried| tried.what != *what || !tried.is(*how));
                    assert!(held && told.of(what).is(*how), "{row}: {what} does not need {layer:?}: {:?}", told.of(what));
                }
            }
        },
    );
}

/// It was done.
const DONE: Is = Is::Done;
/// It reached what it was for, and was told that what it brought was nonsense, as the attack program has it.
const REACHED: Is = Is::Refused(&[libc::ENOTTY, libc::EFAULT, libc::EINVAL, libc::EBADF]);

#[test]
fn without_the_filter_calls_sockets_and_programs_in_memory_come_through() {
    without(
        Layer::Seccomp,
        &[
            (
                "A14",
                &[("ptrace TRACEME", DONE), ("ptrace SEIZE child", DONE), ("pidfd_getfd child", DONE), ("process_vm_readv child", REACHED)],
            ),
            ("A18", &[("TCP to 192.0.2.1:443", Is::Refused(&[libc::EACCES, libc::ENETUNREACH]))]),
            ("A19", &[("UDP", DONE), ("TCP", DONE), ("netlink", DONE), ("any other", DONE)]),
            // Not for want of a filter is this still no namespace: none may be made at all.
            ("A21", &[("clone3 without namespaces", DONE), ("unshare user", Is::Refused(&[libc::ENOSPC]))]),
            ("A26", &[("shmget", DONE), ("semget", DONE), ("msgget", DONE), ("keyctl, session keyring", DONE), ("add_key", REACHED)]),
            ("A29", &[("TIOCSTI with 0x0 on reader", REACHED), ("TIOCLINUX with 0xffffffff00000000 on writer", REACHED)]),
            ("A30", &[("no random addresses", DONE), ("all readable is executable", DONE)]),
            ("A33", &[("memory file, plain", DONE), ("write and execute it, plain", DONE)]),
        ],
    );
}

#[test]
fn without_the_filter_the_other_convention_is_answered() {
    if cfg!(target_arch = "x86_64") {
        without(Layer::Seccomp, &[("A27", &[("int 0x80", DONE)])]);
    }
}

#[test]
fn without_access_rules_a_tool_s_own_kernel_files_are_written() {
    without(
        Layer::Landlock,
        &[("A12", &[("write /proc/self/coredump_filter", REACHED), ("write /proc/self/uid_map", Is::Refused(&[libc::EPERM]))])],
    );
}

/// TCP from inside to a port of the session's own network that is not its way out.
const ANOTHER_PORT: &str = "
import socket, sys
for port in (3128, 3129):
    s = socket.socket()
    try: s.connect(('127.0.0.1', port)); print(port, 'connected')
    except OSError as e: print(port, e.errno)
s = socket.socket()
try: s.bind(('127.0.0.1', 8000)); s.listen(); print('listens')
except OSError as e: print('listen', e.errno)
";

#[test]
fn without_access_rules_a_run_goes_out_by_another_run_s_way() {
    let talked = |layers: Vec<Layer>| {
        let mut text = String::new();
        row_with(
            |config| (config.without, config.unchecked) = (layers, true),
            async |world| {
                let grant = |host: &str| orien_sandbox::NetworkGrant { hosts: vec![host.parse().unwrap()] };
                let of = |host| Profile { network: Some(std::sync::Arc::new(grant(host))), ..Profile::default() };
                let spec = orien_sandbox::SessionSpec {
                    limits: small(),
                    profiles: vec![of("192.0.2.7:443"), of("192.0.2.8:443")],
                    ..orien_sandbox::SessionSpec::default()
                };
                let session = world.sandbox.session("ways", spec).await.unwrap();
                text = run(&session, python(ANOTHER_PORT)).await.text().to_owned();
                world.close(session).await;
            },
        );
        text
    };
    assert_eq!(talked(Vec::new()), format!("3128 connected\n3129 {}\nlisten {}\n", libc::EACCES, libc::EACCES));
    assert_eq!(talked(vec![Layer::Landlock]), "3128 connected\n3129 connected\nlistens\n");
}

#[test]
fn without_capabilities_taken_away_more_could_be_had() {
    // What a tool holds is nothing either way: a program that an ordinary user starts gets none. What it could ever get differs.
    let bounds = |layers: Vec<Layer>| {
        let mut text = String::new();
        row_with(
            |config| (config.without, config.unchecked) = (layers, true),
            async |world| text = attack(world, "A24").await.of("CapBnd:").text.clone(),
        );
        text
    };
    assert_eq!(bounds(Vec::new()).trim_start_matches('0'), "");
    assert_ne!(bounds(vec![Layer::Capabilities]).trim_start_matches('0'), "");
}

#[test]
fn without_limits_nothing_that_is_counted_has_an_end() {
    without(Layer::Limits, &[("B20", &[("1 TiB without content", DONE), ("1 TiB without content, in a tool that ignores nothing", DONE)])]);
    let (mut counted, mut forked) = (Vec::new(), Vec::new());
    for layers in [Vec::new(), vec![Layer::Limits]] {
        let is_whole = layers.is_empty();
        row_with(
            |config| (config.without, config.unchecked) = (layers, true),
            async |world| {
                let session = session(world).await;
                let count = "import os\nn = 0\ntry:\n while n < 5000: os.dup(0); n += 1\nexcept OSError: pass\nprint(n)";
                counted.push(run(&session, python(count)).await.text().trim().parse::<u32>().unwrap());
                // Never more than so many: without the limit nothing else would hold them back.
                let done = run(&session, world.spec(&["B01", "max=200"])).await;
                match done.report.cause {
                    Cause::Exited(0) => forked.push(Told::read(&done.stdout).of("fork").count.unwrap()),
                    // Then the stub's own count came first.
                    cause => assert_eq!((cause, is_whole), (Cause::ProcessLimit, false)),
                }
                world.close(session).await;
            },
        );
    }
    assert!(counted[0] < 256 && counted[1] > counted[0], "{counted:?}");
    assert!(forked[0] <= 64 && forked.get(1).is_none_or(|count| *count == 200), "{forked:?}");
}

fn at_s1(test: impl AsyncFnOnce(&World)) {
    if is_root() {
        // Root has no way to give files to another user there; the suite's other life carries this out.
        println!("SKIP for root, which has no level S1");
        return;
    }
    row_with(|config| (config.min_level, config.max_level) = (Level::S1, Level::S1), test);
}

#[test]
fn without_namespaces_access_rules_and_filter_still_hold() {
    at_s1(async |world| {
        assert_eq!(world.sandbox.level(), Level::S1);
        let session = world.session().await;
        let (secret, name) = (format!("secret={}", world.canary()), format!("abstract={}", crate::world::abstract_name()));
        let gone = Is::Refused(&[libc::EACCES, libc::ENOENT]);
        world.attack(&session, &["A01", &secret]).await.judge(&[("control", Is::Done), ("read ", gone)]);
        let told = world.attack(&session, &["A02", &secret]).await;
        told.judge(&[("control", Is::Done), ("list ", gone), ("", gone)]);
        let refused = Is::Refused(&[libc::EPERM]);
        world.attack(&session, &["A16", &name]).await.judge(&[("control", Is::Done), ("connect to ", refused)]);
        let none = Is::Refused(&[libc::EAFNOSUPPORT]);
        world.attack(&session, &["A19"]).await.judge(&[("control", Is::Done), ("any other", Is::Not), ("", none)]);
        world.attack(&session, &["A28"]).await.judge(&[("control", Is::Done), ("", Is::Refused(&[libc::ENOSYS]))]);
        world.attack(&session, &["A30"]).await.judge(&[("control", Is::Done), ("as it is", Is::Done), ("", refused)]);
        let host = world.host_pid();
        for script in [format!("kill -0 {host}"), format!("kill -9 {host}"), "kill -0 $PPID".into(), format!("echo x > {}", world.canary())]
        {
            assert!(!run(&session, sh(&script)).await.report.success(), "{script}");
        }
        world.close(session).await;
    });
}

#[test]
fn without_namespaces_the_host_s_processes_and_names_are_seen() {
    at_s1(async |world| {
        let session = world.session().await;
        let host = world.host_pid();
        let told = world.attack(&session, &["A13", &format!("pid={host}")]).await;
        assert!(told.of(&format!("read /proc/{host}/cmdline")).is(Is::Done), "{told:#?}");
        assert!(told.of(&format!("read /proc/{host}/mem")).is(Is::Refused(&[libc::EACCES, libc::EPERM])));
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let told = world.attack(&session, &["D10"]).await;
        assert!(told.of("names of the system").text.contains(name.trim()));
        world.close(session).await;
    });
}
