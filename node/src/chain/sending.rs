//! Collecting without settlement: one `redeem` of our own at a time, from the claim key's account.
//!
//! Always true: the nonce and the signed bytes are stored before a node sees them; while one is on its way no other is made; what it brought is read from final blocks, as if settlement had sent it. Sending
//! what settlement sends too does no harm: the escrow pays only what is new.

use orien_bootstrap::clock;
use orien_chain::{At, EscrowAccount, Fees, OnChainClaim, Sent, Transaction, TxHash, Wei, call, gas};
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::{Timestamp, UnixSeconds};

use super::outbox::{self, Facts, Form, Outgoing, Step};
use super::{CollectPolicy, RoundError, Watched, Ways};
use crate::house::House;

/// Claims in one transaction: what a block of any chain has room for, and a third of what the outbox can hold.
const CLAIMS_LIMIT: usize = 50;

/// What became of a wish to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collected {
    /// Nothing waits that the escrow would pay.
    Nothing,
    /// A transaction is on its way already.
    UnderWay {
        /// Its newest form.
        transaction: TxHash,
        /// For how many sessions.
        sessions: usize,
    },
    /// One was sent.
    Sent {
        /// Its hash.
        transaction: TxHash,
        /// For how many sessions.
        sessions: usize,
        /// What it is expected to bring, all three shares.
        total: Usdc,
    },
    /// The payer of gas has too little of the chain's coin. Nothing was sent.
    NeedsGas {
        /// Who pays for gas.
        payer: Address,
        /// What it has.
        has: Wei,
        /// What it needs.
        needs: Wei,
    },
    /// Gas costs more than is offered for it. Nothing was sent.
    GasTooDear {
        /// What the next block asks, per gas.
        base_fee: Wei,
        /// Most that is offered, per gas.
        cap: Wei,
    },
}

/// Something that can be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    session: SessionId,
    amount: Usdc,
    /// Whether settlement is not waited for any more.
    late: bool,
}

/// From when the provider does not wait for settlement any more.
fn alone_from(work_until: UnixSeconds, redeem_until: UnixSeconds, policy: &CollectPolicy) -> Timestamp {
    let part = redeem_until.timestamp().since(work_until.timestamp()).0 / policy.parts.max(1);
    Timestamp(redeem_until.timestamp().0.saturating_sub(policy.before.0.min(part)))
}

/// What goes into a transaction: by hand everything, else what is late, if it is worth one. The largest come first, so that dust keeps nobody else's place.
fn choose(mut due: Vec<Due>, by_hand: bool, least: Usdc) -> Vec<Due> {
    due.retain(|due| by_hand || due.late);
    due.sort_by_key(|due| (std::cmp::Reverse(due.amount), due.session));
    due.truncate(CLAIMS_LIMIT);
    let total: u64 = due.iter().fold(0, |sum: u64, due| sum.saturating_add(due.amount.micros()));
    if by_hand || total >= least.micros() { due } else { Vec::new() }
}

impl Ways {
    /// Looks, and collects everything that can be, now.
    pub(crate) async fn collect(&self, house: &House) -> Result<Collected, RoundError> {
        // Never closed.
        let _turn = self.turn.acquire().await;
        self.known().forget_look();
        self.ready(house).await?;
        self.advance(house).await?;
        self.look(house).await?;
        self.start(house, true).await
    }

    pub(super) async fn collect_what_is_due(&self, house: &House) -> Result<(), RoundError> {
        match self.start(house, false).await? {
            Collected::NeedsGas { payer, has, needs } => tracing::error!(
                %payer, %has, %needs,
                "settlement has not redeemed what is promised here and its time runs out; send gas to the payer, so that this provider can collect by itself"
            ),
            Collected::Sent { transaction, sessions, total } => {
                tracing::warn!(%transaction, sessions, %total, "settlement has not redeemed in time; collecting without it");
            }
            Collected::GasTooDear { base_fee, cap } => tracing::error!(
                ?base_fee,
                ?cap,
                "settlement has not redeemed what is promised here and its time runs out; gas costs more than this provider offers, so it waits for a better price"
            ),
            Collected::Nothing | Collected::UnderWay { .. } => {}
        }
        Ok(())
    }

