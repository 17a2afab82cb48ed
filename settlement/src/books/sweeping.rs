//! What time alone ends: channels that can no longer be redeemed, and requests that need not be remembered.

use std::collections::BTreeMap;

use orien_protocol::fault::Fault;
use orien_protocol::signing::Address;
use orien_protocol::time::{Timestamp, UnixSeconds};

use super::{AccountRecord, Books, Change, ChannelStatus, RequestKey};
use crate::ledger::{Postings, Reason};

/// Most channels and most requests that one sweep ends, so that one transaction stays small; what is left is for the next.
const SWEEP_MAX: usize = 256;

impl Books {
    /// Plans the end of what is over at `now`; empty when nothing is.
    pub fn sweep(&self, now: Timestamp) -> Result<Change, Fault> {
        let mut postings = Postings::new(self.ledger(), now);
        let mut change = Change::default();
        let mut accounts: BTreeMap<Address, AccountRecord> = BTreeMap::new();
        // On a chain, time is what its final blocks say: until then a redemption could still be on its way.
        let over = if self.rail.follows_chain() { self.cursor().map_or(UnixSeconds(0), |cursor| cursor.time) } else { now.seconds() };
        for (_, channel) in self.ends.iter().take_while(|(end, _)| *end < over).take(SWEEP_MAX) {
            let Some(old) = self.channel(channel) else { continue };
            let mut record = old.clone();
            record.status = ChannelStatus::Expired;
            let rest = Self::give_rest_back(&record, Reason::Expire, &mut postings)?;
            if let Some(account) = accounts.get(&record.account).or_else(|| self.account(&record.account)) {
                let account = account.with_returned(rest, now);
                accounts.insert(record.account, account);
            }
            change.channels.push(record);
        }
        change.transfers = postings.finish();
        change.accounts = accounts.into_iter().collect();
        change.forgotten = self.stale(now).take(SWEEP_MAX).cloned().collect();
        Ok(change)
    }

    fn stale(&self, now: Timestamp) -> impl Iterator<Item = &RequestKey> {
        self.requests.iter().filter(move |(_, record)| record.keep_until.is_some_and(|end| end < now)).map(|(key, _)| key)
    }
}
