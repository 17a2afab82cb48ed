//! One transaction of ours on its way to the chain, and what to do with it next.
//!
//! Always true: every form of it that may be known to a node is in [`Outgoing`], which is stored before anything of it is sent; it is over only when its nonce is used in a final block, by whichever
//! form, and never because a node said so earlier.
//!
//! It does not know what the transaction is for, and what came of it is read from the escrow.

use orien_chain::{FeeQuote, RawTransaction, TxHash, Wei};
use orien_protocol::id::SessionId;
use orien_protocol::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

/// The same bytes are sent again this often while they are in no block: nodes drop what waits for long.
const AGAIN_AFTER: Millis = Millis::from_secs(15);
/// One that is in no block for so long is given higher fees.
const RAISE_AFTER: Millis = Millis::from_secs(60);
/// Times that fees are raised: by an eighth each, so to about three times of what they were. Beyond that the chain is not short of fees.
const FORMS_LIMIT: usize = 10;

/// What a transaction pays per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fees {
    /// At most, all together.
    pub(crate) most: Wei,
    /// To whoever makes the block.
    pub(crate) tip: Wei,
}

impl Fees {
    /// What gets a transaction into a block soon, and still does when the base fee doubles.
    pub(crate) fn now(quote: FeeQuote) -> Self {
        Self { most: Wei(quote.base_fee.0.saturating_mul(2).saturating_add(quote.tip.0)), tip: quote.tip }
    }

    /// The least that nodes take in its place: an eighth more of both, rounded up.
    fn raised(self) -> Self {
        let more = |price: Wei| Wei(price.0.saturating_add(price.0 / 8).saturating_add(1));
        Self { most: more(self.most), tip: more(self.tip) }
    }

    /// Instead of `before`, at the price of now if that is more.
    fn instead_of(before: Self, quote: FeeQuote) -> Self {
        let (least, now) = (before.raised(), Self::now(quote));
        let tip = least.tip.max(now.tip);
        Self { most: least.most.max(now.most).max(tip), tip }
    }
}

/// One signed form of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    /// Its bytes.
    pub(crate) raw: Vec<u8>,
    /// Its hash.
    pub(crate) hash: TxHash,
    /// What it pays.
    pub(crate) fees: Fees,
    /// When it was signed.
    pub(crate) signed_at: Timestamp,
}

impl Form {
    /// A form that was just signed.
    pub(crate) fn new(signed: RawTransaction, fees: Fees, signed_at: Timestamp) -> Self {
        Self { raw: signed.raw, hash: signed.hash, fees, signed_at }
    }
}

/// One transaction, from before it was sent until its nonce is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    /// Its number among those of its sender.
    pub(crate) nonce: u64,
    /// What it calls.
    pub(crate) data: Vec<u8>,
    /// The most gas that it may use.
    pub(crate) gas_limit: u64,
    /// For which sessions.
    pub(crate) sessions: Vec<SessionId>,
    /// The oldest first.
    pub(crate) forms: Vec<Form>,
    /// When it was last handed to nodes.
    pub(crate) sent_at: Timestamp,
}

/// What is known of the chain at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The sender's next nonce in the newest block.
    pub(crate) next_nonce: u64,
    /// The sender's next nonce in the newest final block.
    pub(crate) next_nonce_final: u64,
    /// What gas costs.
    pub(crate) quote: FeeQuote,
    /// The time.
    pub(crate) now: Timestamp,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its nonce is final: forget it, and read what it brought.
    Over,
    /// Nothing now.
    Wait,
    /// Hand the newest form to nodes again.
    Again,
    /// Sign it anew at these fees, store that, and send it.
    Raise(Fees),
}

/// What to do with a transaction.
pub(crate) fn next(outgoing: &Outgoing, facts: &Facts) -> Step {
    if facts.next_nonce_final > outgoing.nonce {
        return Step::Over;
    }
    // In a block, which may still be another one tomorrow.
    if facts.next_nonce > outgoing.nonce {
        return Step::Wait;
    }
    let Some(newest) = outgoing.forms.last() else { return Step::Raise(Fees::now(facts.quote)) };
    if facts.now.since(newest.signed_at) >= RAISE_AFTER && outgoing.forms.len() < FORMS_LIMIT {
        return Step::Raise(Fees::instead_of(newest.fees, facts.quote));
    }
    if facts.now.since(outgoing.sent_at) >= AGAIN_AFTER { Step::Again } else { Step::Wait }
}

#[cfg(test)]
mod tests {
    use orien_protocol::hash::Hash;

    use super::*;

    fn form(signed_at: u64, most: u128) -> Form {
        Form {
            raw: vec![1],
            hash: TxHash::from_hash(Hash::ZERO),
            fees: Fees { most: Wei(most), tip: Wei(1) },
            signed_at: Timestamp(signed_at),
        }
    }

    fn outgoing(forms: Vec<Form>) -> Outgoing {
        Outgoing { nonce: 5, data: vec![], gas_limit: 1, sessions: vec![], forms, sent_at: Timestamp(0) }
    }

    fn facts(next_nonce: u64, next_nonce_final: u64, now: u64) -> Facts {
        Facts { next_nonce, next_nonce_final, quote: FeeQuote { base_fee: Wei(10), tip: Wei(2) }, now: Timestamp(now) }
    }

    #[test]
    fn a_transaction_is_over_only_when_its_nonce_is_final() {
        let sent = outgoing(vec![form(0, 100)]);
        assert_eq!(next(&sent, &facts(5, 5, 1)), Step::Wait);
        assert_eq!(next(&sent, &facts(6, 5, 900_000)), Step::Wait, "in a block that may go again");
        assert_eq!(next(&sent, &facts(5, 5, 20_000)), Step::Again, "and went");
        assert_eq!(next(&sent, &facts(6, 6, 1)), Step::Over);
        // Whoever used the nonce.
        assert_eq!(next(&sent, &facts(9, 9, 1)), Step::Over);
    }

    #[test]
    fn fees_rise_by_at_least_an_eighth_follow_the_price_and_rise_no_more_after_some_times() {
        let raised = |forms: Vec<Form>| next(&outgoing(forms), &facts(5, 5, 60_000));
        assert_eq!(raised(vec![form(0, 100)]), Step::Raise(Fees { most: Wei(113), tip: Wei(2) }));
        assert_eq!(raised(vec![form(0, 8)]), Step::Raise(Fees { most: Wei(22), tip: Wei(2) }), "the price has risen meanwhile");
        assert_eq!(raised(vec![form(1, 100)]), Step::Again, "not yet");
        assert_eq!(raised(vec![form(0, 100); FORMS_LIMIT]), Step::Again);
        assert_eq!(raised(vec![]), Step::Raise(Fees { most: Wei(22), tip: Wei(2) }), "a crash before the first form was stored");
    }
}
