//! Hostile bytes are refused, whatever they are.

use orien_protocol::codec::{CodecError, VALUE_LIMIT_BYTES, decode, encode};
use orien_protocol::fault::{FAULT_TEXT_LIMIT, Fault, FaultCode};
use orien_protocol::frame::{
    AgentFrame, Answer, FileRequest, InputAnswer, InputFrame, InputRequest, LogFrame, ProviderFrame, Question, TreeFrame,
};
use orien_protocol::offer::Offer;
use orien_protocol::session::agent::AgentRecord;
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::signing::Signed;
use proptest::prelude::*;

use crate::pair::Pair;

fn decode_everything(bytes: &[u8]) {
    let limit = VALUE_LIMIT_BYTES;
    let _ = decode::<AgentFrame>(bytes, limit);
    let _ = decode::<ProviderFrame>(bytes, limit);
    let _ = decode::<Question>(bytes, limit);
    let _ = decode::<Answer>(bytes, limit);
    let _ = decode::<FileRequest>(bytes, limit);
    let _ = decode::<TreeFrame>(bytes, limit);
    let _ = decode::<LogFrame>(bytes, limit);
    let _ = decode::<InputRequest>(bytes, limit);
    let _ = decode::<InputFrame>(bytes, limit);
    let _ = decode::<InputAnswer>(bytes, limit);
    let _ = decode::<Signed<Offer>>(bytes, limit);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic_a_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        decode_everything(&bytes);
    }

    #[test]
    fn a_changed_byte_never_makes_the_same_receipt_valid(position in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let pair = Pair::open(100_000);
        let receipt = pair.provider_log.iter().find_map(|r| if let ProviderRecord::Receipt(r) = r { Some(r.clone()) } else { None }).unwrap();
        let mut bytes = encode(&receipt).unwrap();
        let index = position.index(bytes.len());
        bytes[index] ^= flip;
        if let Ok(changed) = decode::<Signed<orien_protocol::receipt::Receipt>>(&bytes, VALUE_LIMIT_BYTES) {
            prop_assert!(changed.verify(&pair.kit.network, &pair.kit.provider.peer.id()).is_err());
        }
    }
}

#[test]
fn every_record_and_frame_comes_back_and_a_cut_or_lengthened_one_does_not() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    pair.finish(run, orien_protocol::receipt::EndReason::Exited, Some(0));
    for record in &pair.provider_log {
        let bytes = encode(record).unwrap();
        assert_eq!(decode::<ProviderRecord>(&bytes, VALUE_LIMIT_BYTES).as_ref(), Ok(record));
        assert!(decode::<ProviderRecord>(&bytes[..bytes.len() - 1], VALUE_LIMIT_BYTES).is_err());
        assert!(decode::<ProviderRecord>(&[bytes, vec![0]].concat(), VALUE_LIMIT_BYTES).is_err());
    }
    for record in &pair.agent_log {
        let bytes = encode(record).unwrap();
        assert_eq!(decode::<AgentRecord>(&bytes, VALUE_LIMIT_BYTES).as_ref(), Ok(record));
    }
}

#[test]
fn a_length_prefix_beyond_the_limit_is_refused_before_anything_is_allocated() {
    // An answer that says that a list of 2^60 offers follows.
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    bytes.extend((1_u64 << 60).to_le_bytes());
    assert!(matches!(decode::<Answer>(&bytes, VALUE_LIMIT_BYTES), Err(CodecError::Malformed { .. })));
    assert!(matches!(decode::<Answer>(&[0; 100], 99), Err(CodecError::TooLarge { length: 100, limit: 99 })));
}

#[test]
fn the_text_of_a_fault_is_cut_by_its_bytes_and_between_two_characters() {
    for text in ["x".repeat(4_000), "\u{e9}".repeat(400), format!("x{}", "\u{1f600}".repeat(300))] {
        let fault = Fault { code: FaultCode::BUSY, text: text.clone(), missing: None }.tamed();
        assert!(fault.text.len() <= FAULT_TEXT_LIMIT && fault.text.len() + 4 > FAULT_TEXT_LIMIT, "{}", fault.text.len());
        assert!(text.starts_with(&fault.text));
        assert_eq!(Fault::new(FaultCode::BUSY, &text).text, fault.text);
    }
}
