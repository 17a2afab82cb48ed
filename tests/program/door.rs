//! The gateway's door under abuse: each attempt is refused with a status of its own, and an honest client beside it notices nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{Door, PATIENCE, Said, run, run_json, wait_for};

/// Connections that are held and ask nothing.
const IDLE: usize = 10_000;

/// An honest client: opens a connection, asks, and expects the answer, again and again.
struct Honest {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(usize, Duration)>,
}

impl Honest {
    fn begin(door: Door, session: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut asked, mut longest) = (0, Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = raw(address(&door), &request(&door, "GET", &format!("/api/sessions/{session}"), "", &door.token));
                assert!(answer.starts_with("HTTP/1.1 200"), "an honest request was answered: {answer:?}");
                (asked, longest) = (asked + 1, longest.max(begun.elapsed()));
                std::thread::sleep(Duration::from_millis(20));
            }
            (asked, longest)
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, longest) = self.thread.join().unwrap();
        assert!(asked > 0, "the honest client asked nothing; its longest answer took {longest:?}");
    }
}

fn address(door: &Door) -> SocketAddr {
    door.base.strip_prefix("http://").unwrap().parse().unwrap()
}

fn request(door: &Door, method: &str, path: &str, lines: &str, token: &str) -> String {
    let address = address(door);
    format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{lines}connection: close\r\n\r\n")
}

/// Sends bytes and gives all that comes back.
fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whoever is refused early may find the other end closed.
    let _ = stream.write_all(bytes.as_bytes());
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count) = stream.read(&mut piece) {
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn refused(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status} {code}: {answer}");
    assert!(code.is_empty() || answer.contains(&format!("\"code\":\"{code}\"")), "{status} {code}: {answer}");
}

fn created(folder: &str, more: &[&str]) -> Value {
    let mut words = vec!["token", "create", "--name", "a test", "--json", "--data-dir", folder];
    words.extend(more);
    run_json(&words)
}

fn with_token(door: &Door, path: &str, body: &Value, token: &Value) -> Said {
    let answer = ureq::post(format!("{}{path}", door.base))
        .config()
        .http_status_as_error(false)
        .build()
        .header("Authorization", format!("Bearer {}", token["token"].as_str().unwrap()))
        .header("Idempotency-Key", format!("door-{path}-{body}"))
        .send_json(body);
    let mut answer = answer.unwrap();
    Said { status: answer.status().as_u16(), body: answer.body_mut().read_json().unwrap() }
}

