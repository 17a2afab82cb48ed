//! What is counted: memory of every kind, descriptors, watches, limits, priorities, cores, clocks.

use std::time::Duration;

use libc::{EACCES, EAGAIN, EFBIG, ELOOP, EMFILE, ENOMEM, ENOSPC, EPERM, SIGABRT};
use orien_sandbox::{Cause, SessionLimits, Storage};

use crate::verdict::{Is, Told};
use crate::world::{row, run, small};

const FORBIDDEN: Is = Is::Refused(&[EPERM]);

#[test]
fn b03_memory_of_every_kind_has_an_end() {
    row(async |world| {
        let limits = SessionLimits { parallel_runs: 1, ..small() };
        let session = world.session_of(Storage::Memory, limits, world.profile()).await;
        let kinds: [(&str, &'static [i32], u64); 7] = [
            ("private", &[ENOMEM], 256 << 20),
            ("tmpfs", &[ENOSPC], 64 << 20),
            ("memfd", &[EMFILE, ENOMEM], 256 << 20),
            ("pipes", &[EPERM, EMFILE], 256 << 20),
            ("sockets", &[EMFILE], 256 << 20),
            ("shm", &[EPERM], 0),
            ("cache", &[EFBIG, ENOSPC], 64 << 20),
        ];
        for (how, errors, most) in kinds {
            let mut spec = world.spec(&["B03", &format!("how={how}"), "bytes=1073741824"]);
            spec.limits.file_bytes = 128 << 20;
            let done = run(&session, spec).await;
            if done.report.cause == Cause::MemoryLimit {
                continue;
            }
            assert!(done.report.success(), "{how}: {:?}", done.report);
            let told = Told::read(&done.stdout);
            told.judge(&[(how, Is::Refused(errors))]);
            assert!(told.of(how).count.unwrap_or(0) <= most, "{told:#?}");
        }
        // What no limit of the kernel counts is seen by sampling.
        for how in ["how=shared", "how=family"] {
            let report = run(&session, world.spec(&["B03", how, "bytes=4294967296"])).await.report;
            assert_eq!(report.cause, Cause::MemoryLimit, "{how}");
            println!("B03: {how} was seen at {} MiB of 256", report.usage.peak_memory_bytes >> 20);
        }
        world.close(session).await;
    });
}

#[test]
fn b21_descriptors_watches_timers_and_locks_have_an_end() {
    row(async |world| {
        let table = [
            ("descriptors", Is::Refused(&[EMFILE])),
            ("watchers", Is::Refused(&[EMFILE])),
            ("watches", Is::Refused(&[ENOSPC])),
            ("event queues in each other", Is::Refused(&[ELOOP])),
            ("timers", Is::Refused(&[EAGAIN])),
            ("a file to lock", Is::Done),
            // Cheap, and gone with the process.
            ("locks", Is::Aside),
            ("open a file again", Is::Done),
        ];
        let told = world.judge(&["B21"], &table).await;
        assert!(told.of("descriptors").count.unwrap() < 256);
        // Some of what is to be watched is not this user's to look at, and counted as well.
        assert!(told.of("watchers").count.unwrap() <= 128 && told.of("watches").count.unwrap() < 20_000, "{told:#?}");
        assert!(told.of("timers").count.unwrap() <= 1024);
    });
}

#[test]
fn b22_no_limit_and_no_priority_is_raised() {
    row(async |world| {
        let table = [("nice -20", Is::Refused(&[EACCES, EPERM])), ("all memory locked", Is::Refused(&[ENOMEM, EPERM])), ("", FORBIDDEN)];
        world.judge(&["B22"], &table).await;
    });
}

#[test]
fn b23_no_core_is_left() {
    row(async |world| {
        let table = [("unlimited cores", FORBIDDEN), ("a process of 128 MiB aborts", Is::Killed(SIGABRT)), ("a core was left", Is::Not)];
        world.judge(&["B23"], &table).await;
    });
}

#[test]
fn b26_the_clock_is_not_set_and_the_deadline_is_kept() {
    row(async |world| {
        let session = world.session().await;
        let mut spec = world.spec(&["B26", "sleep=1000"]);
        spec.limits.wall = Duration::from_millis(500);
        let done = run(&session, spec).await;
        assert_eq!(done.report.cause, Cause::TimedOut);
        Told::read(&done.stdout).judge(&[("", FORBIDDEN)]);
        world.close(session).await;
    });
}
