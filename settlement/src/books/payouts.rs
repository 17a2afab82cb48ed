//! Exports: payouts leave the books through the rail, each once.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::hash::Hash;
use orien_protocol::id::PayoutId;
use orien_protocol::time::Timestamp;

use super::{Books, Change, FirstAnswer, RequestKey, RequestRecord};
use crate::batch::{EXPORT_PAYOUTS_MAX, PayoutState};
use crate::ledger::{LedgerAccount, Postings, Reason};

impl Books {
    /// Plans the export of what is payable, under the operator's own name for it; repeated, it names the same payouts.
    pub fn export(&self, name: &str, now: Timestamp) -> Result<(Change, Vec<PayoutId>), Fault> {
        if self.rail.follows_chain() {
            return Err(Fault::new(FaultCode::WRONG_STATE, "this network has a chain: it pays by itself, and nothing is exported"));
        }
        let key = RequestKey::Export(name.to_owned());
        if let Some(FirstAnswer::Exported(payouts)) = self.seen(&key, &Hash::ZERO)? {
            return Ok((Change::default(), payouts.clone()));
        }
        let mut postings = Postings::new(self.ledger(), now);
        let (mut change, mut ids) = (Change::default(), Vec::new());
        for payout in self.payable.values().take(EXPORT_PAYOUTS_MAX) {
            let mut payout = *payout;
            payout.state = self.rail.pay_out(&payout, now);
            if payout.state == PayoutState::Payable {
                continue;
            }
            let (from, to) = (LedgerAccount::Payee(payout.payee), LedgerAccount::Settled(payout.payee));
            postings.add(from, to, payout.amount, Reason::PayOut).map_err(|error| Fault::new(FaultCode::INTERNAL, error))?;
            ids.push(payout.id);
            change.payouts.push(payout);
        }
        change.transfers = postings.finish();
        let answer = FirstAnswer::Exported(ids.clone());
        change.requests.push((key, RequestRecord { body: Hash::ZERO, answer, keep_until: None }));
        Ok((change, ids))
    }

    /// How many payouts wait to be exported.
    pub fn payable(&self) -> usize {
        self.payable.len()
    }
}
