//! Judges one gossip message: what it says, whether it travels on, and whether the offer behind it is fetched.

use orien_protocol::codec;
use orien_protocol::digest::{DIGEST_LIMIT_BYTES, Digest};
use orien_protocol::network::NetworkId;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Signed, Verified};
use orien_protocol::time::Timestamp;

use super::Discovery;
use crate::catalogue::Verdict;
use crate::clock;

/// What is to become of a message that is not worth a look at the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Nobody honest sends this: it counts against the peer that passed it on.
    Reject,
    /// It may be our own clock, or our own message.
    Ignore,
}

impl Discovery {
    pub(super) fn on_gossip(&mut self, bytes: &[u8], verdict: orien_net::Verdict) {
        let digest = match read(bytes, &self.intake.network, self.intake.own, clock::wall()) {
            Ok(digest) => digest,
            Err(Unusable::Reject) => return verdict.reject(),
            Err(Unusable::Ignore) => return verdict.ignore(),
        };
        let judged = self.intake.catalogue.consider(&digest);
        tracing::trace!(provider = %digest.provider, version = digest.version, ?judged, "an offer was announced");
        match judged {
            Verdict::New => {
                verdict.accept();
                self.fetches.want(digest, &self.net, &self.intake, &mut self.tasks);
            }
            Verdict::Known | Verdict::Older | Verdict::Equivocation | Verdict::RateLimited | Verdict::Full => verdict.ignore(),
            // Freshness was looked at before and may have ended since; everything else was settled by `read`.
            Verdict::Invalid(_) => verdict.ignore(),
        }
    }
}

/// Decodes and verifies a digest, the cheapest checks first.
pub(super) fn read(bytes: &[u8], network: &NetworkId, own: PeerId, now: Timestamp) -> Result<Verified<Digest>, Unusable> {
    let signed: Signed<Digest> = codec::decode(bytes, DIGEST_LIMIT_BYTES).map_err(|_| Unusable::Reject)?;
    let claimed = signed.unverified();
    claimed.check().map_err(|_| Unusable::Reject)?;
    if claimed.provider == own || claimed.freshness(now).is_err() {
        return Err(Unusable::Ignore);
    }
    let provider = claimed.provider;
    signed.verify(network, &provider).map_err(|_| Unusable::Reject)
}

#[cfg(test)]
mod tests {
    use orien_protocol::hash::Hash;
    use orien_protocol::signing::PeerKey;
    use orien_protocol::time::Millis;

    use super::*;
    use crate::sample::{network, offer};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn bytes(seed: u8, change: impl FnOnce(&mut Digest)) -> Vec<u8> {
        let key = PeerKey::from_seed(&[seed; 32]);
        let mut digest = offer(key.id(), 1, NOW, NOW.plus(Millis(3_600_000))).digest(Hash::ZERO);
        change(&mut digest);
        codec::encode(Verified::sign(digest, network().id(), &key).signed()).unwrap()
    }

    fn judge(bytes: &[u8]) -> Option<Unusable> {
        read(bytes, network().id(), PeerKey::from_seed(&[9; 32]).id(), NOW).err()
    }

    #[test]
    fn a_sound_digest_is_read() {
        assert_eq!(judge(&bytes(1, |_| {})), None);
    }

    #[test]
    fn garbage_forgeries_and_oversized_messages_are_rejected() {
        let good = bytes(1, |_| {});
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let mut longer = good.clone();
        longer.push(0);
        let borrowed = bytes(1, |digest| digest.provider = PeerKey::from_seed(&[2; 32]).id());
        let wide = bytes(1, |digest| digest.capabilities = vec![String::new(); 11]);
        let endless = bytes(1, |digest| digest.expires_at = NOW.plus(Millis(3_600_001)));
        for bad in [vec![], vec![0; 2000], good[..40].to_vec(), forged, longer, borrowed, wide, endless] {
            assert_eq!(judge(&bad), Some(Unusable::Reject), "{} bytes", bad.len());
        }
        let elsewhere = PeerKey::from_seed(&[1; 32]);
        let digest = offer(elsewhere.id(), 1, NOW, NOW.plus(Millis(1))).digest(Hash::ZERO);
        let other_network = codec::encode(Verified::sign(digest, &"other".parse().unwrap(), &elsewhere).signed()).unwrap();
        assert_eq!(judge(&other_network), Some(Unusable::Reject));
    }

    #[test]
    fn what_may_be_the_fault_of_our_clock_and_our_own_digest_are_ignored() {
        let future = bytes(1, |digest| digest.issued_at = NOW.plus(Millis(200_000)));
        let expired = bytes(1, |digest| {
            digest.issued_at = Timestamp(NOW.0 - 3_600_000);
            digest.expires_at = NOW;
        });
        for timely in [future, expired, bytes(9, |_| {})] {
            assert_eq!(judge(&timely), Some(Unusable::Ignore));
        }
    }
}
