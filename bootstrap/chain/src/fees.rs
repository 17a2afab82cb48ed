//! What a transaction offers for its gas, at first and while it is in no block: one arithmetic for everybody who sends.
//!
//! Always true: what takes the place of another transaction offers enough more for nodes to let it; nothing is ever offered above the cap, but for the one step of a transaction that carries nothing; where
//! both leave room, the market is followed.
//!
//! It does not know nonces, bytes or who sends, and reads no clock.

use orien_protocol::time::Millis;
use serde::{Deserialize, Serialize};

use crate::types::{FeeQuote, Wei};

/// The same bytes are handed out again after this while they are in no block: nodes drop what waits for long.
pub const RESEND_AFTER: Millis = Millis::from_secs(15);
/// What is in no block after this is given higher fees: five blocks of the slowest chain that is known.
pub const RAISE_AFTER: Millis = Millis::from_secs(60);
/// Most transactions for one nonce. Fees rise by an eighth from each to the next, so these span a factor of seven; beyond that a chain is not short of fees.
pub const FORMS_MAX: usize = 18;
/// The usual highest price of gas, 500 gwei: three times what an ordinary day on Ethereum asks, and twenty-five times the least of Arc.
pub const FEE_CAP: Wei = Wei::from_gwei(500);

/// What a transaction offers per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fees {
    /// Most per gas, all together.
    pub max_fee: Wei,
    /// Of it, most for whoever includes it.
    pub tip: Wei,
}

impl Fees {
    /// Twice what the next block asks, so that six full blocks in a row do not price it out, as far as the cap goes; none when the next block asks for more than that already.
    pub fn first(quote: FeeQuote, cap: Wei) -> Option<Self> {
        let max_fee = market(quote).min(cap);
        (quote.base_fee <= max_fee).then_some(Self { max_fee, tip: quote.tip.min(max_fee) })
    }

    /// What takes the place of one that offers this: both fees an eighth higher, since nodes want a tenth, or what the market asks if that is more; none when that would be above the cap.
    pub fn raised(self, quote: FeeQuote, cap: Wei) -> Option<Self> {
        let least = self.beyond();
        let max_fee = least.max_fee.max(market(quote).min(cap));
        let tip = least.tip.max(quote.tip).min(max_fee);
        (max_fee <= cap).then_some(Self { max_fee, tip })
    }

    /// The least that takes the place of one that offers this, whatever the cap: for a transaction that carries nothing and only uses the nonce up.
    pub fn beyond(self) -> Self {
        let eighth = |fee: Wei| Wei(fee.0.saturating_add(fee.0.div_ceil(8).max(1)));
        let max_fee = eighth(self.max_fee);
        Self { max_fee, tip: eighth(self.tip).min(max_fee) }
    }
}

fn market(quote: FeeQuote) -> Wei {
    Wei(quote.base_fee.0.saturating_mul(2).saturating_add(quote.tip.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn quote(base_fee: u128, tip: u128) -> FeeQuote {
        FeeQuote { base_fee: Wei(base_fee), tip: Wei(tip) }
    }

    const fn fees(max_fee: u128, tip: u128) -> Fees {
        Fees { max_fee: Wei(max_fee), tip: Wei(tip) }
    }

    /// Whether a node takes `new` in the place of `old`: both a tenth more, exactly, and more at all.
    fn is_taken(old: Fees, new: Fees) -> bool {
        let tenth = |old: Wei, new: Wei| new > old && new.0.saturating_mul(10) >= old.0.saturating_mul(11);
        tenth(old.max_fee, new.max_fee) && tenth(old.tip, new.tip) && new.tip <= new.max_fee
    }

    #[test]
    fn the_first_offer_has_room_for_twice_the_base_fee_and_stops_at_the_cap() {
        assert_eq!(Fees::first(quote(10, 2), FEE_CAP), Some(fees(22, 2)));
        assert_eq!(Fees::first(quote(10, 2), Wei(15)), Some(fees(15, 2)));
        assert_eq!(Fees::first(quote(10, 40), Wei(15)), Some(fees(15, 15)), "a tip is a part of what is offered");
        assert_eq!(Fees::first(quote(10, 2), Wei(10)), Some(fees(10, 2)));
        assert_eq!(Fees::first(quote(11, 2), Wei(10)), None, "the next block asks for more than the cap");
    }

    #[test]
    fn a_raise_is_an_eighth_or_the_market_and_ends_at_the_cap() {
        assert_eq!(fees(100, 8).raised(quote(1, 1), Wei(1000)), Some(fees(113, 9)));
        assert_eq!(fees(100, 8).raised(quote(300, 20), Wei(1000)), Some(fees(620, 20)), "the price has risen meanwhile");
        assert_eq!(fees(100, 8).raised(quote(300, 20), Wei(500)), Some(fees(500, 20)));
        assert_eq!(fees(100, 8).raised(quote(300, 20), Wei(112)), None, "no node would take 112 in the place of 100, and 113 is too much");
        assert_eq!(fees(100, 8).beyond(), fees(113, 9));
        assert_eq!(fees(0, 0).beyond(), fees(1, 1), "a chain without fees");
    }

    #[test]
    fn the_forms_of_one_nonce_span_a_factor_of_seven() {
        let last = (1..FORMS_MAX).fold(fees(1_000_000, 0), |fees, _| fees.beyond());
        assert_eq!(last.max_fee.0 / 1_000_000, 7);
    }

    proptest! {
        #[test]
        fn a_replacement_is_taken_by_every_node_within_the_cap_and_follows_the_market(
            base_fee in 0..=2_000_000_000_000_u128, tip in 0..=100_000_000_000_u128,
            later in 0..=2_000_000_000_000_u128, later_tip in 0..=100_000_000_000_u128,
            cap in 1..=1_000_000_000_000_u128,
        ) {
            let Some(mut offer) = Fees::first(quote(base_fee, tip), Wei(cap)) else {
                prop_assert!(base_fee > cap);
                return Ok(());
            };
            prop_assert!(offer.max_fee.0 <= cap && offer.tip <= offer.max_fee && offer.max_fee.0 >= base_fee);
            let now = quote(later, later_tip);
            while let Some(raised) = offer.raised(now, Wei(cap)) {
                prop_assert!(is_taken(offer, raised), "{offer:?} to {raised:?}");
                prop_assert!(raised.max_fee.0 <= cap);
                prop_assert!(raised.max_fee >= market(now).min(Wei(cap)));
                offer = raised;
            }
            prop_assert!(offer.beyond().max_fee.0 > cap, "a raise was left out at {offer:?}");
            prop_assert!(is_taken(offer, offer.beyond()));
        }
    }
}
