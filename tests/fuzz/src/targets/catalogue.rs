//! The catalogue of a peer that is told anything: gossip, answers to questions for an offer, pages of other catalogues.

use std::sync::LazyLock;

use orien_bootstrap::{Hearsay, Verdict};
use orien_protocol::binding::{Binding, SignedBinding};
use orien_protocol::codec;
use orien_protocol::frame::{ANSWER_LIMIT, Answer};
use orien_protocol::hash::Hash;
use orien_protocol::money::Price;
use orien_protocol::offer::{Capacity, Confinement, Hardware, OFFER_LIFE, Offer, Record, Tool};
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{PeerKey, Signed, Verified};
use orien_protocol::time::{Millis, Now, Timestamp};

use super::bytes::Bytes;
use super::world::{WORLD, start, usdc};

/// More steps than a story needs.
const STEPS: usize = 64;
/// Small, so that both limits are reached.
const OFFERS_LIMIT: usize = 5;
const BYTES_LIMIT: usize = 6 * 1024;
/// Providers that a story knows; the first is the peer itself.
const PROVIDERS: usize = 8;

static KEYS: LazyLock<Vec<PeerKey>> = LazyLock::new(|| {
    let mut keys: Vec<PeerKey> = (100..100 + PROVIDERS as u8).map(|seed| PeerKey::from_seed(&[seed; 32])).collect();
    keys.sort_by_key(PeerKey::id);
    keys
});

/// A sound offer of one of our providers.
pub(crate) fn sound_offer(key: &PeerKey, version: u64, issued_at: Timestamp, size: usize) -> Offer {
    let tool = Tool {
        id: "run_build".to_owned(),
        name: String::new(),
        description: "x".repeat(size),
        command: String::new(),
        parameters: Vec::new(),
        max_duration: Millis(1),
        cpu_millis: 1,
        memory_bytes: 1,
        price: Price { per_minute: usdc(1), call_fee: usdc(0) },
        workspace_required: false,
        capabilities: vec!["build".to_owned()],
    };
    let binding = &WORLD.agreed(0).provider;
    let named = Binding { peer: key.id(), ..binding.unverified().clone() };
    Offer {
        provider: key.id(),
        version,
        issued_at,
        expires_at: issued_at.plus(OFFER_LIFE),
        label: "label".to_owned(),
        name: String::new(),
        description: String::new(),
        ens_name: None,
        region: None,
        // Whose money it is, is looked at when a session opens.
        binding: SignedBinding { by_peer: Signed::join(named, *binding.by_peer.signature()), by_money_key: binding.by_money_key },
        price: Price::default(),
        minimum_charge: usdc(1),
        metering_interval: Millis(1),
        tools: vec![tool],
        confinement: Confinement::S0,
        hardware: Hardware::default(),
        capacity: Capacity::default(),
        record: Record::default(),
        addresses: Vec::new(),
    }
}

struct Story {
    heard: Hearsay,
    now: Now,
    newest: [u64; PROVIDERS],
}

/// Bytes as they come from a peer, then a story of well-signed ones.
pub(crate) fn catalogue(input: &[u8]) {
    let heard = Hearsay::new(WORLD.network.clone(), KEYS[0].id(), OFFERS_LIMIT, BYTES_LIMIT);
    let mut story = Story { heard, now: start(), newest: [0; PROVIDERS] };
    let mut bytes = Bytes::new(input);
    match bytes.u8() {
        0 => drop(story.heard.gossip(bytes.rest(), story.now)),
        1 => drop(story.heard.page(bytes.rest(), None, story.now)),
        _ => {
            for _ in 0..STEPS {
                if bytes.is_empty() {
                    break;
                }
                story.step(&mut bytes);
                story.check();
            }
        }
    }
}

