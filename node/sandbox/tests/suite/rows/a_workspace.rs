//! The node's own way into a workspace, while a tool works against it.

use std::time::Duration;

use orien_sandbox::{Execution, FileError, Files, PathError, SessionSandbox, StartError, WorkPath};

use crate::world::{PATIENCE, World, python, row, run, sh, tells_secret};

/// Enough for a race that is there to be lost.
const ROUNDS: usize = 1000;
/// Where the tool hardly gets a processor.
const ROUNDS_MAX: usize = 50 * ROUNDS;

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
    while let Some(block) = file.next(1 << 20).await? {
        content.extend_from_slice(&block);
    }
    Ok(content)
}

/// The tool has said so.
async fn begun(tool: &mut Execution) {
    assert_eq!(&tool.output().unwrap().recv().await.unwrap().bytes[..], b"begun\n");
}

/// In memory and on disk: the one is another mount, the other lies among the host's files.
async fn both(world: &World, test: impl AsyncFn(&SessionSandbox)) {
    for session in [world.session().await, world.on_disk().await] {
        test(&session).await;
        world.close(session).await;
    }
}

#[test]
fn a04_links_are_not_followed_by_downloads() {
    row(async |world| {
        both(world, async |session| {
            let (canary, host) = (world.canary(), world.path("host"));
            let links =
                format!("ln -s {canary} a; ln -s /etc/shadow b; ln -s /proc/1/root c; ln -s {host} d; ln -s /proc/self/fd e; ln -s a f");
            assert!(run(session, sh(&links)).await.report.success());
            for name in ["a", "b", "c", "d", "e", "f", "d/canary", "c/etc/passwd", "d/below/canary", "e/0"] {
                assert!(matches!(get(&session.files(), name).await, Err(FileError::Link)), "{name}");
            }
            for name in ["d/new", "d/below/new", "c/tmp/new"] {
                assert!(matches!(put(&session.files(), name, b"x").await, Err(FileError::Link)), "{name}");
            }
            let listing = session.files().list(None, None, 100).await.unwrap();
            assert_eq!(listing.entries.len(), 6, "links are listed, and not entered: {listing:?}");
            session.files().remove(&path("d")).await.unwrap();
        })
        .await;
    });
}

#[test]
fn a05_a_file_that_becomes_a_link_all_the_time_leads_nowhere() {
    row(async |world| {
        both(world, async |session| {
            let swap = format!(
                "import os\nopen('good', 'w').write('good')\nprint('begun', flush=True)\nwhile True:\n os.symlink('{}', 'new'); os.rename('new', 'file')\n \
                 os.link('good', 'new'); os.rename('new', 'file')\n open('new', 'w').write('good'); os.rename('new', 'file')\n",
                world.canary()
            );
            let mut tool = session.start(python(&swap)).await.unwrap();
            begun(&mut tool).await;
            let files = session.files();
            let mut met = [0_usize; 3];
            for round in 0..ROUNDS_MAX {
                if round >= ROUNDS && met[0] > 0 && met[1] > 0 {
                    break;
                }
                match get(&files, "file").await {
                    Ok(content) => {
                        assert!(!tells_secret(&content) && content.len() <= 4, "{content:?}");
                        met[0] += 1;
                    }
                    Err(FileError::Link) => met[1] += 1,
                    Err(FileError::Missing | FileError::HardLinked) => met[2] += 1,
                    Err(other) => panic!("{other}"),
                }
                if round % 2 == 0 {
                    assert_eq!(put(&files, "file", b"good").await.unwrap(), 4, "an upload replaces what is there");
                }
            }
            assert!(met[0] > 0 && met[1] > 0, "both were met: {met:?}");
            drop(tool);
        })
        .await;
    });
}

#[test]
fn a06_a_directory_that_becomes_a_link_during_an_upload_leads_nowhere() {
    row(async |world| {
        both(world, async |session| {
            // Each at once, so that there is always one of them, and never nothing for an upload to fill in.
            let swap = format!(
                "import ctypes, os\nos.mkdir('way'); os.symlink('{}', 'link'); C = ctypes.CDLL(None)\nprint('begun', flush=True)\n\
                 while True: C.renameat2(-100, b'way', -100, b'link', 2)\n",
                world.path("host")
            );
            let mut tool = session.start(python(&swap)).await.unwrap();
            begun(&mut tool).await;
            let files = session.files();
            let mut met = [0_usize; 2];
            for round in 0..ROUNDS_MAX {
                if round >= ROUNDS && met[0] > 0 && met[1] > 0 {
                    break;
                }
                match put(&files, "way/below/file", b"good").await {
                    Ok(_) => met[0] += 1,
                    Err(FileError::Link | FileError::Missing | FileError::NotDirectory) => met[1] += 1,
                    Err(other) => panic!("{other}"),
                }
                if let Ok(content) = get(&files, "way/canary").await {
                    panic!("{content:?}");
                }
            }
            assert!(met[0] > 0 && met[1] > 0, "both were met: {met:?}");
            drop(tool);
        })
        .await;
    });
}

