//! Files: too many, too large, too deep, too stubborn; in memory, where the file system itself says no, and on disk.

use std::time::Instant;

use libc::{EFBIG, EINVAL, ENAMETOOLONG, ENOSPC, EPERM, SIGXFSZ};
use orien_sandbox::{Cause, SessionLimits, Storage};

use crate::verdict::Is;
use crate::world::{PATIENCE, row, run};

const FULL: Is = Is::Refused(&[ENOSPC]);

#[test]
fn b16_a_full_workspace_says_so_and_is_only_its_own() {
    row(async |world| {
        let other = world.session().await;
        let told = world.judge(&["B16"], &[("control", Is::Done), ("bytes in ", FULL), ("write again", Is::Done)]).await;
        for place in ["/workspace", "/tmp", "/dev/shm", "/var/tmp"] {
            let count = told.of(&format!("bytes in {place}")).count.unwrap();
            assert!((60 << 20..=64 << 20).contains(&count), "{place}: {count}");
        }
        assert!(run(&other, crate::world::sh("head -c 1000000 /dev/zero > file")).await.report.success());
        world.close(other).await;
    });
}

#[test]
fn b16_a_disk_that_is_filled_ends_the_run() {
    row(async |world| {
        let session = world.on_disk().await;
        let done = run(&session, world.spec(&["B16"])).await;
        assert_eq!(done.report.cause, Cause::DiskLimit);
        world.close(session).await;
    });
}

#[test]
fn b17_many_files_end_at_the_limit_and_go_quickly() {
    row(async |world| {
        let session = world.session().await;
        let told = world.attack(&session, &["B17"]).await;
        told.judge(&[("files in ", FULL)]);
        let count = told.of("files in /tmp").count.unwrap() + told.of("files in /workspace").count.unwrap();
        assert!((4000..4096).contains(&count), "{count} of 4096");
        let begun = Instant::now();
        world.close(session).await;
        println!("B17: a session with {count} files in memory was closed in {:?}", begun.elapsed());
        let session = world.on_disk().await;
        let done = run(&session, world.spec(&["B17"])).await;
        assert_eq!(done.report.cause, Cause::DiskLimit);
        let begun = Instant::now();
        world.close(session).await;
        println!("B17: one on disk in {:?}", begun.elapsed());
        assert!(begun.elapsed() < PATIENCE / 2);
    });
}

#[test]
fn b18_no_depth_is_too_deep_to_be_removed() {
    row(async |world| {
        let session = world.session().await;
        let told = world.attack(&session, &["B18"]).await;
        told.judge(&[("directories in each other", FULL), ("a file at the bottom", FULL)]);
        world.close(session).await;
        let limits = SessionLimits { workspace_bytes: 4 << 30, workspace_entries: 200_000, parallel_runs: 1 };
        let session = world.session_of(Storage::Disk, limits, world.profile()).await;
        let done = run(&session, world.spec(&["B18", "depth=100000"])).await;
        // What is too deep to be measured is too much.
        assert_eq!(done.report.cause, Cause::DiskLimit);
        let begun = Instant::now();
        world.close(session).await;
        println!("B18: as deep as it got on disk until it was seen, removed in {:?}", begun.elapsed());
    });
}

#[test]
fn b19_what_resists_is_removed() {
    row(async |world| {
        let table = [
            ("a name of 256 bytes", Is::Refused(&[ENAMETOOLONG])),
            ("immutable", Is::Refused(&[EPERM])),
            ("append only", Is::Refused(&[EPERM])),
            ("capabilities of a file", Is::Refused(&[EINVAL, EPERM])),
            ("", Is::Done),
        ];
        for session in [world.session().await, world.on_disk().await] {
            let told = world.attack(&session, &["B19"]).await;
            told.judge(&table);
            let listing = session.files().list(None, None, 1000).await.unwrap();
            assert!(listing.unnameable >= 3 && !listing.truncated, "{listing:?}");
            world.close(session).await;
        }
    });
}

#[test]
fn b20_no_file_is_larger_than_its_limit() {
    row(async |world| {
        let table = [
            ("control", Is::Done),
            ("a file", Is::Done),
            ("1 TiB without content, in a tool that ignores nothing", Is::Killed(SIGXFSZ)),
            ("1 TiB without content", Is::Refused(&[EFBIG])),
            ("a byte at 1 TiB", Is::Refused(&[EFBIG])),
            ("1 TiB allocated", Is::Refused(&[EFBIG])),
            ("1 GiB allocated", Is::Refused(&[EFBIG])),
            ("length in the end", Is::Done),
        ];
        for session in [world.session().await, world.on_disk().await] {
            let told = world.attack(&session, &["B20"]).await;
            told.judge(&table);
            assert_eq!(told.of("length in the end").count, Some(0));
            world.close(session).await;
        }
    });
}
