//! The local door of a running peer, and the file that tells other commands of the program where it is.
//!
//! Always true: `door.json` names a door that listened when it was written, by the process it names; an orderly stop removes it, a crash leaves it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use orien_door::{Door, DoorConfig, OpenDoorError, TlsFiles};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::data_dir::door_file_in;
use crate::files::{self, FileError};
use crate::peer::Peer;

/// Longest door file: two paths and a few words.
const FILE_LIMIT: u64 = 16 * 1024;

/// What an operator may say about the local door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorSettings {
    /// Where to listen. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Whether an address that other machines can reach is meant although there is no TLS.
    pub allow_remote: bool,
    /// What to encrypt with.
    pub tls: Option<TlsFiles>,
    /// Names beside the loopback ones that callers may use for this machine.
    pub extra_hosts: Vec<String>,
}

impl DoorSettings {
    /// For callers on this machine only.
    pub const fn local(address: SocketAddr) -> Self {
        Self { address, allow_remote: false, tls: None, extra_hosts: Vec::new() }
    }
}

/// Where the door of a peer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DoorFile {
    /// The address by which this machine reaches it.
    pub address: SocketAddr,
    /// The file with its token.
    pub token_file: PathBuf,
    /// The role behind it.
    pub role: String,
    /// The peer behind it.
    pub peer_id: String,
    /// The process behind it.
    pub pid: u32,
}

/// Why a peer has no door, or none that can be found.
#[derive(Debug, Error)]
pub enum PeerDoorError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenDoorError),
    /// The door file cannot be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The door file is not one.
    #[error("{} does not say where a door is: {reason}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl DoorFile {
    /// Reads where the door of the peer with this data directory is. That the file is there does not mean that the peer still runs.
    pub fn read(data_dir: &Path) -> Result<Self, PeerDoorError> {
        let path = door_file_in(data_dir);
        let text = files::read(&path, FILE_LIMIT)?;
        serde_json::from_str(&text).map_err(|error| PeerDoorError::Malformed { path, reason: error.to_string() })
    }
}

/// Opens the local door of a peer and writes down where it is.
pub async fn open(peer: &Peer, settings: DoorSettings) -> Result<Door, PeerDoorError> {
    let DoorSettings { address, allow_remote, tls, extra_hosts } = settings;
    let config = DoorConfig { extra_hosts, allow_remote, tls, ..DoorConfig::local(address, peer.data_dir().door_token()) };
    let door = Door::bind(config).await?;
    let file = DoorFile {
        address: from_here(door.address()),
        token_file: door.token_file().to_owned(),
        role: peer.role().name().to_owned(),
        peer_id: peer.id().to_string(),
        pid: std::process::id(),
    };
    let path = peer.data_dir().door_file();
    let text =
        serde_json::to_vec_pretty(&file).map_err(|error| PeerDoorError::Malformed { path: path.clone(), reason: error.to_string() })?;
    files::replace(&path, &text)?;
    Ok(door)
}

/// The address by which this machine itself reaches a door.
fn from_here(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, v6.port())),
        other => other,
    }
}

/// Removes what [`open`] wrote; the last step before the peer stops.
pub fn forget(peer: &Peer) {
    let path = peer.data_dir().door_file();
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(path = %path.display(), %error, "the door file stays behind");
    }
}