#[test]
fn every_abuse_is_refused_with_its_own_status_and_others_go_on() {
    let cast = Cast::small();
    let session = cast.open("1");
    let door = cast.gateway();
    let at = address(&door);
    let folder = cast.gateways[0].folder.to_str().unwrap();
    let short = created(folder, &["--scope", "read", "--expires", "1s"]);
    let honest = Honest::begin(cast.gateway(), session.clone());

    // Heads that never end, one byte at a time, held through all of what follows.
    let mut slow: Vec<TcpStream> = (0..32).map(|_| TcpStream::connect(at).unwrap()).collect();
    let mut trickle = |bytes: &[u8]| slow.iter_mut().for_each(|stream| drop(stream.write_all(bytes)));
    trickle(b"GET /health HTTP/1.1\r\nx: ");

    // Bodies that stop coming are waited for with patience, and not for ever.
    let stalled: Vec<_> = [("PUT", "files/half.bin", "application/octet-stream"), ("PUT", "archive", "application/x-tar")]
        .into_iter()
        .map(|(method, route, kind)| {
            let path = format!("/api/sessions/{session}/{route}");
            let sent = request(&door, method, &path, &format!("content-type: {kind}\r\ncontent-length: 4096\r\n"), &door.token) + "half";
            std::thread::spawn(move || raw(at, &sent))
        })
        .collect();

    let ask = |method: &str, path: &str, lines: &str| raw(at, &request(&door, method, path, lines, &door.token));
    refused(&ask("GET", "/api/sessions", &format!("x: {}\r\n", "x".repeat(200_000))), 431, "");
    refused(&ask("GET", "/api/sessions", &"a: b\r\n".repeat(5_000)), 431, "");
    trickle(b"x");
    let body = json!({ "providerId": "auto", "budgetAllowance": "0.1", "mission": "x".repeat(2_000_000) });
    let large = door.post("/api/sessions", &body);
    assert_eq!((large.status, large.code()), (413, "body_too_large"));
    refused(&raw(at, "GET /api/sessions HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n"), 421, "host_not_allowed");
    refused(&ask("POST", "/api/sessions", "origin: http://evil.example\r\ncontent-length: 0\r\n"), 403, "cross_origin");
    trickle(b"x");
    refused(&raw(at, &format!("GET /api/sessions HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n")), 401, "unauthorized");
    let old = short["token"].as_str().unwrap();
    wait_for("the end of a token", || {
        let answer = raw(at, &request(&door, "GET", "/api/sessions", "", old));
        answer.contains("\"code\":\"token_expired\"").then(|| refused(&answer, 401, "token_expired"))
    });

    let reader = created(folder, &["--scope", "read"]);
    let run = json!({ "sessionId": session, "toolId": "say", "args": { "words": "x" } });
    let lacking = with_token(&door, "/tools/run", &run, &reader);
    assert_eq!((lacking.status, lacking.code()), (403, "insufficient_scope"));
    let spender = created(folder, &["--scope", "spend", "--cap", "0.15"]);
    let order = |budget: &str| json!({ "providerId": "auto", "budgetAllowance": budget, "tools": ["say"] });
    let beyond = with_token(&door, "/api/sessions", &order("0.2"), &spender);
    assert_eq!((beyond.status, beyond.code()), (402, "spend_cap_reached"));
    assert_eq!(beyond.body["missing"], "0.05", "{beyond:?}");
    let own = with_token(&door, "/api/sessions", &order("0.1"), &spender).ok();
    let foreign = with_token(&door, "/tools/run", &run, &spender);
    assert_eq!((foreign.status, foreign.code()), (403, "not_your_session"));
    trickle(b"x");

    // The heads that trickle are closed when their time is over, however often a byte comes.
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        wait_for("the end of a slow head", || {
            let _ = stream.write_all(b"x");
            let mut piece = [0; 512];
            match stream.read(&mut piece) {
                Ok(0) => Some(()),
                Err(error) if !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => Some(()),
                _ => None,
            }
        });
    }
    for answer in stalled {
        refused(&answer.join().unwrap(), 408, "body_stalled");
    }
    honest.end();
    cast.end(own["id"].as_str().unwrap());
    cast.end(&session);
}

#[test]
fn ten_thousand_idle_connections_take_nobodys_place() {
    raise_descriptors();
    let cast = Cast::small();
    let session = cast.open("1");
    let door = cast.gateway();
    let at = address(&door);
    let honest = Honest::begin(cast.gateway(), session.clone());
    let mut idle = Vec::with_capacity(IDLE);
    for number in 0..IDLE {
        let mut stream = TcpStream::connect(at).unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /health HTTP/1.1\r\n");
        }
        idle.push(stream);
    }
    let run = cast.start_run(&session, "say", json!({ "words": "still here" }));
    assert_eq!(cast.ended(&run)["status"], "completed");
    honest.end();
    drop(idle);
    cast.end(&session);
}

fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    let needed = IDLE as u64 + 1000;
    assert!(most.is_none_or(|most| most >= needed), "this test needs {needed} descriptors; raise the hard limit (ulimit -Hn)");
    let wanted = most.map_or(needed, |most| most.min(65_536));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: most }).unwrap();
}

#[test]
fn a_link_of_the_program_lets_a_browser_in_once() {
    let mut cast = Cast::start();
    cast.add_gateway("0");
    let door = cast.gateway();
    let folder = cast.gateways[0].folder.to_str().unwrap();
    let output = run(&["open", "--print", "--data-dir", folder]);
    let link = String::from_utf8(output.stdout).unwrap();
    let path = link.trim().strip_prefix(&door.base).unwrap().to_owned();
    let at = address(&door);
    let visit = |path: &str| raw(at, &format!("GET {path} HTTP/1.1\r\nhost: {at}\r\naccept: text/html\r\nconnection: close\r\n\r\n"));
    assert!(visit("/api/sessions").contains("orien open"));
    let first = visit(&path);
    assert!(first.starts_with("HTTP/1.1 303") && first.to_lowercase().contains("set-cookie: orien-"), "{first}");
    assert!(visit(&path).starts_with("HTTP/1.1 410"));

    let made = created(folder, &["--scope", "read"]);
    let listed = run_json(&["token", "list", "--json", "--data-dir", folder]);
    assert_eq!(listed["tokens"][0]["id"], made["id"]);
    assert!(run(&["token", "revoke", made["id"].as_str().unwrap(), "--data-dir", folder]).status.success());
    let answer = raw(at, &request(&door, "GET", "/api/sessions", "", made["token"].as_str().unwrap()));
    refused(&answer, 401, "unauthorized");
}
