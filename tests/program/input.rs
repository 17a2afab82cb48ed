//! Input of a tool, from a client to the tool's own descriptor, through real processes that die and connections that are cut.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use orien_protocol::hash::Hash;
use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{Door, wait_for};

/// A sender's piece, and the pause after it: slow enough for something to happen in the middle.
const PIECE_BYTES: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(10);

fn start(cast: &Cast, session: &str, tool: &str, more: Value) -> Value {
    let mut body = json!({ "sessionId": session, "toolId": tool, "args": {} });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cast.gateway().post("/tools/run", &body).ok()
}

fn received(door: &Door, run: &str) -> usize {
    let at = door.get(&format!("/executions/{run}/stdin")).ok();
    usize::try_from(at["received"].as_u64().unwrap()).unwrap()
}

/// Sends the input from an offset on, slowly, until it is answered, or `enough` has been sent and the client dies.
fn send(door: &Door, run: &str, bytes: &[u8], from: usize, enough: Option<usize>) -> JoinHandle<Option<String>> {
    let address = door.base.strip_prefix("http://").unwrap().to_owned();
    let rest = bytes[from..].to_vec();
    let head = format!(
        "POST /executions/{run}/stdin?offset={from}&end=true HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        door.token,
        rest.len()
    );
    std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(head.as_bytes()).ok()?;
        let mut sent = 0;
        for piece in rest.chunks(PIECE_BYTES) {
            if enough.is_some_and(|enough| sent >= enough) {
                return None;
            }
            socket.write_all(piece).ok()?;
            sent += piece.len();
            std::thread::sleep(PAUSE);
        }
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

/// Resets every connection of a process, as a network does that fails. False where the host cannot.
fn cut_connections(pid: u32) -> bool {
    let table = Command::new("ss").args(["-t", "-n", "-p", "-H"]).output();
    let Ok(table) = table else { return false };
    let mine = format!("pid={pid},");
    let lines = String::from_utf8_lossy(&table.stdout).into_owned();
    let mut cut = 0;
    for line in lines.lines().filter(|line| line.contains(&mine)) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let killed = Command::new("ss").args(["-K", "-t", "-n", "-H", "src", words[3], "dst", words[4]]).output();
        cut += usize::from(killed.is_ok_and(|output| output.status.success() && !output.stdout.is_empty()));
    }
    cut > 0
}

#[test]
fn a_large_input_arrives_whole_although_client_gateway_and_connection_break_in_the_middle() {
    let mut cast = Cast::small();
    let session = cast.open("2");
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(|number| format!("line {number:06}\n").into_bytes()).collect();
    let run = start(&cast, &session, "upper", json!({ "stdin": { "stream": true } }))["executionId"].as_str().unwrap().to_owned();
    let mut door = cast.gateway();

    // The client dies.
    assert_eq!(send(&door, &run, &bytes, 0, Some(2_000_000)).join().unwrap(), None);
    let first = wait_for("what the dead client sent", || Some(received(&door, &run)).filter(|at| *at >= 1_500_000));
    assert!(first <= 2_000_000 + PIECE_BYTES, "{first}");

    // The gateway dies.
    let sender = send(&door, &run, &bytes, first, None);
    wait_for("some more", || (received(&door, &run) > first + 1_000_000).then_some(()));
    cast.gateways[0].kill();
    assert!(sender.join().unwrap().is_none_or(|answer| answer.is_empty()));
    cast.gateways[0].restart();
    door = cast.gateway();
    let second = wait_for("the run after the restart", || {
        let at = door.get(&format!("/executions/{run}/stdin"));
        (at.status == 200).then(|| usize::try_from(at.body["received"].as_u64().unwrap()).unwrap())
    });
    assert!(second > first + 1_000_000, "{second}");

    // The network between gateway and node fails: the sender does not even notice.
    let sender = send(&door, &run, &bytes, second, None);
    wait_for("still more", || (received(&door, &run) > second + 1_000_000).then_some(()));
    if !cut_connections(cast.nodes[0].pid()) {
        let _ = writeln!(std::io::stderr(), "NOT TESTED: this host cannot reset connections (ss -K)");
    }
    let answer = sender.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((told["received"].as_u64(), told["ended"].as_bool()), (Some(bytes.len() as u64), Some(true)));

    let done = cast.ended(&run);
    assert_eq!((done["status"].as_str(), done["exitCode"].as_i64()), (Some("completed"), Some(0)), "{done}");
    assert_eq!(done["usage"]["bytesIn"].as_u64(), Some(bytes.len() as u64), "{done}");
    let hash = Hash::of(&bytes.to_ascii_uppercase()).to_string();
    assert_eq!(done["usage"]["outputHash"].as_str(), Some(hash.as_str()), "{done}");
    let ended = cast.end(&session);
    assert_eq!(ended["status"], "completed", "{ended}");
    cast.settled(&session);
}

#[test]
fn a_short_text_needs_no_second_call_and_a_tool_that_does_not_read_it_all_is_fine() {
    let cast = Cast::small();
    let session = cast.open("2");
    let done = start(&cast, &session, "sort", json!({ "stdin": { "text": "pear\napple\nfig\n" }, "wait": 60 }));
    assert_eq!((done["status"].as_str(), done["output"].as_str()), (Some("completed"), Some("apple\nfig\npear\n")), "{done}");
    // Without any, a tool finds its input at its end.
    let done = start(&cast, &session, "sort", json!({ "wait": 60 }));
    assert_eq!((done["status"].as_str(), done["output"].as_str()), (Some("completed"), Some("")), "{done}");
    let run = start(&cast, &session, "first", json!({ "stdin": { "stream": true } }))["executionId"].as_str().unwrap().to_owned();
    let told = cast.gateway().post_bytes(&format!("/executions/{run}/stdin?end=true"), &vec![b'x'; 4 << 20]);
    assert_eq!(told.code(), "stdin_closed", "{told:?}");
    let done = cast.ended(&run);
    assert_eq!((done["status"].as_str(), done["output"].as_str()), (Some("completed"), Some("xxxxx")), "{done}");
    cast.end(&session);
    cast.settled(&session);
}
