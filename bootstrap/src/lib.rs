//! What every peer is before it has a role: identity, locked data directory, network, local door, offer catalogue, orderly start and stop. Run alone, by
//! [`run`], it is the bootstrap role: it introduces peers and keeps the catalogue.
//!
//! Always true: a role is built on a [`Peer`], reaches others only through it, and has stopped before it; nothing unverified is acted on; everything that
//! waits, waits in a bounded queue.
//!
//! This crate does not know the other roles, nor what a session or money is for.

mod ask;
mod brief;
mod catalogue;
pub mod clock;
mod data_dir;
mod discovery;
mod dispatch;
pub mod door;
pub mod escrow;
pub mod files;
mod frame_stream;
mod http;
mod keeper;
mod keys;
mod network_file;
mod pace;
mod peer;
mod publish;
mod role;
#[cfg(test)]
mod sample;
pub mod secrets;
mod shared;
mod stage;
mod store;

pub use ask::{AskError, ask};
pub use brief::{brief, may_block_here};
pub use catalogue::{Listed, Verdict};
pub use clock::{NoRandomness, random_id};
pub use data_dir::{DataDir, OpenDataDirError, RoleName};
pub use discovery::{DiscoveryPanicked, Hearsay};
pub use dispatch::{AnswerError, InboundQuestion, InboundStream, QuestionReply};
pub use door::{DoorFile, DoorSettings, PeerDoorError};
pub use files::FileError;
pub use frame_stream::{FrameError, FrameReader, FrameStream, FrameWriter};
pub use keeper::KeeperGone;
pub use keys::{Keys, KeysError};
pub use network_file::{Network, NetworkChain, NetworkFileError, Settlement};
pub use peer::{Peer, PeerConfig, PeerFailure, StartPeerError};
pub use publish::{OfferSource, OfferStamp, PublishError};
pub use role::{BOOTSTRAP_DOOR_PORT, Config, RunError, run};
pub use shared::{OfferSeen, SharedCatalogue};
pub use store::StoreError;
#[cfg(any(test, feature = "faulty-store"))]
pub use store::faulty::FaultyDisk;
pub use store::making::{open_database, open_database_over};
