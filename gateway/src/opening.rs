//! Opens a session: finds a provider, writes the terms from its offer, and waits for the outcome.
//!
//! Always true: the terms repeat what the provider's own offer says; every attempt has an id that follows from the request, so that a request repeated after a crash finds what it
//! had begun. `auto` moves on when the provider is the reason and settlement holds nothing for the attempt.

use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::CloseReason;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::offer::Offer;
use orien_protocol::peer::PeerId;
use orien_protocol::session::agent::{AgentRecord, AgentSession};
use orien_protocol::signing::Verified;
use orien_protocol::terms::{TIME_TOLERANCE, Terms, ToolPrice};
use orien_protocol::time::{Millis, UnixSeconds};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::courier::{COMMANDS, Courier};
use crate::desk::{Blame, By, Desk, State};
use crate::experience::Known;
use crate::first_run::{FirstRun, Unfit};
use crate::handover::dated;
use crate::link::Link;
use crate::matching::{Candidate, Ranked, rank};
use crate::plan::Plan;
use crate::rows::SessionFacts;
use crate::sessions::Sessions;
use crate::spending::{CommitError, Spender};
use crate::store::{Put, StoreError};

/// Vouchers stay redeemable for so long after the last work: a provider that was down for a working day still earns.
const REDEEM_AFTER: Millis = Millis::from_secs(6 * 3600);
/// How long terms let a session last: what its own expiry can be extended to. With the time for redemption it fits the usual exit delay of a day (M12), and it is the longest for which
/// a budget can stay reserved when a provider is lost for good.
pub(crate) const LIFETIME: Millis = Millis::from_secs(8 * 3600);
/// Providers that `auto` tries.
const AUTO_ATTEMPTS: usize = 3;
/// Ids that one request may use, repetitions after crashes included.
const IDS: u8 = 16;
/// Longest opening: the provider holds a place for 30 s at each of two steps.
const OPENING_LIMIT: Duration = Duration::from_secs(45);
/// Offers that fit, or did not fit, and are named in an answer.
const STANDINGS_LIMIT: usize = 16;
const REJECTED_LIMIT: usize = 16;

/// Which provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The best that accepts.
    Auto,
    /// This one.
    Named(PeerId),
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(crate) struct OpenRequest {
    pub(crate) choice: Choice,
    /// A provider that comes after all others.
    pub(crate) avoid: Option<PeerId>,
    pub(crate) budget: Usdc,
    pub(crate) mission: Option<String>,
    /// What else is wanted.
    pub(crate) plan: Plan,
    /// The run that it is for: a provider that would refuse it is not asked.
    pub(crate) first_run: Option<FirstRun>,
    /// How long it lasts unless it is extended, if its plan does not say until when.
    pub(crate) expiry: Millis,
    /// What the session's id follows from.
    pub(crate) seed: [u8; 16],
    /// Whose cap it counts against. One that goes on for another has the opener of that one, and its budget is a part of what that one had.
    pub(crate) spender: Spender,
}

/// A provider that may be asked, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) provider: PeerId,
    pub(crate) label: String,
    pub(crate) why: String,
}

impl Standing {
    /// The one that the caller named.
    pub(crate) fn named(provider: PeerId) -> Self {
        Self { provider, label: String::new(), why: "you named this provider".to_owned() }
    }
}

/// Who may be asked, the best first, and who not and why.
#[derive(Clone, Debug)]
pub(crate) struct Standings {
    pub(crate) wanted: Vec<Standing>,
    pub(crate) rejected: Vec<(PeerId, String)>,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// No offer fits.
    #[error("no provider fits")]
    NoProvider {
        /// Providers, and what each lacks.
        rejected: Vec<(PeerId, String)>,
    },
    /// The provider would not take the run that the session is for.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It was tried and did not open.
    #[error("{}", .0.fault)]
    Blame(Blame),
    /// Whoever asks may not commit so much.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Nothing more can be opened here now.
    #[error("too many sessions are open")]
    Full,
    /// The store failed: the process has to stop.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Blame> for OpenError {
    fn from(blame: Blame) -> Self {
        Self::Blame(blame)
    }
}

