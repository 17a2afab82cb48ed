//! Upload, download and listing, against a workspace full of traps.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use orien_sandbox::{FileError, Files, Kind, PathError, SessionLimits, WorkPath};

use crate::support::{Ground, builder, run, sh};

fn path(name: &str) -> WorkPath {
    WorkPath::parse(name).unwrap()
}

async fn put(files: &Files, name: &str, content: &[u8]) -> Result<u64, FileError> {
    let mut upload = files.create_write(&path(name), false, content.len() as u64).await?;
    upload.write(content.to_vec()).await?;
    Ok(upload.commit().await?.0)
}

async fn get(files: &Files, name: &str) -> Result<Vec<u8>, FileError> {
    let mut file = files.open_read(&path(name)).await?;
    let mut content = Vec::new();
    while let Some(block) = file.next(1000).await? {
        content.extend_from_slice(&block);
    }
    assert_eq!(file.hash().unwrap(), *blake3::hash(&content).as_bytes());
    Ok(content)
}

#[tokio::test]
async fn what_is_uploaded_is_what_a_tool_sees_and_what_is_downloaded() {
    let ground = Ground::new().await;
    let session = ground.session_of(builder()).await;
    let files = session.files();
    assert_eq!(put(&files, "/workspace/src/deep/in.txt", b"hello").await.unwrap(), 5);
    let done = run(&session, sh("tr a-z A-Z < src/deep/in.txt > out.txt")).await;
    assert!(done.report.success());
    assert_eq!(get(&files, "out.txt").await.unwrap(), b"HELLO");
    put(&files, "out.txt", b"replaced").await.unwrap();
    assert_eq!(get(&files, "out.txt").await.unwrap(), b"replaced");

    let mut script = files.create_write(&path("run.sh"), true, 100).await.unwrap();
    script.write(b"#!/bin/sh\nexit 9\n".to_vec()).await.unwrap();
    script.commit().await.unwrap();
    assert!(files.stat(&path("run.sh")).await.unwrap().0.executable);
    assert_eq!(run(&session, sh("./run.sh; echo $?")).await.text(), "9\n");
    session.close().await.unwrap();
}

#[tokio::test]
async fn an_upload_is_there_whole_or_not_at_all() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    let mut upload = files.create_write(&path("a"), false, 10).await.unwrap();
    upload.write(b"12345".to_vec()).await.unwrap();
    assert!(matches!(files.stat(&path("a")).await, Err(FileError::Missing)));
    assert!(matches!(upload.write(b"678901".to_vec()).await, Err(FileError::TooLarge { limit: 10 })));
    assert_eq!(upload.written(), 5);
    drop(upload);
    let staging = ground.sandbox.root().join("session/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    assert!(files.list(None, None, 10).await.unwrap().entries.is_empty());
    session.close().await.unwrap();
}

#[tokio::test]
async fn uploads_cannot_exceed_the_workspace() {
    let ground = Ground::new().await;
    let limits = SessionLimits { workspace_bytes: 100_000, ..SessionLimits::default() };
    let session = ground.session_within(limits).await;
    let files = session.files();
    for announced in [100_001, u64::MAX] {
        assert!(matches!(files.create_write(&path("a"), false, announced).await, Err(FileError::WorkspaceFull)));
    }
    std::fs::write(ground.work().join("b"), [1; 200_000]).unwrap();
    assert!(matches!(put(&files, "c", b"x").await, Err(FileError::WorkspaceFull)));
    files.remove(&path("b")).await.unwrap();
    put(&files, "c", b"x").await.unwrap();
    session.close().await.unwrap();
}

