//! A local chain ends with whoever started it.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orien_chain::anvil::{Anvil, AnvilSettings, find};

/// What the process that is killed says first.
const HERE: &str = "the chain is at ";

/// Whether somebody listens there.
fn is_there(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

fn is_gone_soon(address: &str) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        if !is_there(address) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// This test's program again, as a process that has a chain and waits.
fn owner() -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ending::a_process_with_a_chain", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.find_map(|line| line.unwrap().split_once(HERE).map(|(_, url)| url.to_owned())).unwrap();
    (child, said.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned())
}

#[tokio::test]
#[ignore = "a process that the tests below start and kill"]
#[expect(clippy::print_stdout, reason = "whoever started it reads this")]
async fn a_process_with_a_chain() {
    let anvil = Anvil::start(&AnvilSettings::default()).await.unwrap();
    println!("{HERE}{}", anvil.rpc().as_str());
    std::future::pending::<()>().await;
}

#[test]
fn a_chain_ends_with_a_process_that_is_killed() {
    if let Err(error) = find() {
        assert!(std::env::var_os("ORIEN_EVERY_CLIENT").is_none_or(|value| value != "1"), "{error}");
        return;
    }
    let (mut child, address) = owner();
    assert!(is_there(&address), "{address}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_gone_soon(&address), "anvil outlived the process that started it, at {address}");
}

#[tokio::test]
async fn a_chain_ends_with_its_value() {
    let Ok(anvil) = Anvil::start(&AnvilSettings::default()).await else { return };
    let address = anvil.rpc().as_str().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    assert!(is_there(&address));
    drop(anvil);
    assert!(is_gone_soon(&address));
}
