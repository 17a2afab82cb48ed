//! Files in and out of a workspace, and what a tool makes of them.

use orien_node::shop::{Purpose, Shop};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{FileAction, FileAnswer, FileEntry, FileRequest, TREE_PROBLEMS_LIMIT, TreeFrame, UnfinishedUpload};
use orien_protocol::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::{Agent, Wire, hash, stream_to};
use crate::kit::{Kit, agent_keys};

async fn ask(shop: &Shop, agent: &Agent<'_>, action: FileAction) -> (FileAnswer, Wire) {
    let mut stream = stream_to(shop, &agent.keys, Purpose::File);
    stream.send(&FileRequest { session: agent.session.id(), action }).await.unwrap();
    let answer = stream.recv().await.unwrap().unwrap();
    (answer, stream)
}

fn whole(path: &str, length: u64) -> FileAction {
    FileAction::Upload { path: path.to_owned(), length, executable: false, offset: 0, expected: None }
}

async fn upload(shop: &Shop, agent: &Agent<'_>, path: &str, bytes: &[u8]) -> FileAnswer {
    let action = whole(path, u64::try_from(bytes.len()).unwrap());
    let (answer, mut stream) = ask(shop, agent, action).await;
    let FileAnswer::Ready { .. } = answer else { return answer };
    // A refusal may come before all is taken.
    let _ = stream.raw().write_all(bytes).await;
    stream.recv().await.unwrap().unwrap()
}

async fn download(shop: &Shop, agent: &Agent<'_>, path: &str, offset: u64) -> Result<Vec<u8>, Fault> {
    let (answer, mut stream) =
        ask(shop, agent, FileAction::Download { path: path.to_owned(), offset, length: u64::MAX, version: None }).await;
    match answer {
        FileAnswer::Ready { length, size, .. } => {
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            stream.raw().read_exact(&mut bytes).await.unwrap();
            let whole = (length == size).then(|| hash(&bytes));
            assert_eq!(stream.recv::<FileAnswer>().await.unwrap().unwrap(), FileAnswer::Done { hash: hash(&bytes), length, whole });
            Ok(bytes)
        }
        FileAnswer::Refused(fault) => Err(fault),
        other => panic!("{other:?}"),
    }
}

async fn list(shop: &Shop, agent: &Agent<'_>) -> Vec<FileEntry> {
    match ask(shop, agent, FileAction::List { path: String::new(), after: None }).await.0 {
        FileAnswer::Listing { entries, more: false } => entries,
        other => panic!("{other:?}"),
    }
}