    async fn start(&self, house: &House, by_hand: bool) -> Result<Collected, RoundError> {
        if let Some(outgoing) = house.store.outgoing().await? {
            return Ok(outgoing
                .forms
                .last()
                .map_or(Collected::Nothing, |form| Collected::UnderWay { transaction: form.hash, sessions: outgoing.sessions.len() }));
        }
        let mut claims = Vec::new();
        let mut due = Vec::new();
        for (session, watched) in self.waiting(house) {
            if !by_hand && !self.is_late(&watched) {
                continue;
            }
            if let Some((found, claim)) = self.claim(house, session, &watched).await? {
                due.push(found);
                claims.push((session, claim));
            }
        }
        let chosen = choose(due, by_hand, self.policy.least);
        if chosen.is_empty() {
            self.known().view.missing_gas = None;
            return Ok(Collected::Nothing);
        }
        let total = Usdc::from_micros(chosen.iter().fold(0, |sum: u64, due| sum.saturating_add(due.amount.micros())));
        let sessions: Vec<SessionId> = chosen.iter().map(|due| due.session).collect();
        claims.retain(|(session, _)| sessions.contains(session));
        let claims: Vec<OnChainClaim> = claims.into_iter().map(|(_, claim)| claim).collect();
        self.make(house, sessions, call::redeem(&claims), total).await
    }

    /// Sessions that promise more than is redeemed.
    fn waiting(&self, house: &House) -> Vec<(SessionId, Watched)> {
        let known = self.known();
        let book = house.book();
        let waiting = known.watched.iter().filter(|(id, watched)| book.unredeemed(watched.channel.account, **id) > Usdc::ZERO);
        waiting.map(|(id, watched)| (*id, watched.clone())).collect()
    }

    /// What a session's documents bring now; none when it is nothing.
    async fn claim(&self, house: &House, session: SessionId, watched: &Watched) -> Result<Option<(Due, OnChainClaim)>, RoundError> {
        let now = clock::wall();
        if watched.redeem_until.timestamp() <= now || watched.seen.closed {
            return Ok(None);
        }
        let Some(summary) = house.store.summary(session).await? else { return Ok(None) };
        let Some(voucher) = summary.voucher else { return Ok(None) };
        let promised = summary.promised().min(summary.allowance.unverified().ceiling);
        let account = self.account(&watched.channel.account);
        let there = Usdc::from_micros(account.balance.excess_over(account.locked).micros().saturating_add(watched.seen.locked.micros()));
        let amount = promised.excess_over(watched.seen.redeemed).min(there);
        if amount == Usdc::ZERO {
            return Ok(None);
        }
        let late = self.is_late(watched);
        match OnChainClaim::new(watched.channel, voucher, Some(summary.allowance), summary.close) {
            Ok(claim) => Ok(Some((Due { session, amount, late }, claim))),
            Err(error) => {
                tracing::error!(%session, %error, "what is stored of a session cannot be collected");
                Ok(None)
            }
        }
    }

    /// Whether settlement is not waited for any more.
    fn is_late(&self, watched: &Watched) -> bool {
        alone_from(watched.work_until, watched.redeem_until, &self.policy) <= clock::wall()
    }

    /// Has the rest of a session's allowance locked for its channel alone when half of what may wait for redemption does, so that work does not have to stop until a redemption is final. Tried once per
    /// session: it is worth gas only if it succeeds.
    pub(super) async fn lock_what_nears_the_limit(&self, house: &House) -> Result<(), RoundError> {
        if house.store.outgoing().await?.is_some() {
            return Ok(());
        }
        for (session, watched) in self.waiting(house) {
            let covered = watched.seen.redeemed.micros().saturating_add(watched.seen.locked.micros());
            let waits = house.book().unredeemed(watched.channel.account, session).excess_over(watched.seen.locked);
            let nears = waits.micros() > self.policy.lock_at.micros() && watched.ceiling.micros() > covered;
            if !nears || watched.lock_tried || !house.is_at_work(session) {
                continue;
            }
            if let Some(there) = self.known().watched.get_mut(&session) {
                there.lock_tried = true;
            }
            let Some((_, claim)) = self.claim(house, session, &watched).await? else { continue };
            let (payer, data) = (self.payer(), call::lock(&claim));
            match self.chain.simulate(&payer, &house.standing.domain.escrow, &data).await? {
                Ok(_) => {
                    let rest = Usdc::from_micros(watched.ceiling.micros().saturating_sub(covered));
                    let made = self.make(house, vec![session], data, rest).await?;
                    tracing::info!(%session, ?made, "having the rest of an allowance locked");
                    return Ok(());
                }
                Err(revert) => tracing::info!(%session, %revert, "the rest of an allowance cannot be locked"),
            }
        }
        Ok(())
    }

