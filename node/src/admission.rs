//! Which proposals this provider countersigns, as far as that can be said of the proposal alone.
//!
//! Always true of one that passes: it is from the peer that its binding names, about our own current prices, paid through our own settlement to our own payout
//! address, with times that leave us room to collect. What its account owes us, and whether there is a place for it, are other questions.

use std::collections::VecDeque;

use orien_protocol::binding::Binding;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::hash::Hash;
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::session::redemption_grace;
use orien_protocol::signing::{Address, MoneyDomain};
use orien_protocol::terms::{ProposedTerms, TIME_TOLERANCE, Terms, TermsError};
use orien_protocol::time::{Millis, Timestamp};

/// Least time between the end of work and the end of redemption: a claim is handed in within minutes, and an hour outlasts a restart of settlement.
pub const REDEMPTION_MARGIN: Millis = Millis::from_secs(3600);
/// Longest time of a session: an agent that holds a place for longer should come back for another.
pub const WORK_TIME_MAX: Millis = Millis::from_secs(12 * 3600);
/// Offers that are still honoured: a new one comes with every change of free capacity, and an agent may hold one for minutes.
const OFFERS_KEPT: usize = 64;

/// What this provider stands for in any session.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The network.
    pub network: NetworkId,
    /// Our identity, claim key and payout address.
    pub binding: Binding,
    /// Chain and escrow.
    pub domain: MoneyDomain,
    /// Whose allowances count.
    pub settlement_signer: Address,
    /// How long the chain takes to be sure.
    pub finality_lag: Millis,
    /// How long an account's exit takes.
    pub exit_delay: Millis,
}

impl Standing {
    /// How long paused work waits for a redemption.
    pub const fn redemption_grace(&self) -> Millis {
        redemption_grace(self.finality_lag)
    }
}

/// Our offers of late.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    newest_last: VecDeque<(Hash, Offer)>,
}

impl Offers {
    /// Adds the offer that is published now.
    pub fn push(&mut self, hash: Hash, offer: Offer) {
        self.newest_last.push_back((hash, offer));
        if self.newest_last.len() > OFFERS_KEPT {
            self.newest_last.pop_front();
        }
    }

    /// An offer that still holds.
    pub fn find(&self, hash: &Hash, now: Timestamp) -> Option<&Offer> {
        self.newest_last.iter().find(|(known, offer)| known == hash && offer.expires_at > now).map(|(_, offer)| offer)
    }
}

/// Whether terms may be countersigned: `from` is the peer at the other end of the stream.
pub fn check(proposal: &ProposedTerms, from: PeerId, standing: &Standing, offers: &Offers, now: Timestamp) -> Result<(), Fault> {
    let terms = proposal.terms();
    check_parties(terms, from, standing)?;
    terms.check_times(now, standing.finality_lag, standing.exit_delay).map_err(|error| {
        let code = if matches!(error, TermsError::Clocks { .. }) { FaultCode::CLOCKS } else { FaultCode::TIMES };
        Fault::new(code, error)
    })?;
    check_spans(terms, now)?;
    let Some(offer) = offers.find(&terms.offer, now) else {
        return refuse(FaultCode::OFFER_CHANGED, "the terms are not from a current offer of this provider; fetch it again");
    };
    check_prices(terms, offer)?;
    Ok(())
}

fn refuse<T>(code: FaultCode, text: &str) -> Result<T, Fault> {
    Err(Fault::new(code, text))
}

fn check_parties(terms: &Terms, from: PeerId, standing: &Standing) -> Result<(), Fault> {
    if terms.agent.unverified().peer != from {
        return refuse(FaultCode::NOT_YOURS, "the terms name another agent than the peer that proposes them");
    }
    if terms.domain != standing.domain || terms.settlement_signer != standing.settlement_signer {
        return refuse(FaultCode::WRONG_NETWORK, "the terms name another chain, escrow or settlement");
    }
    if *terms.provider.unverified() != standing.binding {
        return refuse(FaultCode::NOT_YOURS, "the terms name another provider, claim key or payout address than this provider's");
    }
    Ok(())
}

fn check_spans(terms: &Terms, now: Timestamp) -> Result<(), Fault> {
    let (work_until, redeem_until) = (terms.work_until.timestamp(), terms.redeem_until.timestamp());
    if work_until <= now {
        return refuse(FaultCode::TIMES, "the session's time is over before it begins");
    }
    if work_until.since(now) > WORK_TIME_MAX {
        return Err(Fault::new(FaultCode::TIMES, format!("a session lasts at most {} hours", WORK_TIME_MAX.0 / 3_600_000)));
    }
    if redeem_until.since(work_until) < REDEMPTION_MARGIN {
        return refuse(FaultCode::TIMES, "redemption has to be possible for an hour after the end of work");
    }
    if terms.time_tolerance < TIME_TOLERANCE {
        return Err(Fault::new(FaultCode::TIMES, format!("the tolerance for time has to be at least {} ms", TIME_TOLERANCE.0)));
    }
    Ok(())
}

fn check_prices(terms: &Terms, offer: &Offer) -> Result<(), Fault> {
    for (index, priced) in terms.prices.iter().enumerate() {
        let twice = terms.prices.iter().take(index).any(|earlier| earlier.tool == priced.tool);
        if twice || offer.tool(&priced.tool).is_none_or(|tool| tool.price != priced.price) {
            let text = format!("the price of the tool `{}` is not the one of the offer", priced.tool);
            return Err(Fault::new(FaultCode::OFFER_CHANGED, text));
        }
    }
    let same = terms.minimum_charge == offer.minimum_charge
        && terms.metering_interval == offer.metering_interval
        && terms.confinement == offer.confinement
        && terms.runs_at_once <= offer.capacity.runs_per_session;
    if same {
        Ok(())
    } else {
        refuse(FaultCode::OFFER_CHANGED, "minimum charge, metering interval, confinement or runs at once differ from the offer")
    }
}
