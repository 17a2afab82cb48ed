//! Releases: a session did not open, its payee gives the channel up, and the whole reservation goes back at once.
//!
//! The close decides, whoever shows it (M11). One for a channel that nobody has reserved yet is kept too, so that a reservation that is still on its way is refused when it comes.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::ChannelState;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::time::Timestamp;

use super::reserving::opened;
use super::{Books, Change, ChannelRecord, ChannelStatus};
use crate::evidence::CheckedRelease;
use crate::ledger::{Postings, Reason};

impl Books {
    /// Plans the end of a channel from which nothing was redeemed. One that has ended already gets its state and changes nothing.
    pub fn release(&self, caller: PeerId, release: &CheckedRelease, now: Timestamp) -> Result<(Change, ChannelState), Fault> {
        let Some(old) = self.channel(&release.terms().channel()) else { return self.close_unreserved(caller, release, now) };
        if old.terms != release.terms().hash() {
            return Err(Fault::new(FaultCode::CONFLICT, "the channel was reserved under other terms"));
        }
        if old.redeemed > Usdc::ZERO {
            return Err(Fault::new(FaultCode::WRONG_STATE, "the channel was redeemed from; it is closed with a claim"));
        }
        if !old.live() {
            return Ok((Change::default(), old.state()));
        }
        if self.rail.follows_chain() {
            let text = format!(
                "on chain nothing frees a reservation but its redemption, a close that is final, or its time: it ends at {}",
                old.redeem_until.0
            );
            return Err(Fault::new(FaultCode::WRONG_STATE, text));
        }
        let record = ChannelRecord { status: ChannelStatus::Closed, close: Some(*release.close()), ..old.clone() };
        let mut postings = Postings::new(self.ledger(), now);
        let rest = Self::give_rest_back(&record, Reason::Close, &mut postings)?;
        let account = self.account(&record.account).map(|account| account.with_returned(rest, now));
        let state = record.state();
        let change = Change {
            transfers: postings.finish(),
            accounts: account.map(|account| (record.account, account)).into_iter().collect(),
            channels: vec![record],
            ..Change::default()
        };
        Ok((change, state))
    }

    /// Remembers the close of a channel that was never reserved. Only for the agent of an account that is known here: strangers must not fill the books.
    fn close_unreserved(&self, caller: PeerId, release: &CheckedRelease, now: Timestamp) -> Result<(Change, ChannelState), Fault> {
        let terms = release.terms();
        let is_over = terms.work_until.timestamp() <= now;
        if is_over || self.account(&terms.account()).is_none() || self.check_caller(caller, terms).is_err() {
            return Err(Fault::new(FaultCode::NOT_FOUND, "nothing was reserved for this channel here"));
        }
        let mut record = opened(terms, self.allowance(terms, Usdc::ZERO));
        (record.status, record.close) = (ChannelStatus::Closed, Some(*release.close()));
        let state = record.state();
        Ok((Change { channels: vec![record], ..Change::default() }, state))
    }
}