fn set_traps(work: &Path) {
    std::fs::write(work.join("secret"), "outside").unwrap();
    std::fs::rename(work.join("secret"), work.with_file_name("secret")).unwrap();
    symlink("/etc/passwd", work.join("passwd")).unwrap();
    symlink("/etc", work.join("etc")).unwrap();
    symlink("../secret", work.join("up")).unwrap();
    symlink("/proc/self/root", work.join("root")).unwrap();
    std::fs::write(work.join("file"), "x").unwrap();
    std::fs::write(work.join("twin"), "x").unwrap();
    std::fs::hard_link(work.join("twin"), work.join("twin2")).unwrap();
    std::fs::create_dir(work.join("directory")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, work.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(work.join("socket")).unwrap();
    drop(socket);
}

#[tokio::test]
async fn every_trick_with_a_path_is_refused_with_its_own_error() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    set_traps(&ground.work());
    // As a tool would have made it, which is never as root.
    let owner = std::fs::metadata(ground.work()).unwrap();
    std::os::unix::fs::chown(ground.work().join("directory"), Some(owner.uid()), Some(owner.gid())).unwrap();
    let files = session.files();
    for link in ["passwd", "etc/passwd", "up", "root/etc/passwd"] {
        assert!(matches!(get(&files, link).await, Err(FileError::Link)), "{link}");
    }
    for special in ["fifo", "socket"] {
        assert!(matches!(get(&files, special).await, Err(FileError::NotRegular)), "{special}");
    }
    assert!(matches!(get(&files, "twin").await, Err(FileError::HardLinked)));
    assert!(matches!(get(&files, "directory").await, Err(FileError::IsDirectory)));
    assert!(matches!(get(&files, "file/inner").await, Err(FileError::NotDirectory)));
    assert!(matches!(get(&files, "none").await, Err(FileError::Missing)));

    assert!(matches!(put(&files, "etc/new", b"x").await, Err(FileError::Link)));
    assert!(matches!(put(&files, "root/tmp/new", b"x").await, Err(FileError::Link)));
    assert!(matches!(put(&files, "file/new", b"x").await, Err(FileError::NotDirectory)));
    assert!(matches!(put(&files, "directory", b"x").await, Err(FileError::IsDirectory)));
    assert!(matches!(files.list(Some(&path("etc")), None, 10).await, Err(FileError::Link)));
    assert!(matches!(files.remove(&path("etc/passwd")).await, Err(FileError::Link)));
    assert!(matches!(Files::validate_path("../secret"), Err(PathError::Parent)));
    assert!(matches!(Files::validate_path("/etc/passwd"), Err(PathError::Absolute)));

    put(&files, "passwd", b"mine").await.unwrap();
    assert_eq!(get(&files, "passwd").await.unwrap(), b"mine", "a link is replaced, not followed");
    put(&files, "fifo", b"mine").await.unwrap();
    files.remove(&path("up")).await.unwrap();
    files.remove(&path("etc")).await.unwrap();
    files.remove(&path("directory")).await.unwrap();
    assert!(std::fs::read_to_string("/etc/passwd").unwrap().contains("root"));
    assert_eq!(std::fs::read(ground.sandbox.root().join("session/secret")).unwrap(), b"outside");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_directory_that_becomes_a_link_during_an_upload_is_not_followed() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    let outside = tempfile::tempdir().unwrap();
    let mut upload = files.create_write(&path("d/file"), false, 10).await.unwrap();
    upload.write(b"x".to_vec()).await.unwrap();
    std::fs::remove_dir(ground.work().join("d")).unwrap();
    symlink(outside.path(), ground.work().join("d")).unwrap();
    assert!(matches!(upload.commit().await, Err(FileError::Link)));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_workspace_that_swaps_files_for_links_all_the_time_is_never_left() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    let swap = "while :; do echo mine > t; mv t a; ln -s /etc/passwd l; mv l a; \
                mkdir -p d; echo mine > d/f; mv d e; ln -s /etc d; rm d; rm -r e; done 2>/dev/null";
    let execution = session.start(sh(swap)).await.unwrap();
    for _ in 0..500 {
        for name in ["a", "d/f", "d/passwd"] {
            if let Ok(content) = get(&files, name).await {
                assert!(content.is_empty() || content == b"mine\n");
            }
        }
        let _ = put(&files, "d/orien-escaped", b"x").await;
    }
    assert!(!Path::new("/etc/orien-escaped").exists());
    drop(execution);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_listing_is_the_beginning_of_all_however_much_more_there_is() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let work = ground.work();
    let mut all = Vec::new();
    for folder in 0..20 {
        all.push(format!("d{folder:02}"));
        std::fs::create_dir(work.join(format!("d{folder:02}"))).unwrap();
        // Not in order, and more than twice of what is asked for below.
        for file in (0..50).rev() {
            std::fs::write(work.join(format!("d{folder:02}/{file:02}")), "").unwrap();
        }
        all.extend((0..50).map(|file| format!("d{folder:02}/{file:02}")));
    }
    for (limit, more) in [(1, true), (7, true), (20, true), (60, true), (1019, true), (1020, false), (5000, false)] {
        let listing = session.files().list(None, None, limit).await.unwrap();
        let paths: Vec<String> = listing.entries.iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!((&paths[..], listing.truncated), (&all[..limit.min(all.len())], more), "{limit}");
    }
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_listing_is_ordered_bounded_and_shows_what_things_are() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    set_traps(&ground.work());
    put(&files, "b/two", b"22").await.unwrap();
    put(&files, "b/one", b"1").await.unwrap();
    std::fs::write(ground.work().join("b/line\nbreak"), "").unwrap();
    std::fs::create_dir(ground.work().join("shut")).unwrap();
    std::fs::set_permissions(ground.work().join("shut"), std::fs::Permissions::from_mode(0o0)).unwrap();

    let listing = files.list(Some(&path("b")), None, 10).await.unwrap();
    let seen: Vec<_> = listing.entries.iter().map(|entry| (entry.path.as_str(), entry.size, entry.kind)).collect();
    assert_eq!(seen, [("b/one", 1, Kind::File), ("b/two", 2, Kind::File)]);
    assert_eq!((listing.unnameable, listing.truncated), (1, false));

    let all = files.list(None, None, 100).await.unwrap();
    let kind = |name: &str| all.entries.iter().find(|entry| entry.path.as_str() == name).map(|entry| entry.kind);
    assert_eq!(kind("b"), Some(Kind::Directory));
    assert_eq!(kind("etc"), Some(Kind::Link));
    assert_eq!(kind("fifo"), Some(Kind::Other));
    assert_eq!(kind("shut"), Some(Kind::Directory));
    assert!(all.entries.iter().all(|entry| !entry.path.as_str().starts_with("etc/")));
    let few = files.list(None, None, 3).await.unwrap();
    assert_eq!((few.entries.len(), few.truncated), (3, true));
    session.close().await.unwrap();
    assert!(files.list(None, None, 3).await.is_err() || files.list(None, None, 3).await.unwrap().entries.is_empty());
}
