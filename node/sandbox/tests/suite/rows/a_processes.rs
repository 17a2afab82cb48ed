//! Into other processes: looking, tracing, signalling.

use libc::{EACCES, ENOENT, EPERM, ESRCH};

use crate::verdict::Is;
use crate::world::{row, run, sh, state};

const GONE: Is = Is::Refused(&[ENOENT]);
const SHUT: Is = Is::Refused(&[EACCES]);
const FORBIDDEN: Is = Is::Refused(&[EPERM]);

#[test]
fn a13_of_other_processes_only_a_constant_name_is_seen() {
    row(async |world| {
        let host = world.host_pid();
        let (pid, of_host, into_host) = (format!("pid={host}"), format!("read /proc/{host}/"), format!("follow /proc/{host}/"));
        let list = format!("list /proc/{host}/root");
        let table = [
            ("control", Is::Done),
            (of_host.as_str(), GONE),
            (into_host.as_str(), GONE),
            (list.as_str(), GONE),
            ("read /proc/1/task", Is::Done),
            ("read /proc/1/cmdline", Is::Done),
            ("read /proc/1/status", Is::Done),
            ("read /proc/1/mountinfo", Is::Done),
            ("read /proc/1/", SHUT),
            ("follow /proc/1/", SHUT),
            ("list /proc/1/root", SHUT),
            ("processes in /proc", Is::Done),
        ];
        let told = world.judge(&["A13", &pid], &table).await;
        assert_eq!(told.of("read /proc/1/cmdline").text, "orien\0sandbox-init\0");
        assert_eq!(told.of("processes in /proc").text, "1 2");
        assert!(told.of("read /proc/1/mountinfo").text.lines().all(|line| !line.contains("workspaces")), "{told:#?}");
    });
}

#[test]
fn a14_other_processes_are_not_traced_nor_read() {
    row(async |world| {
        let host = format!("pid={}", world.host_pid());
        let memory_of_host = format!("open /proc/{}/mem", world.host_pid());
        let table = [
            ("control", Is::Done),
            ("ptrace ", FORBIDDEN),
            ("process_vm_", FORBIDDEN),
            ("kcmp ", FORBIDDEN),
            ("pidfd_getfd ", FORBIDDEN),
            ("open /proc/1/mem", SHUT),
            // What it started itself is its own.
            ("open /proc/child/mem", Is::Done),
            (memory_of_host.as_str(), GONE),
        ];
        world.judge(&["A14", &host], &table).await;
    });
}

#[test]
fn a15_signals_stay_in_the_run() {
    row(async |world| {
        let host = world.host_pid();
        let other = world.session().await;
        let mut beside = other.start(sh("sleep 1000")).await.unwrap();
        assert!(beside.started().await);
        let session = world.session().await;
        let mut same = session.start(sh("sleep 1000")).await.unwrap();
        assert!(same.started().await);
        let pid = format!("pid={host}");
        let names = ["kill", "tgkill"].map(|call| format!("{call} {host} with "));
        let owner = format!("make {host} the owner of a pipe's signals");
        let table = [
            ("control", Is::Done),
            ("kill 1 with ", FORBIDDEN),
            ("tgkill 1 with ", FORBIDDEN),
            ("pidfd_send_signal 1", FORBIDDEN),
            // That it may be set does not mean that it arrives: the run's own report below could not come from a dead stub.
            ("make 1 the owner of a pipe's signals", Is::Done),
            (names[0].as_str(), Is::Refused(&[ESRCH])),
            (names[1].as_str(), Is::Refused(&[ESRCH])),
            (owner.as_str(), Is::Refused(&[ESRCH])),
            ("kill everybody", Is::Refused(&[ESRCH])),
        ];
        let told = world.attack(&session, &["A15", &pid]).await;
        told.judge(&table);
        assert!(matches!(state(host.cast_signed()), Some('S' | 'R')));
        for (mut execution, session) in [(beside, other), (same, session)] {
            execution.kill("done").await;
            assert_eq!(execution.wait().await.cause, orien_sandbox::Cause::Killed { reason: "done".into() }, "it lived until then");
            assert!(run(&session, sh("exit 0")).await.report.success());
            world.close(session).await;
        }
    });
}
