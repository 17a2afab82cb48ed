//! One transaction of ours on its way to the chain, and what to do with it next.
//!
//! Always true: every form of it that may be known to a node is in [`Outgoing`], which is stored before anything of it is sent; it is over only when its nonce is used in a final block, by whichever
//! form, and never because a node said so earlier.
//!
//! It does not know what the transaction is for, and what came of it is read from the escrow.

use orien_chain::fees::FORMS_MAX;
use orien_chain::{FeeQuote, Fees, RawTransaction, TxHash, Wei};
use orien_protocol::id::SessionId;
use orien_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::SendingRules;

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
    /// When it is sent again, and offered more for.
    pub(crate) rules: SendingRules,
    /// What the sender has to pay for gas.
    pub(crate) purse: Wei,
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
    // What the purse does not reach for, nodes refuse.
    let cap = facts.rules.fee_cap.min(Wei(facts.purse.0 / u128::from(outgoing.gas_limit.max(1))));
    let Some(newest) = outgoing.forms.last() else {
        return Fees::first(facts.quote, cap).map_or(Step::Wait, Step::Raise);
    };
    if is_to_be_raised(outgoing, newest, facts)
        && let Some(fees) = newest.fees.raised(facts.quote, cap)
    {
        return Step::Raise(fees);
    }
    if facts.now.since(outgoing.sent_at) >= facts.rules.resend_after { Step::Again } else { Step::Wait }
}

fn is_to_be_raised(outgoing: &Outgoing, newest: &Form, facts: &Facts) -> bool {
    facts.now.since(newest.signed_at) >= facts.rules.raise_after && outgoing.forms.len() < FORMS_MAX
}

/// How much the purse is short of: for the next form if one is due, or for the newest. Zero when it is not the purse that is in the way.
pub(crate) fn missing(outgoing: &Outgoing, facts: &Facts) -> Wei {
    let short = |fees: Fees| Wei(fees.max_fee.times(outgoing.gas_limit).0.saturating_sub(facts.purse.0));
    let Some(newest) = outgoing.forms.last() else {
        return Fees::first(facts.quote, facts.rules.fee_cap).map_or(Wei::ZERO, short);
    };
    let next = is_to_be_raised(outgoing, newest, facts).then(|| newest.fees.raised(facts.quote, facts.rules.fee_cap)).flatten();
    short(next.unwrap_or(newest.fees))
}

/// The form that is handed to nodes: the newest that the purse pays for, since a node that lost all of them takes no other; the newest when it pays for none.
pub(crate) fn to_send(forms: &[Form], gas_limit: u64, purse: Wei) -> Option<&Form> {
    let is_paid = |form: &&Form| form.fees.max_fee.times(gas_limit) <= purse;
    forms.iter().rev().find(is_paid).or(forms.last())
}

#[cfg(test)]
mod tests {
    use orien_protocol::hash::Hash;

    use super::*;

    fn form(signed_at: u64, max_fee: u128) -> Form {
        Form {
            raw: vec![1],
            hash: TxHash::from_hash(Hash::ZERO),
            fees: Fees { max_fee: Wei(max_fee), tip: Wei(1) },
            signed_at: Timestamp(signed_at),
        }
    }

    fn outgoing(forms: Vec<Form>) -> Outgoing {
        Outgoing { nonce: 5, data: vec![], gas_limit: 1, sessions: vec![], forms, sent_at: Timestamp(0) }
    }

    fn rules(cap: u128) -> SendingRules {
        SendingRules { fee_cap: Wei(cap), ..SendingRules::default() }
    }

    fn facts(next_nonce: u64, next_nonce_final: u64, now: u64) -> Facts {
        let quote = FeeQuote { base_fee: Wei(10), tip: Wei(2) };
        Facts { next_nonce, next_nonce_final, quote, rules: rules(200), purse: Wei(u128::MAX), now: Timestamp(now) }
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
    fn fees_rise_after_a_minute_up_to_the_cap_and_a_number_of_times_and_then_the_newest_is_sent_again() {
        let next = |forms: Vec<Form>| next(&outgoing(forms), &facts(5, 5, 60_000));
        let fees = |max_fee| Fees { max_fee: Wei(max_fee), tip: Wei(2) };
        assert_eq!(next(vec![form(0, 100)]), Step::Raise(fees(113)));
        assert_eq!(next(vec![form(1, 100)]), Step::Again, "not yet");
        assert_eq!(next(vec![form(0, 180)]), Step::Again, "the next would be above the cap");
        assert_eq!(next(vec![form(0, 100); FORMS_MAX]), Step::Again, "often enough");
        assert_eq!(next(vec![]), Step::Raise(fees(22)), "a crash before the first form was stored");
        let dear = Facts { rules: rules(9), ..facts(5, 5, 60_000) };
        assert_eq!(super::next(&outgoing(vec![]), &dear), Step::Wait, "gas costs more than is offered");
    }

    #[test]
    fn fees_rise_as_far_as_the_purse_reaches_and_it_is_said_how_much_is_missing_for_more() {
        let gas = 10;
        let sent = |fees: &[u128]| Outgoing { gas_limit: gas, ..outgoing(fees.iter().map(|fee| form(0, *fee)).collect()) };
        let with = |purse: u128| Facts { purse: Wei(purse), ..facts(5, 5, 60_000) };
        let fees = |max_fee| Fees { max_fee: Wei(max_fee), tip: Wei(2) };
        assert_eq!(next(&sent(&[100]), &with(1130)), Step::Raise(fees(113)), "just enough");
        assert_eq!(missing(&sent(&[100]), &with(1130)), Wei::ZERO);
        assert_eq!(next(&sent(&[100]), &with(1129)), Step::Again, "one wei short of the least that takes its place");
        assert_eq!(missing(&sent(&[100]), &with(1129)), Wei(1));
        // The market asks for more than the purse has: as far as it reaches.
        let dear = Facts { quote: FeeQuote { base_fee: Wei(90), tip: Wei(2) }, ..with(1500) };
        assert_eq!(next(&sent(&[100]), &dear), Step::Raise(fees(150)));
        assert_eq!(missing(&sent(&[100]), &dear), Wei(320), "182 are asked for");
        // Without a form yet, and with one that is not due for a raise.
        assert_eq!((next(&sent(&[]), &with(90)), missing(&sent(&[]), &with(90))), (Step::Wait, Wei(130)));
        assert_eq!(missing(&sent(&[100]), &Facts { now: Timestamp(1), ..with(999) }), Wei(1));
    }

    #[test]
    fn the_newest_form_that_the_purse_pays_for_is_sent_again() {
        let forms = [form(0, 100), form(1, 113), form(2, 128)];
        let max_fee = |purse: u128| to_send(&forms, 10, Wei(purse)).map(|form| form.fees.max_fee.0);
        assert_eq!((max_fee(1280), max_fee(1279), max_fee(1000)), (Some(128), Some(113), Some(100)));
        assert_eq!(max_fee(999), Some(128), "none of them: the newest, once there is more");
        assert_eq!(to_send(&[], 10, Wei(1)), None);
    }
}
