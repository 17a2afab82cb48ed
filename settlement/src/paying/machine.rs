//! One transaction from its plan to a final block: what is known in, an ordered list of what to do out.
//!
//! Always true: whatever follows a [`Effect::Persist`] waits for its commit, so no node ever sees bytes that are not on disk; a nonce is taken once and kept until it is used
//! in a final block; no answer, and no absence of a receipt, ever ends a flight.
//!
//! It does not know what a claim is, who signs, or what time it is.

use orien_chain::fees::{FEE_CAP, FORMS_MAX, RAISE_AFTER, RESEND_AFTER};
use orien_chain::{FeeQuote, Fees, Wei};
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::time::{Millis, Timestamp};

use super::{Attempt, Flight, FlightClaim, STRANGERS_NONCE, Sender, Stage};

/// Times and limits of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The same bytes are handed out again after this.
    pub resend: Millis,
    /// Fees are raised after this.
    pub stall: Millis,
    /// A nonce that is used in final blocks by a transaction that nobody can show is a stranger's after this.
    pub patience: Millis,
    /// Most that is ever offered per gas, but for the one step of the transaction that carries nothing.
    pub fee_cap: Wei,
}

impl Rules {
    /// The usual rules with another highest price of gas.
    pub fn with_fee_cap_gwei(gwei: u64) -> Self {
        Self { fee_cap: Wei::from_gwei(gwei), ..Self::default() }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self { resend: RESEND_AFTER, stall: RAISE_AFTER, patience: Millis::from_secs(120), fee_cap: FEE_CAP }
    }
}

/// What nodes said of a transaction that was handed to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// One has it.
    Taken,
    /// None answered: one may have it.
    Unknown,
    /// The nonce is used; by which transaction, a look will tell.
    NonceTooLow,
    /// An earlier one of ours is in the way and pays too much for that.
    Underpriced,
    /// It pays less than they take.
    FeeTooLow,
    /// The sender cannot pay for its gas.
    NoGasMoney,
    /// They refuse it for another reason.
    Rejected(String),
}

/// A transaction of ours in a block of the chain that nodes agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// Its hash.
    pub hash: Hash,
    /// The block's height.
    pub block: u64,
    /// The block's hash.
    pub block_hash: Hash,
    /// Whether it was carried out.
    pub success: bool,
}

