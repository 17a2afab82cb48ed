//! Everything that is decoded from a peer or from disk: frames, questions, answers, offers, digests, receipts, money statements, terms, records.
//!
//! What decodes encodes to the very same bytes; nothing decodes from fewer or more; whatever is in it, checking it never panics; and a signature never holds for
//! anything but what was signed.

use orien_protocol::codec::{self, VALUE_LIMIT_BYTES};
use orien_protocol::digest::{DIGEST_CAPABILITIES_LIMIT, DIGEST_LIMIT_BYTES, Digest};
use orien_protocol::fault::{FAULT_TEXT_LIMIT, Fault};
use orien_protocol::frame::{
    ANSWER_LIMIT, AgentFrame, Answer, CONTROL_FRAME_LIMIT, FileAnswer, FileRequest, InputAnswer, InputFrame, InputRequest, LogFrame,
    LogRequest, ProviderFrame, QUESTION_LIMIT, Question, STREAM_FRAME_LIMIT, TreeFrame,
};
use orien_protocol::job::Job;
use orien_protocol::offer::{NAME_LIMIT, OFFER_LIFE, OFFER_LIMIT_BYTES, Offer, TOOLS_LIMIT};
use orien_protocol::receipt::Receipt;
use orien_protocol::session::agent::AgentRecord;
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::signing::{MoneyStatement, Signed, Statement, Verified};
use orien_protocol::terms::{SignedTerms, Terms};
use orien_protocol::time::Millis;
use orien_protocol::voucher::{MoneySigned, MoneyVerified, SignedAllowance, SignedClose, SignedVoucher};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::world::{START, WORLD};

/// Byte 0 says of which kind the rest is.
pub(crate) fn frames(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 14 {
        0 => drop(same::<AgentFrame>(bytes, CONTROL_FRAME_LIMIT)),
        1 => provider_frame(bytes),
        2 => drop(same::<Question>(bytes, QUESTION_LIMIT)),
        3 => answer(bytes),
        4 => drop(same::<LogRequest>(bytes, STREAM_FRAME_LIMIT)),
        5 => drop(same::<LogFrame>(bytes, STREAM_FRAME_LIMIT)),
        6 => drop(same::<FileRequest>(bytes, STREAM_FRAME_LIMIT)),
        7 => drop(same::<FileAnswer>(bytes, STREAM_FRAME_LIMIT)),
        8 => drop(same::<AgentRecord>(bytes, VALUE_LIMIT_BYTES)),
        9 => drop(same::<ProviderRecord>(bytes, VALUE_LIMIT_BYTES)),
        10 => drop(same::<InputRequest>(bytes, STREAM_FRAME_LIMIT)),
        11 => drop(same::<InputFrame>(bytes, STREAM_FRAME_LIMIT)),
        12 => drop(same::<InputAnswer>(bytes, STREAM_FRAME_LIMIT)),
        _ => drop(same::<TreeFrame>(bytes, STREAM_FRAME_LIMIT)),
    }
}

/// Decodes; one value has one encoding, and no other length is one.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8], limit: usize) -> Option<T> {
    let value = codec::decode::<T>(bytes, limit).ok()?;
    assert!(bytes.len() <= limit);
    let again = codec::encode(&value).expect("what was decoded can be encoded");
    assert_eq!(again, bytes, "one value has one encoding");
    assert_eq!(codec::decode::<T>(&again, limit).as_ref(), Ok(&value));
    assert!(codec::decode::<T>(&bytes[..bytes.len().saturating_sub(1)], limit).is_err(), "a cut value is none");
    assert!(codec::decode::<T>(&[bytes, &[0]].concat(), limit).is_err(), "nothing may follow a value");
    Some(value)
}

fn provider_frame(bytes: &[u8]) {
    if let Some(ProviderFrame::Refused(fault) | ProviderFrame::VoucherRefused(fault) | ProviderFrame::JobRefused { fault, .. }) =
        same::<ProviderFrame>(bytes, CONTROL_FRAME_LIMIT)
    {
        fault_is_safe(fault);
    }
}

fn answer(bytes: &[u8]) {
    if let Some(Answer::Refused(fault)) = same::<Answer>(bytes, ANSWER_LIMIT) {
        fault_is_safe(fault);
    }
}

/// A fault of a peer that was made safe to show is short and holds nothing that steers a terminal.
fn fault_is_safe(fault: Fault) {
    let tamed = fault.tamed();
    assert!(tamed.text.len() <= FAULT_TEXT_LIMIT, "{} bytes", tamed.text.len());
    assert!(!tamed.text.chars().any(char::is_control));
    assert_eq!(tamed.clone().tamed(), tamed);
    assert!(!tamed.to_string().is_empty());
}

/// Signs a statement that arrived with the key of a peer here: the proof holds for it, in this network and for this signer, and for nothing else.
fn signed_here<T: Statement + Clone + PartialEq + std::fmt::Debug>(body: T) -> Verified<T> {
    let key = &WORLD.provider.peer;
    let verified = Verified::sign(body.clone(), &WORLD.network, key);
    let signed = verified.signed().clone();
    assert_eq!(signed.clone().verify(&WORLD.network, &key.id()).map(|v| v.hash()), Ok(verified.hash()));
    assert!(signed.clone().verify(&"other".parse().unwrap(), &key.id()).is_err());
    assert!(signed.verify(&WORLD.network, &WORLD.stranger.id()).is_err());
    verified
}