impl Story {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(8) {
            0 | 1 => self.announce(bytes),
            2..=4 => self.turn_page(bytes),
            5 => {
                self.now.mono = Millis(self.now.mono.0 + u64::from(bytes.u16()));
                self.now.wall = Timestamp(self.now.wall.0 + u64::from(bytes.u16()) * 100);
            }
            6 => self.now.wall = Timestamp(self.now.wall.0.saturating_sub(u64::from(bytes.u16()) * 100)),
            _ => self.heard.expire(self.now),
        }
    }

    /// A signed offer, sound or wrong in one way.
    fn offer(&self, who: usize, bytes: &mut Bytes<'_>) -> Signed<Offer> {
        let (version, wrong, size) = (u64::from(bytes.below(4)), bytes.below(24), usize::from(bytes.u8()) * 8);
        let mut offer = sound_offer(&KEYS[who], version, self.now.wall, 0);
        // Longer than allowed in one field is refused, so size comes in several.
        for index in 0..size / 500 {
            offer.tools.push(Tool { id: format!("tool{index}"), description: "x".repeat(500), ..offer.tools[0].clone() });
        }
        match wrong {
            1 => offer.expires_at = Timestamp(u64::MAX),
            2 => offer.expires_at = offer.issued_at,
            3 => offer.issued_at = Timestamp(offer.issued_at.0 + 300_000),
            4 => offer.tools.push(offer.tools[0].clone()),
            5 => offer.label = "x".repeat(65),
            6 => offer.binding = WORLD.agreed(0).provider.clone(),
            7 => offer.metering_interval = Millis(0),
            8 => offer.label = "another".to_owned(),
            9 => (offer.issued_at, offer.expires_at) = (Timestamp(0), Timestamp(1)),
            _ => {}
        }
        let key = if wrong == 10 { &WORLD.stranger } else { &KEYS[who] };
        Verified::sign(offer, &WORLD.network, key).into_signed()
    }

    /// Gossip about an offer, and then the answer to the question for it.
    fn announce(&mut self, bytes: &mut Bytes<'_>) {
        let who = bytes.index(PROVIDERS);
        let offer = self.offer(who, bytes);
        let hash = offer.clone().verify(&WORLD.network, &KEYS[who].id()).map_or(Hash::ZERO, |offer| offer.hash());
        let digest = Verified::sign(offer.unverified().digest(hash), &WORLD.network, &KEYS[who]);
        let message = codec::encode(digest.signed()).unwrap();
        let Some((digest, verdict)) = self.heard.gossip(&message, self.now) else { return };
        assert!(digest.provider != KEYS[0].id() && digest.check().is_ok() && digest.freshness(self.now.wall).is_ok());
        if verdict == Verdict::New {
            let offer = if bytes.u8() == 255 { self.offer(who, bytes) } else { offer };
            let answer = codec::encode(&Answer::Offer(Some(Box::new(offer.clone())))).unwrap();
            let taken = self.heard.fetched(&answer, &digest, self.now);
            self.note(who, &offer, taken.as_ref());
        }
    }

    fn turn_page(&mut self, bytes: &mut Bytes<'_>) {
        let from = bytes.index(PROVIDERS);
        let after = (from > 0).then(|| KEYS[from - 1].id());
        let count = usize::from(bytes.below(4));
        let offers: Vec<Signed<Offer>> = (from..PROVIDERS).take(count).map(|who| self.offer(who, bytes)).collect();
        let answer = codec::encode(&Answer::Offers { offers: offers.clone(), more: false }).unwrap();
        let Some((last, verdicts)) = self.heard.page(&answer, after, self.now) else { return };
        assert!(Some(last) > after && verdicts.len() <= offers.len());
        if verdicts.len() == offers.len() {
            for (index, (offer, verdict)) in offers.iter().zip(&verdicts).enumerate() {
                self.note(from + index, offer, Some(verdict));
            }
        }
    }

    fn note(&mut self, who: usize, offer: &Signed<Offer>, verdict: Option<&Verdict>) {
        if verdict == Some(&Verdict::New) {
            let offer = offer.unverified();
            assert!(offer.check().is_ok() && offer.freshness(self.now.wall).is_ok(), "only what is sound and timely is taken");
            self.newest[who] = offer.version;
        }
    }

    /// Never above the limits; what is served is sound, timely, in order and complete; nothing that is served is refused by another.
    fn check(&self) {
        let mut after: Option<PeerId> = None;
        let mut served = 0;
        loop {
            let answer = self.heard.offers(after, 2 * 1024, self.now);
            let bytes = codec::encode(&answer).unwrap();
            assert!(bytes.len() <= ANSWER_LIMIT);
            let Answer::Offers { offers, more } = answer else { panic!("another answer") };
            for offer in &offers {
                let offer = offer.unverified();
                assert!(Some(offer.provider) > after && offer.check().is_ok() && offer.expires_at > self.now.wall);
                after = Some(offer.provider);
            }
            served += offers.len();
            if !more || offers.is_empty() {
                // A page may be too small for one large offer; the real one is larger than the largest.
                assert!(more || served == self.heard.len(self.now), "every offer is on some page");
                break;
            }
        }
        assert!(self.heard.len(self.now) <= OFFERS_LIMIT, "never more than the limit");
        let Answer::Digests { digests, .. } = self.heard.digests(None, OFFERS_LIMIT, self.now) else { panic!("another answer") };
        for digest in digests {
            assert!(digest.unverified().check().is_ok(), "only what is sound is handed on");
        }
    }
}