/// What a look at the chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Up to which block final logs are folded into the books.
    pub folded: u64,
    /// Transactions of the sender in the newest block's state.
    pub nonce_latest: u64,
    /// Transactions of the sender in the newest final block's state.
    pub nonce_final: u64,
    /// What gas costs.
    pub quote: FeeQuote,
    /// The flight's transaction in a block, whichever of its attempts it is.
    pub included: Option<Inclusion>,
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// These claims are worth a transaction.
    Plan {
        /// In the transaction's order.
        claims: Vec<FlightClaim>,
        /// What they should redeem.
        amount: Usdc,
        /// Gas that it may use.
        gas_limit: u64,
        /// What gas costs.
        quote: FeeQuote,
        /// Transactions of the sender in the newest block's state.
        nonce: u64,
    },
    /// Bytes were made as [`Effect::Sign`] asked.
    Signed {
        /// Their hash.
        hash: Hash,
        /// What they offer.
        fees: Fees,
        /// Whether they carry nothing.
        is_no_op: bool,
    },
    /// What became of a broadcast.
    Told(Hash, Told),
    /// What a look found.
    Looked(Look),
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Store flight and sender; what follows waits for the commit.
    Persist,
    /// Make a transaction out of the flight and say so with [`Input::Signed`].
    Sign {
        /// What it offers.
        fees: Fees,
        /// Whether it carries nothing.
        is_no_op: bool,
    },
    /// Hand stored bytes to nodes and say what they answered with [`Input::Told`].
    Broadcast(Hash),
    /// Stop promising and paying until the operator has looked.
    Halt(&'static str, String),
    /// Tell the operator; nothing stops.
    Warn(&'static str, String),
}

/// One sender and its flight.
#[derive(Clone, Debug)]
pub struct Machine {
    rules: Rules,
    sender: Sender,
    flight: Option<Flight>,
    /// Since when the nonce is used in final blocks and none of ours is there.
    missing_since: Option<Timestamp>,
    wants_more: bool,
}

impl Machine {
    /// Goes on from what was stored.
    pub const fn new(rules: Rules, sender: Sender, flight: Option<Flight>) -> Self {
        Self { rules, sender, flight, missing_since: None, wants_more: false }
    }

    /// The sender's state.
    pub const fn sender(&self) -> Sender {
        self.sender
    }

    /// The flight under way, or the one that just ended.
    pub const fn flight(&self) -> Option<&Flight> {
        self.flight.as_ref()
    }

    /// Takes one input.
    pub fn turn(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        match input {
            Input::Plan { claims, amount, gas_limit, quote, nonce } => {
                let Some(fees) = Fees::first(quote, self.rules.fee_cap) else {
                    let text = format!("gas costs {:?} and at most {:?} is offered", quote.base_fee, self.rules.fee_cap);
                    return vec![Effect::Warn("gas_above_cap", text)];
                };
                self.plan(Flight { nonce, planned_at: now, claims, amount, gas_limit, attempts: Vec::new(), stage: Stage::Planned }, fees)
            }
            Input::Signed { hash, fees, is_no_op } => self.signed(hash, fees, is_no_op, now),
            Input::Told(hash, told) => self.told(hash, &told, now),
            Input::Looked(look) => self.looked(&look, now),
        }
    }

    fn plan(&mut self, mut flight: Flight, fees: Fees) -> Vec<Effect> {
        if self.flight.as_ref().is_some_and(|flight| !flight.is_over()) {
            return Vec::new();
        }
        let next = self.sender.next_nonce.unwrap_or(flight.nonce);
        if flight.nonce > next {
            let text = format!("the chain counts {} transactions of our key, and we made {next}: somebody else uses it", flight.nonce);
            return vec![Effect::Halt(STRANGERS_NONCE, text)];
        }
        if flight.nonce < next {
            // A node is behind; what it says of the newest state is not that.
            return Vec::new();
        }
        flight.nonce = next;
        self.sender.next_nonce = next.checked_add(1);
        (self.flight, self.missing_since, self.wants_more) = (Some(flight), None, false);
        vec![Effect::Persist, Effect::Sign { fees, is_no_op: false }]
    }

    fn signed(&mut self, hash: Hash, fees: Fees, is_no_op: bool, now: Timestamp) -> Vec<Effect> {
        let Some(flight) = self.flight.as_mut().filter(|flight| !flight.is_over()) else { return Vec::new() };
        if flight.attempt(&hash).is_some() {
            return Vec::new();
        }
        flight.attempts.push(Attempt { hash, fees, is_no_op, signed_at: now, sent_at: None, sends: 0 });
        if flight.stage == Stage::Planned {
            flight.stage = Stage::Signed;
        }
        self.wants_more = false;
        vec![Effect::Persist, Effect::Broadcast(hash)]
    }

    fn told(&mut self, hash: Hash, told: &Told, now: Timestamp) -> Vec<Effect> {
        let Some(flight) = self.flight.as_mut().filter(|flight| !flight.is_over()) else { return Vec::new() };
        let Some(attempt) = flight.attempts.iter_mut().find(|attempt| attempt.hash == hash) else { return Vec::new() };
        attempt.sent_at = Some(now);
        attempt.sends = attempt.sends.saturating_add(1);
        let may_be_known = matches!(told, Told::Taken | Told::Unknown | Told::NonceTooLow | Told::Underpriced);
        if may_be_known && flight.stage == Stage::Signed {
            flight.stage = Stage::Submitted;
        }
        let mut effects = vec![Effect::Persist];
        match told {
            Told::Taken | Told::Unknown | Told::NonceTooLow | Told::Underpriced => {}
            Told::FeeTooLow => self.wants_more = true,
            Told::NoGasMoney => {
                effects
                    .push(Effect::Warn("no_gas_money", "the sender cannot pay for its gas: send it some of the chain's coin".to_owned()));
            }
            Told::Rejected(text) => effects.push(Effect::Warn("rejected", format!("nodes refuse the transaction: {text}"))),
        }
        effects
    }

    fn looked(&mut self, look: &Look, now: Timestamp) -> Vec<Effect> {
        let Some(flight) = self.flight.as_mut().filter(|flight| !flight.is_over()) else { return Vec::new() };
        if let Some(found) = look.included {
            self.missing_since = None;
            return included(flight, &found, look);
        }
        let mut effects = Vec::new();
        if let Stage::Included { hash, .. } = flight.stage {
            // The block was taken back, and perhaps the transaction with it.
            flight.stage = Stage::Submitted;
            effects.extend([Effect::Persist, Effect::Broadcast(hash)]);
        }
        if look.nonce_latest > flight.nonce {
            effects.extend(self.missing(look, now));
            return effects;
        }
        self.missing_since = None;
        effects.extend(self.waiting(look.quote, now));
        effects
    }

    /// The nonce is used, and no node shows by which of ours. A node that is behind on receipts looks the same for a while.
    fn missing(&mut self, look: &Look, now: Timestamp) -> Vec<Effect> {
        let Some(flight) = self.flight.as_mut().filter(|flight| look.nonce_final > flight.nonce) else { return Vec::new() };
        let since = *self.missing_since.get_or_insert(now);
        if now.since(since) < self.rules.patience || look.folded == 0 {
            return Vec::new();
        }
        flight.stage = Stage::Lost;
        let text =
            format!("nonce {} was used in a final block by a transaction that is not ours: somebody else uses our key", flight.nonce);
        vec![Effect::Persist, Effect::Halt(STRANGERS_NONCE, text)]
    }

    /// It is in no block, and could be.
    fn waiting(&mut self, quote: FeeQuote, now: Timestamp) -> Vec<Effect> {
        let rules = self.rules;
        let Some(flight) = self.flight.as_ref() else { return Vec::new() };
        let Some(newest) = flight.attempts.last() else {
            let fees = Fees::first(quote, rules.fee_cap);
            return fees.map(|fees| Effect::Sign { fees, is_no_op: false }).into_iter().collect();
        };
        let Some(sent_at) = newest.sent_at else { return vec![Effect::Broadcast(newest.hash)] };
        // One that was signed long ago and never heard of since is sent again before it is raised.
        let is_stalled = now.since(newest.signed_at) >= rules.stall && newest.sends >= 2;
        let left = FORMS_MAX.saturating_sub(flight.attempts.len());
        if (is_stalled || self.wants_more)
            && let Some(effect) = raise(newest, left, quote, rules.fee_cap)
        {
            return vec![effect];
        }
        if now.since(sent_at) < rules.resend {
            return Vec::new();
        }
        let mut effects = vec![Effect::Broadcast(newest.hash)];
        if is_stalled {
            let text = format!(
                "nonce {} waits since {} s at the highest fee that is offered",
                flight.nonce,
                now.since(flight.planned_at).0 / 1000
            );
            effects.push(Effect::Warn("stuck", text));
        }
        effects
    }
}

/// Found in a block: final if that block is, and what it logged is in the books.
fn included(flight: &mut Flight, found: &Inclusion, look: &Look) -> Vec<Effect> {
    let is_final = found.block <= look.folded && look.nonce_final > flight.nonce;
    let is_no_op = flight.attempt(&found.hash).is_some_and(|attempt| attempt.is_no_op);
    let stage = match (is_final, is_no_op) {
        (true, true) => Stage::Replaced { hash: found.hash, block: found.block },
        (true, false) => Stage::Final { hash: found.hash, block: found.block, success: found.success },
        (false, _) => Stage::Included { hash: found.hash, block: found.block, block_hash: found.block_hash },
    };
    if flight.stage == stage {
        return Vec::new();
    }
    flight.stage = stage;
    vec![Effect::Persist]
}

/// The next transaction for the same nonce, of so many that are `left`; beyond the cap, and as the last of them, one that carries nothing, and nothing after that.
fn raise(newest: &Attempt, left: usize, quote: FeeQuote, cap: Wei) -> Option<Effect> {
    let raised = newest.fees.raised(quote, cap);
    match (left, raised) {
        (0, _) => None,
        (1, _) if !newest.is_no_op => Some(Effect::Sign { fees: raised.unwrap_or_else(|| newest.fees.beyond()), is_no_op: true }),
        (_, Some(fees)) => Some(Effect::Sign { fees, is_no_op: newest.is_no_op }),
        (_, None) => (!newest.is_no_op).then(|| Effect::Sign { fees: newest.fees.beyond(), is_no_op: true }),
    }
}
