//! Uploads that break off, run side by side or find no room, and many small files at once.

use orien_sandbox::{FileError, Files, Item, SessionLimits, Small, WorkPath};

use crate::support::Ground;

fn path(name: &str) -> WorkPath {
    WorkPath::parse(name).unwrap()
}

async fn begin(files: &Files, name: &str, size: u64, bytes: &[u8]) {
    let mut upload = files.create_write(&path(name), false, size).await.unwrap();
    upload.write(bytes.to_vec()).await.unwrap();
    upload.keep().await;
}

async fn content(files: &Files, name: &str) -> Result<Vec<u8>, FileError> {
    Ok(files.load_small(vec![path(name)], 1 << 20).await?.remove(0)?.bytes)
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_where_it_ended_and_has_the_hash_of_the_whole() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    begin(&files, "d/a", 10, b"12345").await;
    assert_eq!(files.unfinished(), [(path("d/a"), 5, 10)]);
    assert!(matches!(files.stat(&path("d/a")).await, Err(FileError::Missing)));
    for (offset, size) in [(4, 10), (6, 10), (5, 11)] {
        let refused = files.resume_write(&path("d/a"), false, offset, size).await;
        assert!(matches!(refused, Err(FileError::WrongOffset { held: 5, size: 10 })), "{offset} of {size}");
    }
    let mut upload = files.resume_write(&path("d/a"), false, 5, 10).await.unwrap();
    assert_eq!(files.unfinished(), []);
    upload.write(b"67890".to_vec()).await.unwrap();
    assert_eq!(upload.commit().await.unwrap(), (10, *blake3::hash(b"1234567890").as_bytes()));
    assert_eq!(content(&files, "d/a").await.unwrap(), b"1234567890");
    assert!(matches!(files.resume_write(&path("d/a"), false, 5, 10).await, Err(FileError::NothingToResume)));
    session.close().await.unwrap();
}

#[tokio::test]
async fn an_upload_that_broke_off_is_forgotten_when_another_begins_there_or_it_is_removed() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    begin(&files, "a", 10, b"12345").await;
    begin(&files, "a", 10, b"abc").await;
    assert_eq!(files.unfinished(), [(path("a"), 3, 10)]);
    files.remove(&path("a")).await.unwrap();
    assert!(files.unfinished().is_empty());
    assert!(matches!(files.remove(&path("a")).await, Err(FileError::Missing)));
    let staging = ground.sandbox.root().join("session/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0);
    session.close().await.unwrap();
}

#[tokio::test]
async fn uploads_of_one_session_are_bounded_under_way_and_kept() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    let mut under_way = Vec::new();
    let refused = loop {
        match files.create_write(&path(&format!("f{}", under_way.len())), false, 10).await {
            Ok(upload) => under_way.push(upload),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, FileError::TooManyUploads { limit } if limit == under_way.len()), "{refused}");
    under_way.pop();
    files.create_write(&path("again"), false, 10).await.unwrap();
    drop(under_way);
    for index in 0..40 {
        begin(&files, &format!("kept{index}"), 10, b"12345").await;
    }
    let kept = files.unfinished();
    assert_eq!((kept.len(), kept.last()), (16, Some(&(path("kept39"), 5, 10))));
    let staging = ground.sandbox.root().join("session/staging");
    assert_eq!(std::fs::read_dir(staging).unwrap().count(), 16, "the oldest are gone from the disk too");
    session.close().await.unwrap();
}

#[tokio::test]
async fn uploads_side_by_side_share_the_room_that_there_is() {
    let ground = Ground::new().await;
    let limits = SessionLimits { workspace_bytes: 1_000_000, ..SessionLimits::default() };
    let session = ground.session_within(limits).await;
    let files = session.files();
    let first = files.create_write(&path("a"), false, 600_000).await.unwrap();
    assert!(matches!(files.create_write(&path("b"), false, 600_000).await, Err(FileError::WorkspaceFull)));
    drop(first);
    let mut second = files.create_write(&path("b"), false, 600_000).await.unwrap();
    second.write(vec![1; 500_000]).await.unwrap();
    second.keep().await;
    // What broke off makes way for what comes.
    let third = files.create_write(&path("c"), false, 600_000).await.unwrap();
    assert!(files.unfinished().is_empty());
    drop(third);
    session.close().await.unwrap();
}

#[tokio::test]
async fn many_small_files_are_stored_and_read_at_once_and_each_stands_for_itself() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    std::fs::write(ground.work().join("file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", ground.work().join("etc")).unwrap();
    let small = |name: &str, executable| Item::File(Small { path: path(name), executable, bytes: name.as_bytes().to_vec() });
    let items = vec![
        Item::Directory(path("empty/deep")),
        small("src/a", false),
        small("src/run", true),
        small("file/inside", false),
        small("etc/orien-escaped", false),
        Item::Directory(path("file")),
    ];
    let stored = files.store_small(items).await.unwrap();
    assert!(matches!(
        stored[..],
        [Ok(()), Ok(()), Ok(()), Err(FileError::NotDirectory), Err(FileError::Link), Err(FileError::NotDirectory)]
    ));
    let paths = ["src/run", "src/a", "etc/passwd", "none"].map(path).to_vec();
    let loaded = files.load_small(paths.clone(), 7).await.unwrap();
    assert!(matches!(&loaded[0], Ok(small) if small.executable && small.bytes == b"src/run"));
    assert!(matches!(&loaded[1], Ok(small) if !small.executable && small.bytes == b"src/a"));
    assert!(matches!(loaded[2..], [Err(FileError::Link), Err(FileError::Missing)]));
    assert!(matches!(files.load_small(paths, 6).await.unwrap()[0], Err(FileError::TooLarge { limit: 6 })));
    let names: Vec<_> = files.list(None, None, 100).await.unwrap().entries.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["empty", "empty/deep", "etc", "file", "src", "src/a", "src/run"]);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_listing_goes_on_after_any_entry_of_an_earlier_one() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let files = session.files();
    let items: Vec<_> = ["a/b/c", "a/b.c", "a/b-/x", "a0/y", "b"]
        .map(|name| Item::File(Small { path: path(name), executable: false, bytes: Vec::new() }))
        .to_vec();
    files.store_small(items).await.unwrap();
    let all = files.list(None, None, 100).await.unwrap().entries;
    assert_eq!(all.len(), 9);
    for limit in [1, 2, 3] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = files.list(None, after.as_ref(), limit).await.unwrap();
            seen.extend(page.entries);
            if !page.truncated {
                break;
            }
            after = seen.last().map(|entry| entry.path.clone());
        }
        assert_eq!(seen, all, "{limit} at a time");
    }
    session.close().await.unwrap();
}