pub(crate) fn offer(bytes: &[u8]) {
    let Some(signed) = same::<Signed<Offer>>(bytes, OFFER_LIMIT_BYTES) else { return };
    let offer = signed.unverified();
    // A stranger's bytes do not carry the signature of somebody else.
    let _ = signed.clone().verify(&WORLD.network, &offer.provider);
    let _ = offer.binding.verify(&WORLD.network, &WORLD.domain);
    let capabilities = offer.capabilities();
    assert!(capabilities.windows(2).all(|pair| pair[0] < pair[1]), "sorted, each once");
    if offer.check().is_err() {
        return;
    }
    assert!(offer.tools.len() <= TOOLS_LIMIT && offer.tools.iter().all(|tool| offer.tool(&tool.id) == Some(tool)));
    assert!(offer.expires_at.since(offer.issued_at) <= OFFER_LIFE && offer.expires_at > offer.issued_at);
    assert!(offer.freshness(offer.issued_at).is_ok() && offer.freshness(offer.expires_at).is_err());
    let digest = offer.digest(signed_here(offer.clone()).hash());
    assert_eq!(digest.check(), Ok(()), "the announcement of a sound offer is sound");
    let announced = codec::encode(Verified::sign(digest, &WORLD.network, &WORLD.provider.peer).signed()).unwrap();
    assert!(announced.len() <= DIGEST_LIMIT_BYTES, "an announcement of {} bytes", announced.len());
}

pub(crate) fn digest(bytes: &[u8]) {
    let Some(signed) = same::<Signed<Digest>>(bytes, DIGEST_LIMIT_BYTES) else { return };
    let digest = signed.unverified();
    let _ = signed.clone().verify(&WORLD.network, &digest.provider);
    if digest.check().is_err() {
        return;
    }
    assert!(digest.capabilities.len() <= DIGEST_CAPABILITIES_LIMIT && digest.capabilities.iter().all(|name| name.len() <= NAME_LIMIT));
    assert!(digest.freshness(digest.issued_at).is_ok() && digest.freshness(digest.expires_at).is_err());
    signed_here(digest.clone());
}

/// Byte 0 says of which kind the rest is: a receipt, or a job.
pub(crate) fn receipt(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    if kind % 2 == 1 {
        let Some(signed) = same::<Signed<Job>>(bytes, CONTROL_FRAME_LIMIT) else { return };
        let _ = signed.unverified().check();
        signed_here(signed.unverified().clone());
        return;
    }
    let Some(signed) = same::<Signed<Receipt>>(bytes, CONTROL_FRAME_LIMIT) else { return };
    let receipt = signed.unverified();
    assert!(signed.clone().verify(&WORLD.network, &WORLD.stranger.id()).is_err());
    let verified = signed_here(receipt.clone());
    // Any other content has another id.
    let mut other = receipt.clone();
    other.number = other.number.wrapping_add(1);
    assert_ne!(other.hash(&WORLD.network), verified.hash());
    for terms in &WORLD.agreed {
        let mut account = orien_protocol::ledger::Account::default();
        let taken = account.apply(terms, &verified);
        assert_eq!(taken.is_ok(), account.head().0 == 1, "a receipt is taken whole or not at all");
        assert!(taken.is_err() || account.charged() == receipt.charged);
    }
}

/// Byte 0 says of which kind the rest is: a voucher, an allowance, or a close.
pub(crate) fn money_statement(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 3 {
        0 => money_signed(same::<SignedVoucher>(bytes, CONTROL_FRAME_LIMIT)),
        1 => money_signed(same::<SignedAllowance>(bytes, CONTROL_FRAME_LIMIT)),
        _ => money_signed(same::<SignedClose>(bytes, CONTROL_FRAME_LIMIT)),
    }
}

fn money_signed<T: MoneyStatement + Clone + Copy + PartialEq + std::fmt::Debug>(signed: Option<MoneySigned<T>>) {
    let Some(signed) = signed else { return };
    let body = *signed.unverified();
    let (key, stranger) = (&WORLD.settlement, WORLD.stranger_money.address());
    assert!(signed.verify(&WORLD.domain, &stranger).is_err(), "nobody signed this as the stranger");
    let ours = *MoneyVerified::sign(body, &WORLD.domain, key).signed();
    assert!(ours.verify(&WORLD.domain, &key.address()).is_ok());
    assert!(ours.verify(&WORLD.domain, &stranger).is_err());
    // One statement has one signature of a key: what differs in its bytes does not hold.
    if signed.signature() != ours.signature() {
        let joined = signed.verify(&WORLD.domain, &key.address());
        assert!(joined.is_err(), "another signature of the same statement");
    }
}

/// Terms as they arrive: proposed by one, or signed by both.
pub(crate) fn terms(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    if kind % 2 == 1 {
        let Some(signed) = same::<Signed<Terms>>(bytes, CONTROL_FRAME_LIMIT) else { return };
        return any_terms(signed.unverified());
    }
    let Some(signed) = same::<SignedTerms>(bytes, CONTROL_FRAME_LIMIT) else { return };
    any_terms(signed.by_agent.unverified());
    if let Ok(terms) = signed.clone().verify(&WORLD.network) {
        assert_eq!(terms.to_signed(), signed, "proof does not change the bytes");
        assert!(terms.work_until < terms.redeem_until && terms.metering_interval.0 > 0 && terms.runs_at_once > 0);
        assert!(signed.verify(&"other".parse().unwrap()).is_err());
    }
}

fn any_terms(terms: &Terms) {
    let _ = terms.check_times(START, Millis(terms.metering_interval.0), Millis(terms.time_tolerance.0));
    let most = terms.interval_charge();
    let charges = terms.prices.iter().filter_map(|price| price.price.of(terms.metering_interval.0).ok());
    assert!(charges.into_iter().all(|charge| charge <= most), "the most that an interval costs");
    let channel = terms.channel();
    let mut other = channel;
    other.lane = orien_protocol::id::SessionId::from_bytes([0xa5; 16]);
    assert!(other == channel || other.id() != channel.id());
}
