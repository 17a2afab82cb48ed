//! Files in and out of a workspace, and what a tool makes of them.

use orien_node::shop::{Purpose, Shop};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{FileAction, FileAnswer, FileEntry, FileRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::{Agent, Wire, hash, stream_to};
use crate::kit::{Kit, agent_keys};

async fn ask(shop: &Shop, agent: &Agent<'_>, action: FileAction) -> (FileAnswer, Wire) {
    let mut stream = stream_to(shop, &agent.keys, Purpose::File);
    stream.send(&FileRequest { session: agent.session.id(), action }).await.unwrap();
    let answer = stream.recv().await.unwrap().unwrap();
    (answer, stream)
}

async fn upload(shop: &Shop, agent: &Agent<'_>, path: &str, bytes: &[u8]) -> FileAnswer {
    let action = FileAction::Upload { path: path.to_owned(), length: u64::try_from(bytes.len()).unwrap(), executable: false };
    let (answer, mut stream) = ask(shop, agent, action).await;
    let FileAnswer::Ready { .. } = answer else { return answer };
    // A refusal may come before all is taken.
    let _ = stream.raw().write_all(bytes).await;
    stream.recv().await.unwrap().unwrap()
}

async fn download(shop: &Shop, agent: &Agent<'_>, path: &str, offset: u64) -> Result<Vec<u8>, Fault> {
    let (answer, mut stream) = ask(shop, agent, FileAction::Download { path: path.to_owned(), offset }).await;
    match answer {
        FileAnswer::Ready { length } => {
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            stream.raw().read_exact(&mut bytes).await.unwrap();
            assert_eq!(stream.recv::<FileAnswer>().await.unwrap().unwrap(), FileAnswer::Done { hash: hash(&bytes), length });
            Ok(bytes)
        }
        FileAnswer::Refused(fault) => Err(fault),
        other => panic!("{other:?}"),
    }
}

async fn list(shop: &Shop, agent: &Agent<'_>) -> Vec<FileEntry> {
    match ask(shop, agent, FileAction::List { path: String::new() }).await.0 {
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
    assert_eq!(stored, FileAnswer::Done { hash: hash(source), length: u64::try_from(source.len()).unwrap() });
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
    let action = FileAction::Upload { path: "half".to_owned(), length: 100, executable: false };
    let (_, mut stream) = ask(&shop, &agent, action).await;
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
