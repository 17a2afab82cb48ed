//! What people and files write: amounts, ids, addresses, workspace paths, network files. What is read is printed in a form that reads as the same.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use orien_bootstrap::Network;
use orien_protocol::hash::Hash;
use orien_protocol::id::{BatchId, ExecutionId, PayoutId, RequestId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::network::{NETWORK_ID_LIMIT, NetworkId};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::Address;
use orien_sandbox::WorkPath;

/// Byte 0 says what the rest is taken for.
pub(crate) fn names(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    if let Ok(path) = WorkPath::parse_bytes(bytes) {
        work_path(&path);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match kind % 10 {
        0 => drop(comes_back::<Usdc>(text)),
        1 => drop(comes_back::<Address>(text)),
        2 => assert!(comes_back::<PeerId>(text).is_none_or(|peer| peer.to_string() == text)),
        3 => assert!(comes_back::<NetworkId>(text).is_none_or(|id| id.as_str() == text && text.len() <= NETWORK_ID_LIMIT)),
        4 => drop(comes_back::<Hash>(text)),
        5 => one_text::<SessionId>(text),
        6 => one_text::<ExecutionId>(text),
        7 => one_text::<RequestId>(text),
        8 => one_text::<BatchId>(text),
        _ => one_text::<PayoutId>(text),
    }
}

fn comes_back<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{text:?} is printed as {value}");
    Some(value)
}

/// An id has one text.
fn one_text<T: FromStr + Display + PartialEq>(text: &str) {
    assert!(comes_back::<T>(text).is_none_or(|id| id.to_string() == text));
}

/// A path that was accepted stays below the folder that it is joined to.
fn work_path(path: &WorkPath) {
    let text = path.as_str();
    assert!(!text.is_empty() && text.len() <= 1024 && !text.starts_with('/') && !text.chars().any(char::is_control));
    assert!(text.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255));
    assert_eq!(WorkPath::parse(text).as_ref(), Ok(path));
    let joined = Path::new("/w").join(text);
    assert!(joined.starts_with("/w") && joined.components().count() == 2 + text.split('/').count());
}

pub(crate) fn network_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("network.toml");
    let Ok(network) = Network::parse(text, path) else { return };
    let again = network.to_text().expect("a network that was read can be written");
    assert_eq!(Network::parse(&again, path).ok().as_ref(), Some(&network), "{again}");
    assert!(network.id().as_str().starts_with(network.name()) && network.finality_lag() < network.exit_delay());
}