#[test]
fn a07_names_that_are_no_names_are_refused_before_any_call() {
    row(async |world| {
        let (part, long, deep) = ("n".repeat(256), "n/".repeat(2048), vec!["n"; 33].join("/"));
        let tricks = [
            ("../x", PathError::Parent),
            ("/x", PathError::Absolute),
            ("a/../../x", PathError::Parent),
            ("/workspace/../x", PathError::Parent),
            ("/workspace//etc/passwd", PathError::Absolute),
            ("", PathError::Empty),
            ("/workspace", PathError::Empty),
            (".", PathError::Part),
            ("a/./b", PathError::Part),
            ("a//b", PathError::Part),
            ("a\0b", PathError::Nul),
            ("a\nb", PathError::Control),
            ("a\u{1b}[2Jb", PathError::Control),
            (&part, PathError::PartTooLong),
            (&long, PathError::TooLong),
            (&deep, PathError::TooDeep),
        ];
        for (name, error) in tricks {
            assert_eq!(Files::validate_path(name), Err(error), "{name:?}");
        }
        assert_eq!(WorkPath::parse_bytes(b"a\xff"), Err(PathError::NotUtf8));
        // What is odd but a name is one, and stays inside.
        both(world, async |session| {
            for name in ["..a", "-rf", "a b", "*", "$(id)", "a;b", "\\", "~", "CON", "\u{202e}gnp.exe"] {
                put(&session.files(), name, b"good").await.unwrap();
                assert_eq!(get(&session.files(), name).await.unwrap(), b"good", "{name:?}");
            }
        })
        .await;
    });
}

#[test]
fn a08_what_is_no_plain_file_is_not_downloaded_and_never_waited_for() {
    row(async |world| {
        both(world, async |session| {
            let make = "
import os, socket
os.mkfifo('fifo'); socket.socket(socket.AF_UNIX).bind('socket'); os.mkdir('folder'); os.mkdir('shut')
open('file', 'w').write('x'); os.link('file', 'other')
with open('sparse', 'w') as f: f.truncate(30 << 20)
try:
    with open('tera', 'w') as f: f.truncate(1 << 40)
except OSError: pass
open('mine', 'w').write('x'); os.chmod('mine', 0); os.chmod('shut', 0)
";
            let mut making = python(make);
            making.limits.file_bytes = 32 << 20;
            // The signal of a file that is too long is python's to ignore.
            assert!(run(session, making).await.report.success());
            let files = session.files();
            let refused = async |name: &str| tokio::time::timeout(PATIENCE, files.open_read(&path(name))).await.unwrap().unwrap_err();
            assert!(matches!(refused("fifo").await, FileError::NotRegular));
            assert!(matches!(refused("socket").await, FileError::NotRegular));
            assert!(matches!(refused("folder").await, FileError::IsDirectory));
            assert!(matches!(refused("file").await, FileError::HardLinked));
            assert!(matches!(refused("other").await, FileError::HardLinked));
            assert!(matches!(refused("shut/file").await, FileError::Denied | FileError::Missing));
            assert_eq!(get(&files, "sparse").await.unwrap().len(), 30 << 20);
            assert_eq!(get(&files, "tera").await.unwrap().len(), 0, "it could not be made that long");
            // A fifo is nothing to upload into either: it is replaced.
            assert_eq!(tokio::time::timeout(PATIENCE, put(&files, "fifo", b"good")).await.unwrap().unwrap(), 4);
            assert_eq!(get(&files, "fifo").await.unwrap(), b"good");
        })
        .await;
    });
}

#[test]
fn a09_a_file_that_grows_while_it_is_downloaded_ends_where_it_began() {
    row(async |world| {
        both(world, async |session| {
            let grow = "while :; do head -c 4096 /dev/zero >> growing; done";
            let tool = session.start(sh(grow)).await.unwrap();
            let files = session.files();
            let mut sizes = Vec::new();
            while sizes.len() < 20 {
                if let Ok(mut file) = files.open_read(&path("growing")).await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let (size, mut read) = (file.size, 0);
                    while let Some(block) = file.next(1 << 20).await.unwrap() {
                        read += block.len() as u64;
                    }
                    assert_eq!(read, size);
                    sizes.push(size);
                }
                tokio::task::yield_now().await;
            }
            assert!(sizes.first() < sizes.last(), "it did grow: {sizes:?}");
            drop(tool);
        })
        .await;
    });
}

#[test]
fn a_full_workspace_takes_no_upload_and_no_run_until_there_is_room() {
    row(async |world| {
        let session = world.session().await;
        assert!(run(&session, sh("cd /tmp; for i in 1 2 3; do head -c 30000000 /dev/zero > f$i; done; exit 0")).await.report.success());
        assert!(matches!(put(&session.files(), "more", b"x").await, Err(FileError::WorkspaceFull)));
        assert!(matches!(session.start(sh("exit 0")).await, Err(StartError::WorkspaceFull)));
        world.close(session).await;
    });
}
