//! A look at the escrow: what of each session is redeemed and locked, and what each account still has.

use std::collections::{BTreeMap, BTreeSet};

use orien_bootstrap::{clock, escrow};
use orien_chain::{Block, EscrowAccount, EscrowChannel};
use orien_protocol::channel::ChannelId;
use orien_protocol::fault::Fault;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use tokio::time::Instant;

use super::{LOOK_EVERY, RoundError, Watched, Ways};
use crate::house::House;
use crate::store::Handed;

impl Ways {
    /// Reads, stores and notes everything that is due: what waits for redemption each time, the rest every hour.
    pub(super) async fn look(&self, house: &House) -> Result<(), RoundError> {
        self.forget_settled(house);
        let (begun, asked) = (Instant::now(), self.known().asked);
        let (everything, due) = self.due(house);
        if !due.is_empty() {
            self.look_at(house, &due).await?;
        }
        let mut known = self.known();
        if everything && known.asked == asked {
            known.all_at = Some(begun);
        }
        Ok(())
    }

    async fn look_at(&self, house: &House, due: &BTreeMap<SessionId, Watched>) -> Result<(), RoundError> {
        let at = self.chain.final_block().await?;
        let standstill = self.standstill(house, &at).await;
        let ids: Vec<ChannelId> = due.values().map(|watched| watched.channel.id()).collect();
        let seen: BTreeMap<SessionId, EscrowChannel> = due.keys().copied().zip(self.chain.channels(&ids, &at).await?).collect();
        let mut accounts: BTreeMap<Address, EscrowAccount> = BTreeMap::new();
        let mut bars: BTreeMap<(Address, Address), Option<Fault>> = BTreeMap::new();
        for channel in due.values().map(|watched| &watched.channel) {
            let is_read = accounts.contains_key(&channel.account);
            if !is_read {
                accounts.insert(channel.account, self.chain.account(&channel.account, &at).await?);
            }
            let key = (channel.account, channel.spending_key);
            let is_read = bars.contains_key(&key);
            if !is_read {
                let until = self.chain.key_until(&channel.account, &channel.spending_key, &at).await?;
                bars.insert(key, escrow::check_key(until, channel).err().map(|unfit| unfit.fault()));
            }
        }
        for (session, channel) in &seen {
            self.store_seen(house, *session, channel).await?;
        }
        let payout = house.standing.binding.principal;
        let undelivered = self.chain.credit(&payout, &at).await?;
        self.note(house, due, &seen, &accounts, &bars);
        let mut known = self.known();
        known.view.at = Some((at, clock::wall()));
        known.view.problem = standstill;
        known.view.undelivered = undelivered;
        Ok(())
    }

    /// What is said when the newest final block is so old that nothing is opened on it.
    pub(super) async fn standstill(&self, house: &House, at: &Block) -> Option<String> {
        let (now, limit) = (clock::wall(), house.standing.finality_lag.0.saturating_add(escrow::STANDSTILL.0));
        let age = now.since(at.time.timestamp()).0;
        if age <= limit {
            return None;
        }
        let nodes = escrow::standstill(&self.chain, now).await;
        Some(format!("the newest final block, {}, is {} s old: {nodes}", at.number, age / 1000))
    }

    /// The sessions to be looked at now, and whether they are all.
    fn due(&self, house: &House) -> (bool, BTreeMap<SessionId, Watched>) {
        let known = self.known();
        let everything = known.all_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        let book = house.book();
        let waiting: BTreeSet<Address> = known
            .watched
            .iter()
            .filter(|(id, watched)| book.unredeemed(watched.channel.account, **id) > Usdc::ZERO)
            .map(|(_, watched)| watched.channel.account)
            .collect();
        // All sessions of an account at once: what is redeemed of one was taken from what all have.
        let due = known.watched.iter().filter(|(_, watched)| everything || waiting.contains(&watched.channel.account));
        (everything, due.map(|(id, watched)| (*id, watched.clone())).collect())
    }

    async fn store_seen(&self, house: &House, session: SessionId, channel: &EscrowChannel) -> Result<(), RoundError> {
        let before = house.store.handed(session).await?;
        if channel.redeemed > before.state.redeemed || (channel.closed && !before.state.closed) {
            let state = orien_protocol::frame::ChannelState { redeemed: channel.redeemed, closed: channel.closed, ..before.state };
            // What the chain did without settlement it still has to be told: its evidence is made of claims.
            let handed = Handed { state, close_taken: before.close_taken };
            house.store.note_handed(session, handed).await?;
            tracing::info!(%session, redeemed = %channel.redeemed, closed = channel.closed, "redeemed on the chain");
        }
        Ok(())
    }

    /// Tells the book, all of one block at once.
    fn note(
        &self,
        house: &House,
        due: &BTreeMap<SessionId, Watched>,
        seen: &BTreeMap<SessionId, EscrowChannel>,
        accounts: &BTreeMap<Address, EscrowAccount>,
        bars: &BTreeMap<(Address, Address), Option<Fault>>,
    ) {
        let mut known = self.known();
        let mut book = house.book();
        for (account, there) in accounts {
            book.held(*account, escrow::free(there));
            known.accounts.insert(*account, *there);
        }
        for (session, watched) in due {
            let Some(channel) = seen.get(session) else { continue };
            let account = watched.channel.account;
            book.locked(account, *session, channel.locked);
            book.redeemed(account, *session, channel.redeemed);
            let Some(there) = known.watched.get_mut(session) else { continue };
            there.seen = *channel;
            let bar = bars.get(&(account, watched.channel.spending_key)).cloned().flatten();
            if let (None, Some(fault)) = (&there.bar, &bar) {
                tracing::warn!(%session, %account, %fault, "the session takes no new jobs");
            }
            there.bar = bar;
        }
    }

    /// What nothing is expected of any more is not looked at.
    fn forget_settled(&self, house: &House) {
        let mut known = self.known();
        let book = house.book();
        known.watched.retain(|id, watched| house.counter(*id).is_some() || book.unredeemed(watched.channel.account, *id) > Usdc::ZERO);
        let accounts: BTreeSet<Address> = known.watched.values().map(|watched| watched.channel.account).collect();
        known.accounts.retain(|account, _| accounts.contains(account));
    }
}
