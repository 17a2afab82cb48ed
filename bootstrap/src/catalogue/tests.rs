//! The rules of the catalogue, one fact each.

use orien_protocol::signing::PeerKey;
use orien_protocol::time::Millis;

use super::*;
use crate::pace::{BURST, REFILL};
use crate::sample::{network, offer, tool};

const START: Timestamp = Timestamp(1_800_000_000_000);

/// An hour less a minute: long enough to live, short enough to be cut by nothing.
const LIFE: Millis = Millis::from_secs(3540);

fn at(ms: u64) -> Now {
    Now { wall: START.plus(Millis(ms)), mono: Millis(ms) }
}

fn key(byte: u8) -> PeerKey {
    PeerKey::from_seed(&[byte; 32])
}

fn own() -> PeerId {
    key(200).id()
}

fn signed(seed: u8, version: u64, change: impl FnOnce(&mut Offer)) -> Arc<Verified<Offer>> {
    let mut body = offer(key(seed).id(), version, START, START.plus(LIFE));
    change(&mut body);
    Arc::new(Verified::sign(body, network().id(), &key(seed)))
}

fn plain(seed: u8, version: u64) -> Arc<Verified<Offer>> {
    signed(seed, version, |_| {})
}

fn digest(offer: &Verified<Offer>, seed: u8) -> Verified<Digest> {
    Verified::sign(offer.digest(offer.hash()), network().id(), &key(seed))
}

fn ids<'a>(listed: impl Iterator<Item = &'a Listed>) -> Vec<PeerId> {
    listed.map(|listed| listed.offer.provider).collect()
}

#[test]
fn the_newest_version_wins_and_the_same_is_known() {
    let mut catalogue = Catalogue::new(own());
    assert_eq!(catalogue.insert(plain(1, 5), at(0)).verdict, Verdict::New);
    assert_eq!(catalogue.insert(plain(1, 5), at(1)).verdict, Verdict::Known);
    assert_eq!(catalogue.insert(plain(1, 4), at(2)).verdict, Verdict::Older);
    assert_eq!(catalogue.insert(plain(1, 6), at(3)).verdict, Verdict::New);
    assert_eq!(catalogue.entries.len(), 1);
    assert_eq!(catalogue.provider(&key(1).id(), START).map(|listed| listed.offer.version), Some(6));
}

#[test]
fn two_offers_of_one_version_keep_the_first_and_mark_the_provider_for_good() {
    let mut catalogue = Catalogue::new(own());
    let first = plain(1, 5);
    catalogue.insert(Arc::clone(&first), at(0));
    assert_eq!(catalogue.insert(signed(1, 5, |offer| offer.label = "other".to_owned()), at(1)).verdict, Verdict::Equivocation);
    let listed = catalogue.provider(&key(1).id(), START).cloned();
    assert!(listed.is_some_and(|listed| listed.equivocated && listed.offer == first));
    catalogue.insert(plain(1, 6), at(2));
    assert!(catalogue.provider(&key(1).id(), START).is_some_and(|listed| listed.equivocated));
}

#[test]
fn a_digest_that_contradicts_the_known_offer_marks_the_provider() {
    let mut catalogue = Catalogue::new(own());
    catalogue.insert(plain(1, 5), at(0));
    let other = digest(&signed(1, 5, |offer| offer.label = "other".to_owned()), 1);
    assert_eq!(catalogue.consider(&other, at(1)), Verdict::Equivocation);
    assert!(catalogue.provider(&key(1).id(), START).is_some_and(|listed| listed.equivocated));
}

#[test]
fn an_offer_ends_when_it_says_but_at_the_latest_an_hour_after_it_came() {
    let mut catalogue = Catalogue::new(own());
    // Issued in the tolerated future, so its own end lies more than an hour ahead of us.
    let ahead = START.plus(Millis(100_000));
    catalogue.insert(Arc::new(Verified::sign(offer(key(1).id(), 1, ahead, ahead.plus(OFFER_LIFE)), network().id(), &key(1))), at(0));
    catalogue.insert(plain(2, 1), at(0));
    assert_eq!(catalogue.provider(&key(1).id(), START).map(|listed| listed.expires_at), Some(START.plus(OFFER_LIFE)));
    assert_eq!(ids(catalogue.all(START.plus(LIFE))), [key(1).id()], "an ended offer is not listed even before the clean-up");
    assert_eq!(catalogue.expire(START.plus(LIFE)), [key(2).id()]);
    assert_eq!(catalogue.expire(START.plus(OFFER_LIFE)), [key(1).id()]);
    assert!(catalogue.entries.is_empty() && catalogue.by_expiry.is_empty());
    assert_eq!(catalogue.bytes, 0);
}