fn us(code: FaultCode, text: impl std::fmt::Display) -> OpenError {
    OpenError::Blame(Blame { fault: Fault::new(code, text), by: By::Us })
}

fn too_long() -> OpenError {
    us(FaultCode::INTERNAL, "the opening took too long; look at the session again later")
}

/// The ids that a request may give to sessions, in order.
fn ids(seed: [u8; 16]) -> impl Iterator<Item = SessionId> {
    (0..IDS).map(move |step| {
        let mut bytes = seed;
        bytes[15] = bytes[15].wrapping_add(step);
        SessionId::from_bytes(bytes)
    })
}

impl Sessions {
    /// Opens a session, or finds the one that the same request opened before.
    pub(crate) async fn open(self: &Arc<Self>, request: &OpenRequest) -> Result<SessionId, OpenError> {
        let mut used = 0;
        for id in ids(request.seed) {
            // What an earlier process began is being given up at this moment, or goes on: which of the two, is known when it is on disk.
            if let Some(desk) = self.desk(&id) {
                let decided = |state: &State| (state.opening.is_some() || state.closing.is_some()).then_some(());
                desk.wait(OPENING_LIMIT, decided).await.ok_or_else(too_long)?;
            }
            match self.view(id).await? {
                // Ids are used in order: the rest are free.
                None => break,
                Some(view) if view.closing.as_ref().is_some_and(|closing| closing.reason == CloseReason::NotOpened) => used += 1,
                Some(view) => return Ok(view.id),
            }
        }
        let _held = match request.plan.replaces {
            None => self.commit(&request.spender, ids(request.seed).collect(), request.budget).await?,
            Some(_) => None,
        };
        let mut free = ids(request.seed).skip(used).peekable();
        let (providers, auto) = match &request.choice {
            Choice::Named(provider) => (vec![Standing::named(*provider)], false),
            Choice::Auto => (self.standings(request)?.wanted, true),
        };
        let mut last = us(FaultCode::BUSY, "this request has been tried too often; use another Idempotency-Key");
        for Standing { provider, why, .. } in providers.into_iter().take(AUTO_ATTEMPTS) {
            let Some(&id) = free.peek() else { break };
            match self.attempt(request, provider, why, id).await {
                Ok(()) => return Ok(id),
                Err(error) if auto && is_passing(&error) && !self.has_reserved(id).await? => {
                    tracing::info!(%provider, %error, "a provider cannot take a session now; trying the next");
                    last = error;
                    // One that was never proposed is free for the next: a gap would hide from a repetition what comes after it.
                    if self.view(id).await?.is_some() {
                        free.next();
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Whether settlement holds money for a session that did not open; another attempt would hold as much again.
    async fn has_reserved(&self, session: SessionId) -> Result<bool, StoreError> {
        let records = self.context.store.records(session).await?;
        Ok(records.iter().any(|record| matches!(record, AgentRecord::Reserved(_))))
    }

    /// Who may be asked, the best first, and who not.
    pub(crate) fn standings(&self, request: &OpenRequest) -> Result<Standings, OpenError> {
        let (listed, experience, now) = (self.context.catalogue.all(), self.experience(), clock::wall());
        let candidates = listed.iter().map(|listed| Candidate {
            offer: &listed.offer,
            equivocated: listed.equivocated,
            known: experience(&listed.offer.provider).known(now),
        });
        let ranking = rank(&request.plan.wish, candidates, now);
        let rejected = ranking.rejected.into_iter().take(REJECTED_LIMIT).map(|r| (r.offer.provider, r.why)).collect();
        if ranking.ranked.is_empty() {
            return Err(OpenError::NoProvider { rejected });
        }
        let standing =
            |ranked: Ranked<'_>| Standing { provider: ranked.offer.provider, label: ranked.offer.label.clone(), why: ranked.why };
        let (avoided, mut wanted): (Vec<_>, Vec<_>) =
            ranking.ranked.into_iter().map(standing).partition(|standing| Some(standing.provider) == request.avoid);
        wanted.truncate(STANDINGS_LIMIT);
        wanted.extend(avoided);
        Ok(Standings { wanted, rejected })
    }

    async fn attempt(self: &Arc<Self>, request: &OpenRequest, provider: PeerId, why: String, id: SessionId) -> Result<(), OpenError> {
        if !self.has_room() {
            return Err(OpenError::Full);
        }
        let _turn = self.directory.turn(provider).await;
        let offer = self.directory.fresh_offer(&self.context, provider).await?;
        check_offer(request, &offer)?;
        offer
            .binding
            .verify(self.context.network.id(), &self.context.network.domain())
            .map_err(|error| OpenError::Blame(Blame { fault: Fault::new(FaultCode::BAD_SIGNATURE, error), by: By::Provider }))?;
        let terms = self.terms(request, &offer, id);
        self.check_escrow(request, &terms).await?;
        let link = Link::open(&self.context.net, provider, &offer.addresses)
            .await
            .map_err(|error| OpenError::Blame(Blame { fault: Fault::new(FaultCode::INTERNAL, error), by: By::ProviderGone }))?;
        let facts = SessionFacts {
            mission: request.mission.clone(),
            provider,
            label: offer.label.clone(),
            why: request.plan.replaces.map_or(why.clone(), |old| format!("{why}; goes on for {old}")),
            addresses: offer.addresses.clone(),
            tools: offer.tools.clone(),
            created_at: terms.issued_at,
            work_until: terms.work_until,
            budget: request.budget,
            closing: None,
        };
        let expires_at = request.plan.expires_at.unwrap_or_else(|| terms.issued_at.plus(request.expiry));
        let plan = Plan { expires_at: Some(expires_at), ..request.plan.clone() };
        let proposed = AgentSession::propose(terms, request.budget, self.context.network.id(), self.context.keys.clone());
        let (machine, first) = proposed.map_err(|error| us(FaultCode::MALFORMED, error))?;
        let (commands, queue) = mpsc::channel(COMMANDS);
        let opener = match plan.replaces {
            Some(old) => self.context.store.opener(old).await?,
            None => request.spender.token().map(str::to_owned),
        };
        let mut puts = vec![Put::session(&id, &facts)?, Put::plan(&id, &plan)?];
        puts.extend(opener.map(|token| Put::opener(&id, &token)));
        let replaces = plan.replaces;
        let desk = Arc::new(Desk::new(id, facts, plan, commands));
        if let Some(old) = replaces {
            desk.change(|state| state.news.tell("replaces", dated(serde_json::json!({ "sessionId": old.to_string() }))));
        }
        let mut courier = Courier::new(Arc::clone(&self.context), machine, Arc::clone(&desk), queue, 0, Some(link));
        puts.into_iter().for_each(|put| courier.stage(put));
        self.launch(courier, Arc::clone(&desk), first);
        match desk.wait(OPENING_LIMIT, |state| state.opening.clone()).await {
            Some(opened) => Ok(opened?),
            None => Err(too_long()),
        }
    }

    /// Where there is a chain: whether the escrow carries the budget beside everything else that is promised. From then on the session's channel is looked at.
    async fn check_escrow(&self, request: &OpenRequest, terms: &Terms) -> Result<(), OpenError> {
        let Some(wallet) = &self.context.wallet else { return Ok(()) };
        let beside = self.promised_beside(wallet, terms.session).await?;
        // One that goes on for another takes over what that can no longer use.
        let beside = if request.plan.replaces.is_some() { beside.excess_over(request.budget) } else { beside };
        wallet.check(terms, request.budget, beside).await.map_err(|fault| OpenError::Blame(Blame { fault, by: By::Us }))?;
        Ok(wallet.add(terms).await?)
    }

    fn terms(&self, request: &OpenRequest, offer: &Verified<Offer>, session: SessionId) -> Terms {
        let context = &self.context;
        let issued_at = clock::wall();
        let work_until = issued_at.plus(LIFETIME.max(request.expiry)).seconds();
        Terms {
            session,
            agent: context.binding.clone(),
            provider: offer.binding.clone(),
            domain: context.network.domain(),
            settlement_signer: context.network.settlement().signer,
            offer: offer.hash(),
            prices: offer.tools.iter().map(|tool| ToolPrice { tool: tool.id.clone(), price: tool.price }).collect(),
            minimum_charge: offer.minimum_charge,
            metering_interval: offer.metering_interval,
            time_tolerance: TIME_TOLERANCE,
            runs_at_once: offer.capacity.runs_per_session,
            confinement: offer.confinement,
            issued_at,
            work_until,
            redeem_until: UnixSeconds(work_until.0.saturating_add(REDEEM_AFTER.0 / 1000)),
        }
    }
}

/// What the offer says now, against what is wanted; it may have changed since it was ranked.
pub(crate) fn check_offer(request: &OpenRequest, offer: &Offer) -> Result<(), OpenError> {
    let ranking = rank(&request.plan.wish, [Candidate { offer, equivocated: false, known: Known::default() }], clock::wall());
    if let Some(rejected) = ranking.rejected.first() {
        let code = match (&request.choice, rejected.fits) {
            (_, true) => FaultCode::BUSY,
            (Choice::Auto, false) => FaultCode::OFFER_CHANGED,
            // It was not chosen by its offer, so nothing has changed: asking again does not help.
            (Choice::Named(_), false) => return Err(OpenError::NoProvider { rejected: vec![(offer.provider, rejected.why.clone())] }),
        };
        return Err(OpenError::Blame(Blame {
            fault: Fault::new(code, format_args!("the provider does not fit: {}", rejected.why)),
            by: By::Provider,
        }));
    }
    let missing = offer.minimum_charge.excess_over(request.budget);
    if missing > Usdc::ZERO {
        let fault = Fault::new(
            FaultCode::BUDGET_EXHAUSTED,
            format_args!("the provider charges at least {} USDC per session", offer.minimum_charge),
        );
        return Err(OpenError::Blame(Blame { fault: fault.missing(missing), by: By::Us }));
    }
    Ok(request.first_run.as_ref().map_or(Ok(()), |run| run.check(offer, request.budget))?)
}

/// Whether another provider may do what this one could or would not.
pub(crate) fn is_passing(error: &OpenError) -> bool {
    match error {
        OpenError::Blame(Blame { by: By::ProviderGone | By::Provider, .. }) => true,
        // The provider's minimum is above the budget; another's may be lower.
        OpenError::Blame(Blame { fault, by: By::Us }) => fault.code == FaultCode::BUDGET_EXHAUSTED,
        // Another's tool of that name may take it.
        OpenError::Unfit(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_one_request_are_the_same_every_time_and_all_different() {
        let all: Vec<SessionId> = ids([7; 16]).collect();
        assert_eq!(all, ids([7; 16]).collect::<Vec<_>>());
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), usize::from(IDS));
    }

    #[test]
    fn another_provider_is_tried_when_this_one_is_the_reason() {
        let blame = |code, by| OpenError::Blame(Blame { fault: Fault::new(code, ""), by });
        assert!(is_passing(&blame(FaultCode::BUSY, By::Provider)));
        assert!(is_passing(&blame(FaultCode::OFFER_CHANGED, By::Provider)));
        assert!(is_passing(&blame(FaultCode::INTERNAL, By::ProviderGone)));
        assert!(!is_passing(&blame(FaultCode::INSUFFICIENT_FUNDS, By::Settlement)));
        assert!(is_passing(&blame(FaultCode::BUDGET_EXHAUSTED, By::Us)));
        assert!(!is_passing(&blame(FaultCode::INTERNAL, By::SettlementGone)));
        assert!(!is_passing(&OpenError::Full));
    }
}