    fn account(&self, account: &Address) -> EscrowAccount {
        self.known().accounts.get(account).copied().unwrap_or_default()
    }

    /// Signs, stores and sends a new transaction.
    async fn make(&self, house: &House, sessions: Vec<SessionId>, data: Vec<u8>, total: Usdc) -> Result<Collected, RoundError> {
        let (payer, escrow) = (self.payer(), house.standing.domain.escrow);
        let (nonce, quote, has, data_gas) = tokio::try_join!(
            self.chain.nonce(&payer, At::Latest),
            self.chain.fees_now(),
            self.chain.native_balance(&payer),
            self.chain.data_gas(Some(&escrow), &data)
        )?;
        let gas_limit = gas::with_data(gas::of_claims(sessions.len(), 1), data_gas);
        let Some(fees) = Fees::first(quote, self.policy.sending.fee_cap) else {
            return Ok(Collected::GasTooDear { base_fee: quote.base_fee, cap: self.policy.sending.fee_cap });
        };
        let needs = fees.max_fee.times(gas_limit);
        if has < needs {
            self.known().view.missing_gas = Some(Wei(needs.0.saturating_sub(has.0)));
            return Ok(Collected::NeedsGas { payer, has, needs });
        }
        let mut outgoing = Outgoing { nonce, data, gas_limit, sessions, forms: Vec::new(), sent_at: clock::wall() };
        let transaction = self.sign(house, &mut outgoing, fees);
        let sessions = outgoing.sessions.len();
        house.store.set_outgoing(Some(outgoing.clone())).await?;
        self.known().view.missing_gas = None;
        self.note_sending(transaction, sessions);
        self.send(house, outgoing, has).await?;
        Ok(Collected::Sent { transaction, sessions, total })
    }

    fn note_sending(&self, transaction: TxHash, sessions: usize) {
        self.known().view.sending = Some((transaction, sessions));
    }

    /// Says how much more the purse needs while the transaction waits for a block.
    fn note_missing(&self, waits: bool, missing: Wei) {
        let missing = Some(missing).filter(|missing| waits && *missing > Wei::ZERO);
        let mut known = self.known();
        if let (None, Some(missing)) = (known.view.missing_gas, missing) {
            tracing::error!(payer = %self.payer(), %missing, "more has to be offered for gas than its payer has; what it can pay for is sent again");
        }
        known.view.missing_gas = missing;
    }

    /// Adds a form at these fees.
    fn sign(&self, house: &House, outgoing: &mut Outgoing, fees: Fees) -> TxHash {
        let transaction = Transaction {
            chain_id: house.standing.domain.chain_id,
            nonce: outgoing.nonce,
            to: Some(house.standing.domain.escrow),
            gas_limit: outgoing.gas_limit,
            max_fee: fees.max_fee,
            max_priority_fee: fees.tip,
            value: Wei::ZERO,
            data: outgoing.data.clone(),
        };
        let signed = transaction.sign(&self.key);
        let hash = signed.hash;
        outgoing.forms.push(Form::new(signed, fees, clock::wall()));
        hash
    }