#[test]
fn expired_future_senseless_oversized_and_borrowed_offers_are_invalid() {
    let mut catalogue = Catalogue::new(own());
    let mut verdict = |offer: Arc<Verified<Offer>>| catalogue.insert(offer, at(0)).verdict;
    let expired = signed(1, 1, |offer| {
        offer.issued_at = Timestamp(START.0 - 7_200_000);
        offer.expires_at = Timestamp(START.0 - 3_600_001);
    });
    assert_eq!(verdict(expired), Verdict::Invalid(OfferError::Expired));
    let future = signed(1, 1, |offer| offer.issued_at = START.plus(Millis(121_000)));
    assert_eq!(verdict(future), Verdict::Invalid(OfferError::FromTheFuture { ahead_ms: 121_000 }));
    let endless = signed(1, 1, |offer| offer.expires_at = START.plus(Millis(3_600_001)));
    assert!(matches!(verdict(endless), Verdict::Invalid(OfferError::Senseless(_))));
    let wide = signed(1, 1, |offer| offer.description = "d".repeat(513));
    assert!(matches!(verdict(wide), Verdict::Invalid(OfferError::TooLong { field: "description", .. })));
    let large = signed(1, 1, |offer| {
        offer.tools = (0..64)
            .map(|n| orien_protocol::offer::Tool { command: "c".repeat(512), description: "d".repeat(512), ..tool(&format!("{n}")) })
            .collect();
    });
    assert!(matches!(verdict(large), Verdict::Invalid(OfferError::TooLong { field: "encoded offer", .. })));
    let borrowed = Arc::new(Verified::sign(offer(key(1).id(), 1, START, START.plus(LIFE)), network().id(), &key(2)));
    assert_eq!(verdict(borrowed), Verdict::Invalid(NOT_ITS_OWN));
    assert!(catalogue.entries.is_empty());
}

#[test]
fn a_provider_that_changes_too_often_is_slowed_down_and_others_are_not() {
    let mut catalogue = Catalogue::new(own());
    for version in 1..=BURST {
        assert_eq!(catalogue.insert(plain(1, version), at(0)).verdict, Verdict::New);
    }
    assert_eq!(catalogue.insert(plain(1, 99), at(0)).verdict, Verdict::RateLimited);
    assert_eq!(catalogue.insert(plain(2, 1), at(0)).verdict, Verdict::New);
    assert_eq!(catalogue.insert(plain(1, 99), at(REFILL.0)).verdict, Verdict::New);
}

#[test]
fn repeating_a_known_offer_uses_up_nothing() {
    let mut catalogue = Catalogue::new(own());
    for _ in 0..100 {
        catalogue.insert(plain(1, 1), at(0));
    }
    assert_eq!(catalogue.insert(plain(1, 2), at(0)).verdict, Verdict::New);
}

#[test]
fn our_own_offer_is_never_slowed_down_or_evicted() {
    let mut catalogue = Catalogue::with_limits(own(), 1, BYTES_LIMIT);
    for version in 1..20 {
        assert_eq!(catalogue.insert(plain(200, version), at(0)).verdict, Verdict::New);
    }
    assert_eq!(catalogue.insert(plain(1, 1), at(0)).verdict, Verdict::Full);
    assert_eq!(ids(catalogue.all(START)), [own()]);
}

#[test]
fn a_full_catalogue_drops_what_expires_first_and_refuses_what_would_be_that() {
    let mut catalogue = Catalogue::with_limits(own(), 2, BYTES_LIMIT);
    let ending = |seed, ms| signed(seed, 1, |offer| offer.expires_at = START.plus(Millis(ms)));
    catalogue.insert(ending(1, 2000), at(0));
    catalogue.insert(ending(2, 3000), at(0));
    assert_eq!(catalogue.insert(ending(3, 1000), at(0)).verdict, Verdict::Full);
    assert_eq!(catalogue.consider(&digest(&ending(3, 1000), 3), at(0)), Verdict::Full);
    let inserted = catalogue.insert(ending(4, 4000), at(0));
    assert_eq!((inserted.verdict, inserted.evicted), (Verdict::New, vec![key(1).id()]));
    assert_eq!(catalogue.entries.len(), 2);
}

