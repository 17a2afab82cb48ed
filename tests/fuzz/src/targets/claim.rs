//! A claim at settlement: the documents of a channel, each right or wrong in one way. Whatever is accepted was promised by the agent, within what settlement reserved.

use std::sync::LazyLock;

use orien_protocol::channel::ChannelId;
use orien_protocol::codec;
use orien_protocol::frame::{Claim, QUESTION_LIMIT};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::Receipt;
use orien_protocol::signing::Verified;
use orien_protocol::terms::SignedTerms;
use orien_protocol::voucher::{Close, MoneyVerified, Voucher};
use orien_settlement::evidence::CheckedClaim;

use super::bytes::Bytes;
use super::world::{KINDS, START, WORLD, usdc};

static TERMS: LazyLock<Vec<SignedTerms>> = LazyLock::new(|| WORLD.agreed.iter().map(|terms| terms.to_signed()).collect());

/// Byte 0 below 4: the rest is an encoded claim. Otherwise the bytes choose what the documents say and what is wrong with them.
pub(crate) fn claim(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let kind = bytes.u8();
    let claim = if kind < KINDS {
        let Ok(claim) = codec::decode::<Claim>(bytes.rest(), QUESTION_LIMIT) else { return };
        claim
    } else {
        made(kind % KINDS, &mut bytes)
    };
    let Ok(checked) = CheckedClaim::check(claim.clone(), &WORLD.facts) else { return };
    let (voucher, allowance, terms, receipt) = (checked.voucher(), checked.allowance(), checked.terms(), checked.receipt());
    assert!(voucher.total <= allowance.ceiling, "never more than settlement reserved");
    assert_eq!((voucher.total, voucher.receipt_number, voucher.receipt_hash), (receipt.charged, receipt.number, receipt.hash()));
    assert_eq!((voucher.channel, allowance.channel), (terms.channel(), terms.channel()));
    assert_eq!((receipt.signer(), terms.settlement_signer), (terms.provider(), WORLD.facts.signer));
    assert!(checked.close_total().is_none_or(|total| total >= voucher.total));
    assert_eq!(checked.claim(), &claim, "what is kept is what came");
    assert!(codec::encode(&claim).is_ok_and(|bytes| bytes.len() <= QUESTION_LIMIT));
}

fn made(kind: u8, bytes: &mut Bytes<'_>) -> Claim {
    let terms = WORLD.agreed(kind);
    let (charged, ceiling, number) = (usdc(bytes.amount()), usdc(bytes.amount()), u64::from(bytes.u8()));
    let (wrong_receipt, wrong_voucher) = (bytes.below(16), bytes.below(16));
    let mut receipt = Receipt {
        session: terms.session,
        terms: terms.hash(),
        number,
        previous: Hash::ZERO,
        at: START,
        confinement: Confinement::S1,
        work: None,
        charged,
    };
    match wrong_receipt {
        1 => receipt.session = SessionId::from_parts(0, 1),
        2 => receipt.terms = Hash::ZERO,
        _ => {}
    }
    let signer = if wrong_receipt == 3 { &WORLD.stranger } else { &*WORLD.provider.peer };
    let receipt = Verified::sign(receipt, &WORLD.network, signer);
    let mut voucher = Voucher { channel: terms.channel(), total: charged, receipt_number: number, receipt_hash: receipt.hash() };
    match wrong_voucher {
        1 => voucher.channel = ChannelId::from_hash(Hash::ZERO),
        2 => voucher.total = usdc(charged.micros().wrapping_add(1)),
        3 => voucher.receipt_number = number + 1,
        4 => voucher.receipt_hash = Hash::ZERO,
        _ => {}
    }
    let key = if wrong_voucher == 5 { &WORLD.stranger_money } else { &*WORLD.agent.spending };
    let voucher = *MoneyVerified::sign(voucher, &WORLD.domain, key).signed();
    let allowance = WORLD.some_allowance(terms, ceiling, bytes.below(16));
    let close = (bytes.below(3) > 0).then(|| some_close(terms.channel(), charged.micros(), bytes));
    // Documents of another channel beside these.
    let other = if bytes.u8() >= 250 { 1 } else { 0 };
    let terms = TERMS[usize::from((kind + other) % KINDS)].clone();
    Claim { terms, allowance, voucher, receipt: receipt.into_signed(), close }
}

fn some_close(channel: ChannelId, charged: u64, bytes: &mut Bytes<'_>) -> orien_protocol::voucher::SignedClose {
    let wrong = bytes.below(8);
    let total = if wrong == 1 { bytes.amount() } else { charged };
    let channel = if wrong == 2 { ChannelId::from_hash(Hash::ZERO) } else { channel };
    let key = if wrong == 3 { &WORLD.stranger_money } else { &*WORLD.provider.claim };
    *MoneyVerified::sign(Close { channel, total: usdc(total) }, &WORLD.domain, key).signed()
}
