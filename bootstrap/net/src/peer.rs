//! Between our peer id (an ed25519 public key) and libp2p's (a multihash).
//!
//! Only the inline form of an ed25519 key has a peer id here; any other libp2p peer is refused at the door.

use libp2p::PeerId as WireId;
use libp2p::identity::{PublicKey, ed25519};
use orien_protocol::peer::PeerId;

/// The protobuf header of an ed25519 public key: key type 1, 32 bytes of data.
const KEY_HEADER: [u8; 4] = [0x08, 0x01, 0x12, 0x20];

/// Multihash code of an inline (unhashed) key.
const INLINE: u64 = 0;

/// Our id of a libp2p peer; `None` if it is not an inline ed25519 key.
pub(crate) fn from_wire(peer: &WireId) -> Option<PeerId> {
    let hash: &libp2p::multihash::Multihash<64> = peer.as_ref();
    if hash.code() != INLINE {
        return None;
    }
    let key = hash.digest().strip_prefix(&KEY_HEADER)?;
    Some(PeerId::from_bytes(key.try_into().ok()?))
}

/// libp2p's id of a peer; `None` if the 32 bytes are not a point on the curve.
pub(crate) fn to_wire(peer: &PeerId) -> Option<WireId> {
    let key = ed25519::PublicKey::try_from_bytes(peer.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn an_id_survives_the_way_there_and_back_and_prints_the_same() {
        let wire = Keypair::generate_ed25519().public().to_peer_id();
        let ours = from_wire(&wire).unwrap();
        assert_eq!(ours.to_string(), wire.to_string());
        assert_eq!(to_wire(&ours).unwrap(), wire);
    }

    #[test]
    fn a_hashed_key_is_no_peer_of_ours() {
        let wire: WireId = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap();
        assert!(from_wire(&wire).is_none());
    }
}
