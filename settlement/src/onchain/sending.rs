//! Carries out what the machine of a transaction asks for, in its order: store, sign, hand to nodes, look.

use orien_chain::{At, Fees, Sent, Transaction, TxHash, Wei, gas};
use orien_protocol::hash::Hash;
use orien_protocol::time::Timestamp;

use super::{ChainPort, Counter, Follower, StepError};
use crate::books::ChainChange;
use crate::desk::{DeskError, Standing, TakeOff};
use crate::paying::{CALLDATA, Effect, FlightClaim, Inclusion, Input, Look, Machine, Told};

/// Gas of a transaction that carries nothing: more than the 21,000 of most chains, since some count the cost of their own data in gas. What is not used is not paid.
const NO_OP_GAS: u64 = 200_000;
/// What is told of a flight, and over with it.
const ABOUT_A_FLIGHT: [&str; 4] = ["stuck", "rejected", "no_gas_money", "gas_above_cap"];
/// Most effects of one step. The machine asks for a handful; more would be a circle.
const EFFECTS_MAX: usize = 64;

impl<P: ChainPort, D: Counter> Follower<P, D> {
    /// Brings the flight under way further, or lets the next one take off.
    pub(super) async fn pay(&mut self, now: Timestamp) -> Result<(), StepError> {
        let standing = self.desk.call(|desk| desk.standing()).await?;
        let mut machine = match self.machine.take() {
            Some(machine) => machine,
            None => Machine::new(self.works.rules, standing.sender, standing.flight.clone()),
        };
        // A step that breaks off leaves no machine behind: the next one is made out of what is stored.
        if standing.flight.is_some() {
            let look = self.look(&machine, &standing).await?;
            let effects = machine.turn(Input::Looked(look), now);
            self.carry_out(&mut machine, effects, ChainChange::default(), now).await?;
        } else if !standing.halted {
            self.plan(&mut machine, now).await?;
        }
        self.machine = Some(machine);
        Ok(())
    }

    async fn plan(&self, machine: &mut Machine, now: Timestamp) -> Result<(), StepError> {
        let quote = self.port.fees_now().await?;
        let (policy, gas_price) = (self.works.policy, Wei(quote.base_fee.0.saturating_add(quote.tip.0)));
        let Some(take_off) = self.desk.call(move |desk| desk.take_off(&policy, gas_price, now)).await? else { return Ok(()) };
        // Before a nonce is taken, not after: one that is taken for nothing holds up all that follow.
        if let Err(revert) = self.port.simulate(&self.key.address(), &self.facts.escrow, &take_off.calldata).await? {
            let claims = take_off.choice.claims;
            tracing::warn!(claims = claims.len(), reason = %revert, "a call of claims would be reverted");
            return Ok(self.desk.call(move |desk| desk.would_revert(&claims)).await?);
        }
        let nonce = self.port.nonce(&self.key.address(), At::Latest).await?;
        let data_gas = self.port.data_gas(&self.facts.escrow, &take_off.calldata).await?;
        let claims = take_off.choice.claims.iter().map(|claim| FlightClaim {
            channel: claim.channel,
            payee: claim.payee,
            total: claim.total,
            closes: claim.closes,
        });
        let (amount, gas_limit) = (take_off.choice.amount(), gas::with_data(take_off.choice.gas_limit(), data_gas));
        let effects = machine.turn(Input::Plan { claims: claims.collect(), amount, gas_limit, quote, nonce }, now);
        if !effects.contains(&Effect::Persist) {
            return self.carry_out(machine, effects, ChainChange::default(), now).await;
        }
        let luggage = self.luggage(take_off, nonce, now).await?;
        self.carry_out(machine, effects, luggage, now).await
    }

    async fn luggage(&self, take_off: TakeOff, nonce: u64, now: Timestamp) -> Result<ChainChange, DeskError> {
        let calldata = take_off.calldata.clone();
        let mut luggage = self.desk.call(move |desk| desk.luggage(&take_off, now)).await?;
        luggage.raws.push((nonce, CALLDATA, calldata));
        Ok(luggage)
    }

    /// Looks where the flight's transactions are.
    async fn look(&self, machine: &Machine, standing: &Standing) -> Result<Look, StepError> {
        let address = self.key.address();
        let mut included = None;
        let attempts = machine.flight().map(|flight| flight.attempts.clone()).unwrap_or_default();
        // Nonces first: a receipt that is found afterwards can only be newer than they are.
        let nonce_final = self.port.nonce(&address, At::Final).await?;
        let nonce_latest = self.port.nonce(&address, At::Latest).await?;
        for attempt in attempts.iter().rev() {
            let Some(receipt) = self.port.receipt(&TxHash::from_hash(attempt.hash)).await? else { continue };
            // A receipt alone may be of a block that is still being made, or was taken back.
            let block = self.port.block(receipt.block).await?;
            if block.is_some_and(|block| block.hash == receipt.block_hash) {
                let (block, block_hash, success) = (receipt.block, receipt.block_hash, receipt.success);
                included = Some(Inclusion { hash: attempt.hash, block, block_hash, success });
                break;
            }
        }
        let quote = self.port.fees_now().await?;
        let folded = standing.cursor.map_or(0, |cursor| cursor.number);
        Ok(Look { folded, nonce_latest, nonce_final, quote, included })
    }

