//! Grants: the operator gives an account credit, names who may spend it and how much a day.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::Timestamp;

use super::{Books, Change, FirstAnswer, RequestKey, RequestRecord, SPENDING_KEYS_MAX};
use crate::ledger::{LedgerAccount, Postings, Reason};

/// What the operator gives to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub account: Address,
    /// Credit to add; may be zero when a key or a cap is given.
    pub amount: Usdc,
    /// Who may promise it; the account itself when no other key is named.
    pub spending_key: Option<Address>,
    /// A new daily cap.
    pub daily_cap: Option<Usdc>,
}

impl Grant {
    /// Credit alone, spent by the account's own key.
    pub const fn of(account: Address, amount: Usdc) -> Self {
        Self { account, amount, spending_key: None, daily_cap: None }
    }

    fn body(&self) -> Hash {
        let mut bytes = self.account.as_bytes().to_vec();
        bytes.extend_from_slice(&self.amount.micros().to_be_bytes());
        for part in [self.spending_key.map(|key| key.as_bytes().to_vec()), self.daily_cap.map(|cap| cap.micros().to_be_bytes().to_vec())] {
            bytes.push(u8::from(part.is_some()));
            bytes.extend(part.unwrap_or_default());
        }
        Hash::of(&bytes)
    }
}

impl Books {
    /// Plans a grant under the operator's own name for it.
    pub fn grant(&self, key: &str, grant: &Grant, now: Timestamp) -> Result<Change, Fault> {
        let (key, body) = (RequestKey::Grant(key.to_owned()), grant.body());
        if self.seen(&key, &body)?.is_some() {
            return Ok(Change::default());
        }
        if self.rail.follows_chain() {
            return Err(Fault::new(FaultCode::WRONG_STATE, "this network has a chain: money comes by deposit at its escrow, not by grant"));
        }
        if grant.amount == Usdc::ZERO && grant.spending_key.is_none() && grant.daily_cap.is_none() {
            return Err(Fault::new(
                FaultCode::MALFORMED,
                "a grant of nothing that names neither a spending key nor a daily cap changes nothing",
            ));
        }
        let mut record = self.account(&grant.account).cloned().unwrap_or_default();
        record.granted = record.granted.plus(grant.amount).map_err(|error| Fault::new(FaultCode::TOO_LARGE, error))?;
        record.daily_cap = grant.daily_cap.or(record.daily_cap);
        let spender = grant.spending_key.unwrap_or(grant.account);
        if !record.spending_keys.contains(&spender) {
            if record.spending_keys.len() >= SPENDING_KEYS_MAX {
                return Err(Fault::new(FaultCode::TOO_LARGE, format_args!("an account has at most {SPENDING_KEYS_MAX} spending keys")));
            }
            record.spending_keys.push(spender);
        }
        let mut postings = Postings::new(self.ledger(), now);
        let internal = |error| Fault::new(FaultCode::INTERNAL, error);
        postings.add(LedgerAccount::Operator, LedgerAccount::Agent(grant.account), grant.amount, Reason::Grant).map_err(internal)?;
        let request = RequestRecord { body, answer: FirstAnswer::Granted, keep_until: None };
        Ok(Change {
            transfers: postings.finish(),
            accounts: vec![(grant.account, record)],
            requests: vec![(key, request)],
            ..Change::default()
        })
    }

    /// The first answer to a request, if it was carried out; a conflict if another one was under the same name.
    pub(super) fn seen(&self, key: &RequestKey, body: &Hash) -> Result<Option<&FirstAnswer>, Fault> {
        match self.requests.get(key) {
            None => Ok(None),
            Some(record) if record.body == *body => Ok(Some(&record.answer)),
            Some(_) => Err(Fault::new(FaultCode::CONFLICT, "this request id was used for something else")),
        }
    }
}
