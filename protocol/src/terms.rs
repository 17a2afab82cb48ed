//! What both sides fix when a session opens.
//!
//! Terms are copied from the provider's offer by the agent, signed by it, and signed again by the provider. Their content id is named by the allowance and by every receipt, so a
//! session cannot be moved to other prices, parties or times. [`VerifiedTerms`] proves both signatures and both bindings.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::binding::{Binding, SignedBinding};
use crate::channel::{Channel, ChannelId};
use crate::hash::Hash;
use crate::id::SessionId;
use crate::money::{AmountOverflow, Meter, Price, Usdc};
use crate::network::NetworkId;
use crate::offer::{Confinement, NAME_LIMIT, TOOLS_LIMIT};
use crate::peer::PeerId;
use crate::signing::{Address, Layout, MoneyDomain, PeerKey, PeerSignature, SignatureError, Signed, Statement, Verified};
use crate::time::{Millis, Timestamp, UnixSeconds};

/// Clocks further apart than this do not open a session: every expiry would be disputed.
pub const CLOCK_TOLERANCE: Millis = Millis::from_secs(60);
/// Time kept free between the end of redemption and the end of an exit delay.
pub const EXIT_MARGIN: Millis = Millis::from_secs(3600);
/// How much longer than the agent's own stopwatch a reported run may be: scheduling and the way of a message.
pub const TIME_TOLERANCE: Millis = Millis(2_000);

/// What one tool costs in this session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolPrice {
    /// The tool.
    pub tool: String,
    /// Its price.
    pub price: Price,
}

/// The fixed part of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The session; also the lane of its channel.
    pub session: SessionId,
    /// The agent and its spending key.
    pub agent: SignedBinding,
    /// The provider, its claim key and payout address.
    pub provider: SignedBinding,
    /// Chain and escrow.
    pub domain: MoneyDomain,
    /// Whose allowances count.
    pub settlement_signer: Address,
    /// Content id of the offer that the prices are from.
    pub offer: Hash,
    /// The price of each tool.
    pub prices: Vec<ToolPrice>,
    /// Charged by receipt 1 and credited against use.
    pub minimum_charge: Usdc,
    /// Effective time between two interim receipts of a run.
    pub metering_interval: Millis,
    /// How much longer than the agent's stopwatch a run may be reported.
    pub time_tolerance: Millis,
    /// Runs at once; more wait.
    pub runs_at_once: u16,
    /// How well tools are confined.
    pub confinement: Confinement,
    /// When the agent wrote this.
    pub issued_at: Timestamp,
    /// In-flight work dies then.
    pub work_until: UnixSeconds,
    /// Vouchers are redeemable until then.
    pub redeem_until: UnixSeconds,
}

/// Why terms are refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TermsError {
    /// A signature is wrong.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The parts do not fit together.
    #[error("{0}")]
    Senseless(&'static str),
    /// Clocks disagree.
    #[error("the clocks of agent and provider are {apart_ms} ms apart; more than {} ms is refused", CLOCK_TOLERANCE.0)]
    Clocks {
        /// By how much.
        apart_ms: u64,
    },
    /// The times do not fit the exit delay (M12).
    #[error("redemption would end {late_ms} ms too late for the escrow's exit delay")]
    TooLong {
        /// By how much.
        late_ms: u64,
    },
}

impl Statement for Terms {
    const DOMAIN: &'static str = "orien/terms/v1";

    fn write(&self, out: &mut Layout) {
        out.fixed(self.session.as_bytes());
        for binding in [&self.agent, &self.provider] {
            binding.unverified().write(out);
        }
        out.u64(self.domain.chain_id);
        out.fixed(self.domain.escrow.as_bytes());
        out.fixed(self.settlement_signer.as_bytes());
        out.fixed(self.offer.as_bytes());
        out.list(&self.prices, |out, p| {
            out.text(&p.tool);
            p.price.write(out);
        });
        out.u64(self.minimum_charge.micros());
        out.u64(self.metering_interval.0);
        out.u64(self.time_tolerance.0);
        out.u16(self.runs_at_once);
        out.u8(self.confinement.level());
        out.u64(self.issued_at.0);
        out.u64(self.work_until.0);
        out.u64(self.redeem_until.0);
    }
}

impl Terms {
    /// The channel these terms pay through.
    pub fn channel(&self) -> Channel {
        let (agent, provider) = (self.agent.unverified(), self.provider.unverified());
        Channel {
            domain: self.domain,
            account: agent.principal,
            spending_key: agent.money_key,
            payout: provider.principal,
            provider: provider.peer,
            settlement_signer: self.settlement_signer,
            lane: self.session,
        }
    }

    /// The price of a tool, if it is part of the session.
    pub fn price(&self, tool: &str) -> Option<Price> {
        self.prices.iter().find(|p| p.tool == tool).map(|p| p.price)
    }

    /// The most that one metering interval of one run can cost, call fee included; not nothing unless every tool is free.
    pub fn interval_charge(&self) -> Usdc {
        let most = self.prices.iter().filter_map(|p| p.price.of(self.metering_interval.0).ok()).max().unwrap_or(Usdc::ZERO);
        let free = self.prices.iter().all(|p| p.price == Price::default());
        if free { most } else { most.max(Usdc::from_micros(1)) }
    }

