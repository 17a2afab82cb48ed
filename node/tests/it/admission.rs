//! Which proposals are countersigned, rule by rule.

use orien_bootstrap::clock;
use orien_node::admission::{Offers, REDEMPTION_MARGIN, Standing, WORK_TIME_MAX, check};
use orien_protocol::binding::{Binding, SignedBinding};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::hash::Hash;
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::Address;
use orien_protocol::terms::{ProposedTerms, Terms};
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};

use crate::kit::{Kit, agent_keys, usdc};

struct Case {
    kit: Kit,
    offers: Offers,
    hash: Hash,
    offer: Offer,
    standing: Standing,
    now: Timestamp,
}

impl Case {
    fn new() -> Self {
        let kit = Kit::new();
        let listing = kit.listing();
        let now = clock::wall();
        let offer = listing.offer(1, now, &orien_node::listing::Today::default());
        let hash = Hash::of(b"the offer");
        let mut offers = Offers::default();
        offers.push(hash, offer.clone());
        let binding = Binding {
            peer: kit.provider.peer.id(),
            money_key: kit.provider.claim.address(),
            principal: kit.payout,
            network: kit.network.clone(),
        };
        let standing = Standing {
            network: kit.network.clone(),
            binding,
            domain: kit.domain,
            settlement_signer: kit.settlement.address(),
            finality_lag: Millis(0),
            exit_delay: Millis::from_secs(86_400),
        };
        Self { kit, offers, hash, offer, standing, now }
    }

    fn terms(&self) -> Terms {
        self.kit.terms(&self.offer, self.hash, &agent_keys(1))
    }

    fn judge(&self, change: impl FnOnce(&mut Terms)) -> Result<(), Fault> {
        self.judge_of(change, agent_keys(1).peer.id(), self.now)
    }

    fn judge_of(&self, change: impl FnOnce(&mut Terms), from: PeerId, now: Timestamp) -> Result<(), Fault> {
        let mut terms = self.terms();
        change(&mut terms);
        let proposal = ProposedTerms::make(terms, &self.kit.network, &agent_keys(1).peer).unwrap();
        check(&proposal, from, &self.standing, &self.offers, now)
    }

    fn refuses(&self, code: FaultCode, change: impl FnOnce(&mut Terms)) {
        assert_eq!(self.judge(change).unwrap_err().code, code);
    }
}

#[test]
fn terms_copied_from_the_current_offer_are_admitted_also_with_fewer_tools_or_runs() {
    let case = Case::new();
    case.judge(|_| {}).unwrap();
    case.judge(|terms| {
        terms.prices.truncate(1);
        terms.runs_at_once = 1;
    })
    .unwrap();
}

#[test]
fn another_peer_than_the_one_that_the_binding_names_is_refused() {
    let case = Case::new();
    let fault = case.judge_of(|_| {}, agent_keys(2).peer.id(), case.now).unwrap_err();
    assert_eq!(fault.code, FaultCode::NOT_YOURS);
}

#[test]
fn paused_work_is_given_a_minute_and_what_the_chain_takes_to_be_sure() {
    let case = Case::new();
    assert_eq!(case.standing.redemption_grace(), Millis::from_secs(60));
    // Ethereum, whose final block is a quarter of an hour behind, by its preset.
    let finality_lag = Millis::from_secs(orien_chain::Preset::named("ethereum").unwrap().finality_lag_seconds);
    assert_eq!(Standing { finality_lag, ..case.standing }.redemption_grace(), Millis::from_secs(1_860));
}

#[test]
fn an_unknown_or_expired_offer_is_refused() {
    let case = Case::new();
    case.refuses(FaultCode::OFFER_CHANGED, |terms| terms.offer = Hash::of(b"other"));
    let later = case.offer.expires_at;
    let judged = case.judge_of(
        |terms| {
            terms.issued_at = later;
            terms.work_until = UnixSeconds(later.0 / 1000 + 3600);
            terms.redeem_until = UnixSeconds(later.0 / 1000 + 7 * 3600);
        },
        agent_keys(1).peer.id(),
        later,
    );
    assert_eq!(judged.unwrap_err().code, FaultCode::OFFER_CHANGED);
}

#[test]
fn every_figure_that_differs_from_the_offer_is_refused() {
    let case = Case::new();
    let changes: [fn(&mut Terms); 7] = [
        |terms| terms.prices[0].price.per_minute = usdc(1),
        |terms| terms.prices[0].tool = "other".to_owned(),
        |terms| terms.prices[1] = terms.prices[0].clone(),
        |terms| terms.minimum_charge = usdc(0),
        |terms| terms.metering_interval = Millis(60_000),
        |terms| terms.confinement = orien_protocol::offer::Confinement::S3,
        |terms| terms.runs_at_once = 99,
    ];
    for change in changes {
        case.refuses(FaultCode::OFFER_CHANGED, change);
    }
}

#[test]
fn another_payout_address_settlement_or_chain_is_refused() {
    let case = Case::new();
    let provider = |payout| {
        let kit = &case.kit;
        SignedBinding::make(&kit.provider.peer, &kit.provider.claim, payout, &kit.network, &kit.domain)
    };
    case.refuses(FaultCode::NOT_YOURS, |terms| terms.provider = provider(Address::from_bytes([6; 20])));
    case.refuses(FaultCode::WRONG_NETWORK, |terms| terms.settlement_signer = Address::from_bytes([6; 20]));
}

#[test]
fn times_that_leave_no_room_to_collect_or_hold_a_place_for_too_long_are_refused() {
    let case = Case::new();
    let second = case.now.0 / 1000;
    let margin = REDEMPTION_MARGIN.0 / 1000;
    case.refuses(FaultCode::TIMES, |terms| terms.redeem_until = UnixSeconds(terms.work_until.0 + margin - 1));
    case.judge(|terms| terms.redeem_until = UnixSeconds(terms.work_until.0 + margin)).unwrap();
    case.refuses(FaultCode::TIMES, |terms| {
        terms.work_until = UnixSeconds(second + WORK_TIME_MAX.0 / 1000 + 60);
        terms.redeem_until = UnixSeconds(terms.work_until.0 + margin);
    });
    case.refuses(FaultCode::TIMES, |terms| terms.redeem_until = UnixSeconds(second + 2 * 86_400));
    case.refuses(FaultCode::TIMES, |terms| terms.time_tolerance = Millis(0));
}

#[test]
fn clocks_that_are_more_than_a_minute_apart_are_refused() {
    let case = Case::new();
    case.refuses(FaultCode::CLOCKS, |terms| terms.issued_at = Timestamp(terms.issued_at.0 - 62_000));
}