    /// Does what the machine asks for. What goes with a flight for the first time is in `with`, and is stored with it.
    async fn carry_out(&self, machine: &mut Machine, effects: Vec<Effect>, mut with: ChainChange, now: Timestamp) -> Result<(), StepError> {
        let mut todo: std::collections::VecDeque<Effect> = effects.into();
        for _ in 0..EFFECTS_MAX {
            let Some(effect) = todo.pop_front() else { break };
            match effect {
                Effect::Persist => self.persist(machine, std::mem::take(&mut with), now).await?,
                Effect::Sign { fees, is_no_op } => {
                    let (hash, raws) = self.sign(machine, fees, is_no_op).await?;
                    with.raws = raws;
                    todo.extend(machine.turn(Input::Signed { hash, fees, is_no_op }, now));
                }
                Effect::Broadcast(hash) => {
                    let told = self.broadcast(machine, hash).await?;
                    todo.extend(machine.turn(Input::Told(hash, told), now));
                }
                Effect::Halt(code, text) => self.desk.call(move |desk| desk.halt(code, &text, now)).await?,
                Effect::Warn(code, text) => self.desk.call(move |desk| desk.notice(code, Some(text), now)).await?,
            }
        }
        Ok(())
    }

    async fn persist(&self, machine: &Machine, with: ChainChange, now: Timestamp) -> Result<(), DeskError> {
        let Some(flight) = machine.flight().cloned() else { return Ok(()) };
        let sender = machine.sender();
        if !flight.is_over() {
            return self.desk.call(move |desk| desk.keep_flight(&flight, sender, with)).await;
        }
        tracing::info!(nonce = flight.nonce, stage = flight.stage.name(), claims = flight.claims.len(), "a transaction is over");
        self.desk
            .call(move |desk| {
                desk.conclude(&flight, sender)?;
                ABOUT_A_FLIGHT.iter().try_for_each(|code| desk.notice(code, None, now))
            })
            .await
    }

    async fn sign(&self, machine: &Machine, fees: Fees, is_no_op: bool) -> Result<(Hash, Vec<(u64, u32, Vec<u8>)>), StepError> {
        let Some((nonce, gas_limit, count)) = machine.flight().map(|flight| (flight.nonce, flight.gas_limit, flight.attempts.len())) else {
            return Err(broken("there is no flight to sign for"));
        };
        let (to, gas_limit, data) = if is_no_op {
            (self.key.address(), NO_OP_GAS, Vec::new())
        } else {
            (self.facts.escrow, gas_limit, self.stored(nonce, CALLDATA).await?)
        };
        let transaction = Transaction {
            chain_id: self.facts.chain_id,
            nonce,
            to: Some(to),
            gas_limit,
            max_fee: fees.max_fee,
            max_priority_fee: fees.tip,
            value: Wei::ZERO,
            data,
        };
        let signed = transaction.sign(&self.key);
        let attempt = u32::try_from(count).map_err(|_| broken("too many attempts"))?;
        Ok((*signed.hash.hash(), vec![(nonce, attempt, signed.raw)]))
    }

    async fn broadcast(&self, machine: &Machine, hash: Hash) -> Result<Told, StepError> {
        let place = machine.flight().and_then(|flight| {
            let index = flight.attempts.iter().position(|attempt| attempt.hash == hash)?;
            Some((flight.nonce, u32::try_from(index).ok()?))
        });
        let Some((nonce, attempt)) = place else { return Err(broken("there is no attempt to send")) };
        let raw = self.stored(nonce, attempt).await?;
        Ok(match self.port.send_raw(&raw).await {
            Ok(Sent::Accepted | Sent::AlreadyKnown) => Told::Taken,
            Ok(Sent::NonceTooLow) => Told::NonceTooLow,
            Ok(Sent::ReplacementUnderpriced) => Told::Underpriced,
            Ok(Sent::FeeTooLow) => Told::FeeTooLow,
            Ok(Sent::InsufficientFunds) => Told::NoGasMoney,
            Ok(Sent::Rejected(text)) => Told::Rejected(text),
            // It may have arrived.
            Err(error) => {
                tracing::warn!(%error, nonce, "no node said what became of a transaction");
                Told::Unknown
            }
        })
    }

    async fn stored(&self, nonce: u64, attempt: u32) -> Result<Vec<u8>, StepError> {
        let found = self.desk.call(move |desk| desk.raw(nonce, attempt)).await?;
        found.ok_or_else(|| broken("the bytes of a flight are missing"))
    }
}

fn broken(text: &str) -> StepError {
    StepError::Desk(DeskError::Refused(orien_protocol::fault::Fault::new(orien_protocol::fault::FaultCode::INTERNAL, text)))
}