fn code(answer: &FileAnswer) -> Option<FaultCode> {
    if let FileAnswer::Refused(fault) = answer { Some(fault.code) } else { None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_uploaded_compiled_and_its_program_downloaded_with_the_same_hash() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 50_000_000).await;
    let source = b"#include <stdio.h>\nint main(void) { puts(\"rented\"); return 0; }\n";
    let stored = upload(&shop, &agent, "src/main.c", source).await;
    assert_eq!(stored, FileAnswer::Done { hash: hash(source), length: u64::try_from(source.len()).unwrap(), whole: Some(hash(source)) });
    let work = agent.run_to_end("compile", &[("source", "src/main.c"), ("output", "/workspace/program")]).await;
    let log = String::from_utf8(agent.log(&shop, work.execution).await.unwrap()).unwrap();
    assert!(work.outcome.unwrap().succeeded(), "{log}");
    let program = download(&shop, &agent, "program", 0).await.unwrap();
    assert!(program.starts_with(b"\x7fELF"));
    assert_eq!(download(&shop, &agent, "program", 4).await.unwrap(), program[4..]);
    let entries = list(&shop, &agent).await;
    let shown: Vec<(&str, bool, bool)> = entries.iter().map(|e| (e.path.as_str(), e.folder, e.executable)).collect();
    assert_eq!(shown, [("program", false, true), ("src", true, false), ("src/main.c", false, false)]);
    let (removed, _) = ask(&shop, &agent, FileAction::Remove { path: "src".to_owned() }).await;
    assert!(matches!(removed, FileAnswer::Done { .. }));
    assert_eq!(list(&shop, &agent).await.len(), 1);
    agent.end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_trick_with_a_path_or_a_length_has_its_own_fault_and_leaves_nothing() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    for path in ["../outside", "/etc/passwd", "a/../../b", "", "nul\0", "/workspace/../x"] {
        assert_eq!(code(&upload(&shop, &agent, path, b"x").await), Some(FaultCode::BAD_PATH), "{path:?}");
    }
    assert_eq!(download(&shop, &agent, "none", 0).await.unwrap_err().code, FaultCode::NO_SUCH_FILE);
    assert_eq!(code(&upload(&shop, &agent, "large", &vec![0; 17 << 20]).await), Some(FaultCode::WORKSPACE_FULL));
    upload(&shop, &agent, "small", b"12345").await;
    assert_eq!(download(&shop, &agent, "small", 6).await.unwrap_err().code, FaultCode::MALFORMED);
    assert_eq!(download(&shop, &agent, "small", 5).await.unwrap(), b"");
    // Hung up in the middle: nothing of it appears.
    let (_, mut stream) = ask(&shop, &agent, whole("half", 100)).await;
    stream.raw().write_all(b"half").await.unwrap();
    drop(stream);
    let names: Vec<String> = list(&shop, &agent).await.into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, ["small"]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_exists_only_for_an_open_session_and_its_own_agent() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    assert_eq!(kit.workspace_names(), Vec::<String>::new(), "made when it is first needed");
    upload(&shop, &agent, "mine", b"secret").await;
    assert_eq!(kit.workspace_names(), [agent.session.id().to_string()]);
    let work = agent.run_to_end("echo", &[("text", "secret")]).await;
    let own = std::mem::replace(&mut agent.keys, agent_keys(2));
    assert_eq!(download(&shop, &agent, "mine", 0).await.unwrap_err().code, FaultCode::NOT_FOUND);
    assert_eq!(agent.log(&shop, work.execution).await.unwrap_err().code, FaultCode::NOT_FOUND);
    agent.keys = own;
    agent.end().await;
    assert_eq!(download(&shop, &agent, "mine", 0).await.unwrap_err().code, FaultCode::WRONG_STATE);
    assert_eq!(agent.log(&shop, work.execution).await.unwrap(), b"secret\n", "the log stays for those who come late");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_broke_off_is_gone_on_with_and_hashed_as_a_whole() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let size = bytes.len() as u64;
    let (_, mut stream) = ask(&shop, &agent, whole("large", size)).await;
    stream.raw().write_all(&bytes[..700_001]).await.unwrap();
    drop(stream);
    let held = loop {
        match ask(&shop, &agent, FileAction::Unfinished).await.0 {
            FileAnswer::Unfinished(uploads) if uploads.is_empty() => tokio::task::yield_now().await,
            FileAnswer::Unfinished(uploads) => break uploads[0].clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(held, UnfinishedUpload { path: "large".to_owned(), held: 700_001, size });
    let go_on =
        |offset: u64, expected| FileAction::Upload { path: "large".to_owned(), length: size - offset, executable: false, offset, expected };
    assert_eq!(code(&ask(&shop, &agent, go_on(700_000, None)).await.0), Some(FaultCode::WRONG_OFFSET));
    let (ready, mut stream) = ask(&shop, &agent, go_on(700_001, Some(hash(&bytes)))).await;
    assert_eq!(ready, FileAnswer::Ready { length: size - 700_001, size, version: 0 });
    stream.raw().write_all(&bytes[700_001..]).await.unwrap();
    let done = FileAnswer::Done { hash: hash(&bytes[700_001..]), length: size - 700_001, whole: Some(hash(&bytes)) };
    assert_eq!(stream.recv::<FileAnswer>().await.unwrap().unwrap(), done);
    assert_eq!(download(&shop, &agent, "large", 0).await.unwrap(), bytes);

    let expecting = FileAction::Upload { path: "other".to_owned(), length: 3, executable: false, offset: 0, expected: Some(hash(b"abc")) };
    let (_, mut stream) = ask(&shop, &agent, expecting).await;
    stream.raw().write_all(b"abd").await.unwrap();
    assert_eq!(code(&stream.recv().await.unwrap().unwrap()), Some(FaultCode::HASH_MISMATCH));
    assert_eq!(download(&shop, &agent, "other", 0).await.unwrap_err().code, FaultCode::NO_SUCH_FILE);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_of_the_state_that_was_asked_for_or_refused() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    upload(&shop, &agent, "a", b"0123456789").await;
    let stat = FileAction::Stat { path: "a".to_owned(), hash: true };
    let FileAnswer::Stat { entry, version, hash: Some(found) } = ask(&shop, &agent, stat.clone()).await.0 else { panic!("no stat") };
    assert_eq!((entry.size, found), (10, hash(b"0123456789")));
    let part = |version| FileAction::Download { path: "a".to_owned(), offset: 2, length: 3, version: Some(version) };
    let (ready, mut stream) = ask(&shop, &agent, part(version)).await;
    assert_eq!(ready, FileAnswer::Ready { length: 3, size: 10, version });
    let mut bytes = [0; 3];
    stream.raw().read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"234");
    upload(&shop, &agent, "a", b"9876543210").await;
    assert_eq!(code(&ask(&shop, &agent, part(version)).await.0), Some(FaultCode::FILE_CHANGED));
    let FileAnswer::Stat { version: newer, .. } = ask(&shop, &agent, stat).await.0 else { panic!("no stat") };
    assert_ne!(version, newer);
    shop.close().await;
}

fn small(path: &str, bytes: &[u8]) -> TreeFrame {
    TreeFrame::Small {
        path: path.to_owned(),
        executable: path.ends_with(".sh"),
        modified: Timestamp(0),
        bytes: bytes.to_vec(),
        hash: hash(bytes),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_goes_in_and_out_in_one_stream_each_and_faults_stand_for_themselves() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let large: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    let (_, mut stream) = ask(&shop, &agent, FileAction::Unpack { path: "in/tree".to_owned() }).await;
    let announced = |path: &str, length: usize| TreeFrame::Large {
        path: path.to_owned(),
        executable: false,
        modified: Timestamp(0),
        length: length as u64,
    };
    stream.send(&TreeFrame::Folder { path: "empty".to_owned(), modified: Timestamp(0) }).await.unwrap();
    stream.send(&small("src/run.sh", b"#!/bin/sh")).await.unwrap();
    for (path, sum) in [("large", hash(&large)), ("altered", hash(b"other")), ("../out", hash(&large))] {
        stream.send(&announced(path, large.len())).await.unwrap();
        stream.raw().write_all(&large).await.unwrap();
        stream.send(&TreeFrame::Sum(sum)).await.unwrap();
    }
    for index in 0..30 {
        stream.send(&small(&format!("../up{index}"), b"x")).await.unwrap();
    }
    stream.send(&small("last", b"")).await.unwrap();
    stream.send(&TreeFrame::End).await.unwrap();
    let FileAnswer::Unpacked { files, folders, bytes, problems, more } = stream.recv().await.unwrap().unwrap() else { panic!("refused") };
    assert_eq!((files, folders, bytes), (3, 1, large.len() as u64 + 9));
    assert_eq!((problems.len() as u64 + more, problems.len()), (32, TREE_PROBLEMS_LIMIT));
    let shown: Vec<_> = problems[..3].iter().map(|problem| (problem.path.as_str(), problem.fault.code)).collect();
    assert_eq!(shown, [("altered", FaultCode::HASH_MISMATCH), ("../out", FaultCode::BAD_PATH), ("../up0", FaultCode::BAD_PATH)]);

    let (_, mut stream) = ask(&shop, &agent, FileAction::Pack { path: "in".to_owned() }).await;
    let mut seen = Vec::new();
    loop {
        match stream.recv::<TreeFrame>().await.unwrap().unwrap() {
            TreeFrame::End => break,
            TreeFrame::Folder { path, .. } => seen.push(path),
            TreeFrame::Small { path, executable, bytes, hash: sum, .. } => {
                assert_eq!((hash(&bytes), executable), (sum, path.ends_with(".sh")));
                seen.push(path);
            }
            TreeFrame::Large { path, length, .. } => {
                let mut bytes = vec![0; usize::try_from(length).unwrap()];
                stream.raw().read_exact(&mut bytes).await.unwrap();
                assert!(bytes == large);
                assert_eq!(stream.recv::<TreeFrame>().await.unwrap().unwrap(), TreeFrame::Sum(hash(&large)));
                seen.push(path);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["tree", "tree/empty", "tree/large", "tree/last", "tree/src", "tree/src/run.sh"]);
    assert_eq!(code(&ask(&shop, &agent, FileAction::Pack { path: "none".to_owned() }).await.0), Some(FaultCode::NO_SUCH_FILE));
    shop.close().await;
}
