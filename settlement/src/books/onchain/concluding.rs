//! What a flight that is over means for its claims: those that final logs did not settle are tried again, or set aside with the reason.

use orien_protocol::money::Usdc;

use super::{ChainChange, FAILURES_MAX, Parked};
use crate::books::{Books, Change};
use crate::paying::{Flight, Stage};

impl Books {
    /// Plans the end of a flight. Its final logs must have been folded.
    pub fn conclude(&self, flight: &Flight) -> Change {
        let mut change = ChainChange { flights: vec![flight.clone()], landed: vec![flight.nonce], ..ChainChange::default() };
        for claim in &flight.claims {
            let (Some(record), Some(chain)) = (self.channel(&claim.channel), self.chain_channel(&claim.channel)) else { continue };
            let mut next = *chain;
            let is_short = record.live() && record.redeemed < claim.total && chain.parked.is_none();
            match flight.stage {
                Stage::Final { success: true, .. } => {
                    // A close of a total that was not reached, or of a claim that was refused, is not on chain.
                    next.close_sent |= claim.closes && !is_short && chain.parked.is_none();
                    // It was neither paid nor refused: the account's escrow did not reach.
                    next.parked = if is_short { Some(Parked::ShortEscrow) } else { chain.parked };
                }
                Stage::Final { success: false, .. } if is_short => {
                    next.failures = chain.failures.saturating_add(1);
                    next.parked = (next.failures >= FAILURES_MAX).then_some(Parked::Reverts);
                }
                _ => {}
            }
            let claimed = record.voucher.map_or(Usdc::ZERO, |voucher| voucher.unverified().total);
            if claimed <= record.redeemed && next.close_sent {
                next.waiting_since = None;
            }
            if next != *chain {
                change.channels.push((claim.channel, record.account, next));
            }
        }
        Change { chain: change, ..Change::default() }
    }
}