    /// Checks everything that needs no clock: both bindings, sizes, order of times.
    fn check(&self, network: &NetworkId) -> Result<(Binding, Binding), TermsError> {
        let agent = self.agent.verify(network, &self.domain)?;
        let provider = self.provider.verify(network, &self.domain)?;
        if self.prices.is_empty() || self.prices.len() > TOOLS_LIMIT || self.prices.iter().any(|p| p.tool.len() > NAME_LIMIT) {
            return Err(TermsError::Senseless("terms name no tool, or too many"));
        }
        if self.metering_interval.0 == 0 || self.runs_at_once == 0 {
            return Err(TermsError::Senseless("the metering interval and the runs at once must be more than zero"));
        }
        if self.work_until.timestamp() <= self.issued_at || self.redeem_until <= self.work_until {
            return Err(TermsError::Senseless("times must be in the order issued, work until, redeem until"));
        }
        Ok((agent, provider))
    }

    /// Checks the times against a clock and the escrow's exit delay (M12).
    pub fn check_times(&self, now: Timestamp, finality_lag: Millis, exit_delay: Millis) -> Result<(), TermsError> {
        let apart = now.distance(self.issued_at);
        if apart > CLOCK_TOLERANCE {
            return Err(TermsError::Clocks { apart_ms: apart.0 });
        }
        let needed = self.redeem_until.timestamp().since(now).0.saturating_add(finality_lag.0).saturating_add(EXIT_MARGIN.0);
        match needed.checked_sub(exit_delay.0) {
            None | Some(0) => Ok(()),
            Some(late_ms) => Err(TermsError::TooLong { late_ms }),
        }
    }
}

/// Terms with both signatures, unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTerms {
    /// Terms and the agent's signature.
    pub by_agent: Signed<Terms>,
    /// The provider's signature over the same bytes.
    pub by_provider: PeerSignature,
}

impl SignedTerms {
    /// Checks both signatures, both bindings and that the parts fit.
    pub fn verify(self, network: &NetworkId) -> Result<VerifiedTerms, TermsError> {
        let proposed = ProposedTerms::verify(self.by_agent, network)?;
        proposed.countersigned(self.by_provider, network)
    }
}

/// Terms signed by the agent alone, checked.
#[derive(Clone, Debug)]
pub struct ProposedTerms {
    terms: Verified<Terms>,
    agent: Binding,
    provider: Binding,
}

impl ProposedTerms {
    /// Writes and signs a proposal.
    pub fn make(terms: Terms, network: &NetworkId, key: &PeerKey) -> Result<Self, TermsError> {
        let (agent, provider) = terms.check(network)?;
        if agent.peer != key.id() {
            return Err(TermsError::Senseless("terms must be signed by the agent that they name"));
        }
        Ok(Self { terms: Verified::sign(terms, network, key), agent, provider })
    }

    /// Checks a proposal that arrived.
    pub fn verify(signed: Signed<Terms>, network: &NetworkId) -> Result<Self, TermsError> {
        let (agent, provider) = signed.unverified().check(network)?;
        let terms = signed.verify(network, &agent.peer)?;
        Ok(Self { terms, agent, provider })
    }

    /// The terms.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The form that travels.
    pub const fn signed(&self) -> &Signed<Terms> {
        self.terms.signed()
    }

    /// The provider's answer: its signature over the same bytes.
    pub fn countersign(self, network: &NetworkId, key: &PeerKey) -> Result<VerifiedTerms, TermsError> {
        let by_provider = *Verified::sign((*self.terms).clone(), network, key).signed().signature();
        self.countersigned(by_provider, network)
    }

    /// Checks the provider's answer.
    pub fn countersigned(self, by_provider: PeerSignature, network: &NetworkId) -> Result<VerifiedTerms, TermsError> {
        Signed::join((*self.terms).clone(), by_provider).verify(network, &self.provider.peer)?;
        let channel = self.terms.channel().id();
        Ok(VerifiedTerms { terms: self.terms, by_provider, agent: self.agent, provider: self.provider, channel, network: network.clone() })
    }
}

/// Terms that both sides signed, checked here.
#[derive(Clone, Debug)]
pub struct VerifiedTerms {
    terms: Verified<Terms>,
    by_provider: PeerSignature,
    agent: Binding,
    provider: Binding,
    channel: ChannelId,
    network: NetworkId,
}

impl VerifiedTerms {
    /// The content id.
    pub const fn hash(&self) -> Hash {
        self.terms.hash()
    }

    /// The channel they pay through.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// The network they hold in.
    pub const fn network(&self) -> &NetworkId {
        &self.network
    }

    /// The agent's peer id.
    pub const fn agent(&self) -> PeerId {
        self.agent.peer
    }

    /// The account that funds the session.
    pub const fn account(&self) -> Address {
        self.agent.principal
    }

    /// The key that signs vouchers.
    pub const fn spending_key(&self) -> Address {
        self.agent.money_key
    }

    /// The provider's peer id.
    pub const fn provider(&self) -> PeerId {
        self.provider.peer
    }

    /// The key that signs `Close`.
    pub const fn claim_key(&self) -> Address {
        self.provider.money_key
    }

    /// Where the provider's share goes.
    pub const fn payout(&self) -> Address {
        self.provider.principal
    }

    /// The form that travels and is stored.
    pub fn to_signed(&self) -> SignedTerms {
        SignedTerms { by_agent: self.terms.signed().clone(), by_provider: self.by_provider }
    }

    /// What a meter charges under these terms.
    pub fn charge(&self, meter: &Meter) -> Result<Usdc, AmountOverflow> {
        meter.charge(self.terms.minimum_charge)
    }
}

impl std::ops::Deref for VerifiedTerms {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}
