//! Before a session has an allowance: does the escrow carry it?

use std::time::Duration;

use orien_bootstrap::escrow::{self, EscrowReading};
use orien_chain::ChainError;
use orien_protocol::channel::Channel;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::terms::Terms;

use super::{Watched, Ways};
use crate::house::House;

/// Longest look: the place is held for half a minute, and receipt 1 and its voucher have to cross in the rest.
const LOOK_LIMIT: Duration = Duration::from_secs(12);

impl Ways {
    /// Whether an allowance of `ceiling` under these terms is carried by the escrow, beside what the account has promised in other sessions here. From then on the session is looked at.
    pub(crate) async fn vet(&self, house: &House, terms: &Terms, ceiling: Usdc) -> Result<(), Fault> {
        let (session, channel) = (terms.session, terms.channel());
        // First, so that two that open at once count each other.
        self.watch(terms, ceiling);
        let judged = self.judge(house, terms, &channel, ceiling).await;
        if judged.is_err() {
            self.known().watched.remove(&session);
        }
        judged
    }

    async fn judge(&self, house: &House, terms: &Terms, channel: &Channel, ceiling: Usdc) -> Result<(), Fault> {
        let reading = match tokio::time::timeout(LOOK_LIMIT, self.read(house, *channel)).await {
            Ok(Ok(reading)) => reading,
            Ok(Err(error)) => return Err(unreadable(&error.to_string())),
            Err(_) => return Err(unreadable("no answer in time")),
        };
        if let Some(reason) = self.standstill(house, &reading.at).await {
            return Err(unreadable(&reason));
        }
        let others = self.promised_elsewhere(house, channel, terms.session);
        escrow::check_fit(&reading, terms, ceiling, others, self.exit_delay).map_err(|unfit| {
            tracing::info!(session = %terms.session, account = %channel.account, %unfit, "an allowance is not carried by the escrow");
            unfit.fault()
        })?;
        house.book().held(channel.account, reading.free());
        if let Some(watched) = self.known().watched.get_mut(&terms.session) {
            watched.seen = reading.channel;
        }
        Ok(())
    }

    async fn read(&self, house: &House, channel: Channel) -> Result<EscrowReading, ChainError> {
        self.ready(house).await?;
        EscrowReading::take(&self.chain, &channel).await
    }

    /// A session whose money is looked at from now on.
    pub(crate) fn watch(&self, terms: &Terms, ceiling: Usdc) {
        let watched = Watched {
            channel: terms.channel(),
            ceiling,
            work_until: terms.work_until,
            redeem_until: terms.redeem_until,
            lock_tried: false,
            bar: None,
            seen: orien_chain::EscrowChannel::default(),
        };
        self.known().watched.insert(terms.session, watched);
    }

    /// What the account may still take here in other sessions, and no lock of theirs covers: the whole of their ceilings while they are open, what they promised when they are not.
    fn promised_elsewhere(&self, house: &House, channel: &Channel, session: SessionId) -> Usdc {
        let others: Vec<(SessionId, Watched)> = {
            let known = self.known();
            let of_account = known.watched.iter().filter(|(id, watched)| **id != session && watched.channel.account == channel.account);
            of_account.map(|(id, watched)| (*id, watched.clone())).collect()
        };
        let mut sum: u64 = 0;
        for (id, watched) in others {
            let covered = watched.seen.redeemed.micros().saturating_add(watched.seen.locked.micros());
            let may_take = if house.is_at_work(id) {
                watched.ceiling.micros().saturating_sub(covered)
            } else {
                house.book().unredeemed(channel.account, id).micros().saturating_sub(watched.seen.locked.micros())
            };
            sum = sum.saturating_add(may_take);
        }
        Usdc::from_micros(sum)
    }
}

fn unreadable(reason: &str) -> Fault {
    let text = format!("this provider cannot read the escrow now and opens nothing: {reason}");
    Fault::new(FaultCode::CHAIN_UNREADABLE, text)
}