#[test]
fn bytes_are_bounded_as_well_as_offers() {
    let size = acceptable(&plain(1, 1), START).unwrap_or_default();
    let mut catalogue = Catalogue::with_limits(own(), 100, 2 * size);
    let ending = |seed: u8| signed(seed, 1, |offer| offer.expires_at = START.plus(Millis(u64::from(seed) * 1000)));
    for seed in 1..=10 {
        catalogue.insert(ending(seed), at(0));
        assert!(catalogue.bytes <= 2 * size);
    }
    assert_eq!(catalogue.entries.len(), 2);
    assert!(catalogue.provider(&key(10).id(), START).is_some() && catalogue.provider(&key(9).id(), START).is_some());
}

#[test]
fn a_digest_is_worth_a_fetch_only_when_it_announces_something_newer() {
    let mut catalogue = Catalogue::new(own());
    let (old, new) = (plain(1, 1), plain(1, 2));
    assert_eq!(catalogue.consider(&digest(&old, 1), at(0)), Verdict::New);
    catalogue.insert(Arc::clone(&new), at(0));
    assert_eq!(catalogue.consider(&digest(&new, 1), at(0)), Verdict::Known);
    assert_eq!(catalogue.consider(&digest(&old, 1), at(0)), Verdict::Older);
    assert_eq!(catalogue.consider(&digest(&plain(1, 3), 2), at(0)), Verdict::Invalid(NOT_ITS_OWN));
    for version in 10..10 + BURST - 1 {
        assert_eq!(catalogue.consider(&digest(&plain(1, version), 1), at(0)), Verdict::New);
    }
    assert_eq!(catalogue.consider(&digest(&plain(1, 99), 1), at(0)), Verdict::RateLimited);
}

#[test]
fn a_digest_is_handed_on_only_with_the_offer_it_announces() {
    let mut catalogue = Catalogue::new(own());
    for seed in 1..=3 {
        catalogue.insert(plain(seed, 1), at(0));
        catalogue.keep_digest(&digest(&plain(seed, 1), seed));
    }
    let (first, more) = catalogue.digests(None, 2, START);
    assert!(more && first.len() == 2);
    let (rest, more) = catalogue.digests(first.last().map(|digest| digest.unverified().provider), 2, START);
    assert!(!more && rest.len() == 1);
    catalogue.insert(plain(1, 2), at(0));
    catalogue.keep_digest(&digest(&plain(1, 1), 1));
    assert_eq!(catalogue.digests(None, 9, START).0.len(), 2);
}

#[test]
fn pages_hold_what_fits_and_together_everything_once() {
    let mut catalogue = Catalogue::new(own());
    for seed in 1..=10 {
        catalogue.insert(plain(seed, 1), at(0));
    }
    let size = acceptable(&plain(1, 1), START).unwrap_or_default();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, more) = catalogue.page(after, 3 * size, START);
        assert!(page.len() <= 3);
        seen.extend(page.iter().map(|offer| offer.provider));
        after = seen.last().copied();
        if !more {
            break;
        }
    }
    assert_eq!(seen, ids(catalogue.all(START)));
    assert_eq!(seen.len(), 10);
}

#[test]
fn a_capability_is_a_tool_id_or_what_a_tool_says_it_is_good_for() {
    let mut catalogue = Catalogue::new(own());
    catalogue.insert(signed(1, 1, |offer| offer.tools = vec![tool("run_build")]), at(0));
    catalogue.insert(
        signed(2, 1, |offer| {
            offer.tools = vec![orien_protocol::offer::Tool { capabilities: vec!["run_build".to_owned()], ..tool("make") }]
        }),
        at(0),
    );
    catalogue.insert(signed(3, 1, |offer| offer.tools = vec![tool("render")]), at(0));
    assert_eq!(catalogue.by_capability("run_build", START).count(), 2);
    assert_eq!(ids(catalogue.by_capability("render", START)), [key(3).id()]);
    assert_eq!(catalogue.by_capability("", START).count(), 0);
}