    /// Hands a form, which is stored, to nodes: the newest that the purse pays for. An answer is news, not the outcome.
    async fn send(&self, house: &House, mut outgoing: Outgoing, purse: Wei) -> Result<(), RoundError> {
        let Some(form) = outbox::to_send(&outgoing.forms, outgoing.gas_limit, purse) else { return Ok(()) };
        match self.chain.send_raw(&form.raw).await {
            Ok(Sent::Accepted | Sent::AlreadyKnown | Sent::NonceTooLow | Sent::ReplacementUnderpriced | Sent::FeeTooLow) => {}
            Ok(Sent::InsufficientFunds) => {
                tracing::error!(payer = %self.payer(), "the payer of gas has too little for a transaction that is signed already");
            }
            Ok(Sent::Rejected(reason)) => {
                tracing::error!(transaction = %form.hash, reason, "a node refuses our transaction; it is sent again");
            }
            // It may have arrived.
            Err(error) => {
                tracing::warn!(transaction = %form.hash, %error, "no node has confirmed our transaction; it is sent again");
            }
        }
        outgoing.sent_at = clock::wall();
        Ok(house.store.set_outgoing(Some(outgoing)).await?)
    }

    /// Does what is to be done for the transaction that is on its way.
    pub(super) async fn advance(&self, house: &House) -> Result<(), RoundError> {
        let Some(mut outgoing) = house.store.outgoing().await? else { return Ok(()) };
        self.known().view.sending = outgoing.forms.last().map(|form| (form.hash, outgoing.sessions.len()));
        let payer = self.payer();
        let (next_nonce, next_nonce_final, quote, purse) = tokio::try_join!(
            self.chain.nonce(&payer, At::Latest),
            self.chain.nonce(&payer, At::Final),
            self.chain.fees_now(),
            self.chain.native_balance(&payer)
        )?;
        let facts = Facts { next_nonce, next_nonce_final, quote, rules: self.policy.sending, purse, now: clock::wall() };
        self.note_missing(next_nonce <= outgoing.nonce, outbox::missing(&outgoing, &facts));
        match outbox::next(&outgoing, &facts) {
            Step::Wait => Ok(()),
            Step::Again => self.send(house, outgoing, purse).await,
            Step::Raise(fees) => {
                let hash = self.sign(house, &mut outgoing, fees);
                house.store.set_outgoing(Some(outgoing.clone())).await?;
                self.note_sending(hash, outgoing.sessions.len());
                self.send(house, outgoing, purse).await
            }
            Step::Over => {
                house.store.set_outgoing(None).await?;
                tracing::info!(nonce = outgoing.nonce, sessions = outgoing.sessions.len(), "our transaction is final");
                let mut known = self.known();
                known.view.sending = None;
                known.view.missing_gas = None;
                known.forget_look();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(n: u128, amount: u64, late: bool) -> Due {
        Due { session: SessionId::from_parts(1, n), amount: Usdc::from_micros(amount), late }
    }

    #[test]
    fn only_what_is_late_and_worth_a_transaction_is_collected_unless_by_hand() {
        let least = Usdc::from_micros(100);
        let all = vec![due(1, 40, true), due(2, 70, false), due(3, 60, true), due(4, 5, false)];
        assert_eq!(choose(all.clone(), false, least), [due(3, 60, true), due(1, 40, true)]);
        assert_eq!(choose(all.clone(), false, Usdc::from_micros(101)), []);
        assert_eq!(choose(all, true, least).len(), 4);
    }

    #[test]
    fn dust_takes_the_place_of_nothing_larger() {
        let mut all: Vec<Due> = (0..200).map(|n| due(n, 1, true)).collect();
        all.push(due(999, 5_000_000, true));
        let chosen = choose(all, false, Usdc::from_micros(10));
        assert_eq!((chosen.len(), chosen[0].amount.micros()), (CLAIMS_LIMIT, 5_000_000));
    }

    #[test]
    fn settlement_is_waited_for_until_two_hours_before_the_end_or_half_of_the_time() {
        let policy = CollectPolicy::default();
        let hour = 3600;
        let from = |work, redeem| alone_from(UnixSeconds(work), UnixSeconds(redeem), &policy).0 / 1000;
        assert_eq!(from(0, 6 * hour), 4 * hour);
        assert_eq!(from(10 * hour, 11 * hour), 10 * hour + hour / 2);
    }
}
