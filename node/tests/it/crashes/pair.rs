//! An agent's machine and a provider's, of which only the agent outlives a crash. Everything the provider wants kept goes through the store before anything else of
//! its turn is done, as its driver does it.

use std::collections::{BTreeMap, VecDeque};

use orien_node::listing::Today;
use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::job::{Job, Stdin};
use orien_protocol::receipt::{EndReason, Receipt, Usage};
use orien_protocol::session::agent::{AgentEffect, AgentInput, AgentKeys, AgentPhase, AgentSession, RunOrder};
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderRecord, ProviderSession};
use orien_protocol::signing::{Address, Signed};
use orien_protocol::terms::{ProposedTerms, Terms};
use orien_protocol::time::{Millis, Now, Timestamp, UnixSeconds};

use super::{Off, Shelf};
use crate::kit::{Kit, MINIMUM, usdc};

pub(super) const START: Timestamp = Timestamp(1_800_000_000_000);
/// Between two turns of the clock.
const TICK: u64 = 250;

pub(super) struct Pair {
    keys: AgentKeys,
    pub(super) agent: AgentSession,
    provider: Option<ProviderSession>,
    now: Now,
    to_agent: VecDeque<ProviderFrame>,
    to_provider: VecDeque<AgentFrame>,
    tools: BTreeMap<ExecutionId, u64>,
    runs: u128,
    /// Receipts that left the provider.
    pub(super) sent: Vec<Signed<Receipt>>,
    /// Sessions proposed, one after the other.
    pub(super) attempts: u64,
    /// Whether a crash came between its opening and its end.
    pub(super) was_interrupted: bool,
    /// Whether the provider did something of a turn whose records were not written.
    pub(super) is_out_of_step: bool,
}

fn terms(kit: &Kit, keys: &AgentKeys, attempt: u64) -> Terms {
    let offer = kit.listing().offer(1, START, &Today::default());
    let number = u128::from(keys.peer.id().as_bytes()[0]) << 8 | u128::from(attempt);
    let seconds = START.0 / 1000;
    Terms {
        session: SessionId::from_parts(START.0, number),
        issued_at: START,
        work_until: UnixSeconds(seconds + 3600),
        redeem_until: UnixSeconds(seconds + 7 * 3600),
        ..kit.terms(&offer, Hash::of(b"offer"), keys)
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let agent = (self.agent.phase(), self.agent.charged(), self.agent.promised(), self.agent.is_disputed());
        let provider = self.provider.as_ref().map(|it| (it.phase(), it.charged(), it.promised()));
        f.debug_struct("Pair").field("agent", &agent).field("provider", &provider).field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

impl Pair {
    /// A session that was not proposed yet.
    pub(super) fn new(kit: &Kit, keys: AgentKeys) -> Self {
        let (agent, _) = AgentSession::propose(terms(kit, &keys, 0), usdc(2_000_000), &kit.network, keys.clone()).unwrap();
        Self {
            keys,
            agent,
            provider: None,
            now: Now { wall: START, mono: Millis(1_000_000) },
            to_agent: VecDeque::new(),
            to_provider: VecDeque::new(),
            tools: BTreeMap::new(),
            runs: 0,
            sent: Vec::new(),
            attempts: 0,
            was_interrupted: false,
            is_out_of_step: false,
        }
    }

    pub(super) fn id(&self) -> SessionId {
        self.agent.id()
    }

    pub(super) fn account(&self) -> Address {
        self.keys.spending.address()
    }

    /// Over on both sides, with nothing owed and nothing disputed; a provider may have forgotten it since.
    pub(super) fn is_settled(&self) -> bool {
        let (charged, promised) = (self.agent.charged(), self.agent.promised());
        let agrees = |provider: &ProviderSession| {
            // A first voucher that did not reach the disk is the provider's loss: it asks for nothing.
            let never_opened = charged == usdc(MINIMUM) && provider.promised() == usdc(0);
            provider.is_over() && provider.charged() == charged && (provider.promised() == promised || never_opened)
        };
        let is_over = matches!(self.agent.phase(), AgentPhase::Closed(_)) && !self.agent.is_disputed();
        is_over && charged == promised && self.provider.as_ref().is_none_or(agrees)
    }

    /// Proposes a session, unless there is one; one that a crash kept from opening is proposed again under another id.
    pub(super) async fn open(&mut self, kit: &Kit, shelf: &mut Shelf) -> Result<(), Off> {
        let failed = matches!(self.agent.phase(), AgentPhase::Closed(_)) && self.agent.promised() == usdc(0);
        if self.attempts > 0 && !failed {
            return Ok(());
        }
        let terms = terms(kit, &self.keys, self.attempts);
        self.attempts += 1;
        let (agent, effects) = AgentSession::propose(terms, usdc(2_000_000), &kit.network, self.keys.clone()).unwrap();
        (self.agent, self.provider) = (agent, None);
        self.sent.clear();
        self.carry_out_agent(kit, effects);
        self.talk(kit, shelf).await
    }

    pub(super) async fn run(&mut self, kit: &Kit, shelf: &mut Shelf) -> Result<(), Off> {
        self.runs += 1;
        let execution = ExecutionId::from_parts(START.0, self.runs << 8 | u128::from(self.keys.peer.id().as_bytes()[0]));
        let order = RunOrder {
            execution,
            tool: "call".to_owned(),
            arguments: Vec::new(),
            max_cost: None,
            max_duration: Millis::from_secs(60),
            stdin: Stdin::Empty,
        };
        self.agent_input(kit, AgentInput::Run(order));
        self.talk(kit, shelf).await
    }

    pub(super) async fn pass(&mut self, kit: &Kit, shelf: &mut Shelf, ms: u64) -> Result<(), Off> {
        let mut left = ms;
        while left > 0 {
            let step = left.min(TICK);
            left -= step;
            self.now = Now { wall: self.now.wall.plus(Millis(step)), mono: Millis(self.now.mono.0 + step) };
            for (execution, ran) in self.tools.clone() {
                self.tools.insert(execution, ran + step);
                let usage = Usage { effective_ms: ran + step, ..Usage::default() };
                self.provider_input(kit, shelf, ProviderInput::Progress(execution, usage)).await?;
                self.talk(kit, shelf).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn finish(&mut self, kit: &Kit, shelf: &mut Shelf) -> Result<(), Off> {
        while let Some((execution, ms)) = self.tools.pop_first() {
            let usage = Usage { effective_ms: ms, ..Usage::default() };
            let ended = ProviderInput::Ended { execution, usage, end: EndReason::Exited, exit_code: Some(0) };
            self.provider_input(kit, shelf, ended).await?;
            self.talk(kit, shelf).await?;
        }
        Ok(())
    }

    pub(super) async fn top_up(&mut self, kit: &Kit, shelf: &mut Shelf, ceiling: u64) -> Result<(), Off> {
        if let Some(terms) = self.agent.terms().map(|terms| terms.to_signed()) {
            self.agent_input(kit, AgentInput::Reserved { asked: usdc(ceiling), allowance: kit.allowance(&terms, usdc(ceiling)) });
        }
        self.talk(kit, shelf).await
    }

    pub(super) async fn end(&mut self, kit: &Kit, shelf: &mut Shelf) -> Result<(), Off> {
        self.agent_input(kit, AgentInput::End);
        self.talk(kit, shelf).await?;
        // What still runs ends with the session.
        self.finish(kit, shelf).await
    }

    /// The provider is gone with everything that it did not write.
    pub(super) fn crash(&mut self) {
        self.was_interrupted = self.attempts > 0 && !self.provider.take().is_some_and(|provider| provider.is_over());
        self.to_agent.clear();
        self.to_provider.clear();
        self.tools.clear();
    }

    /// The session is picked up from the disk, if it is there, and the agent comes back.
    pub(super) async fn pick_up(&mut self, kit: &Kit, shelf: &mut Shelf) -> Result<(), Off> {
        if self.attempts == 0 {
            return Ok(());
        }
        self.agent_input(kit, AgentInput::Disconnected);
        let records = shelf.store.read(self.id(), |records| records.collect::<Vec<_>>()).await?;
        if !records.is_empty() {
            let vet = |_: &Job| Ok(());
            let env = ProviderEnv {
                now: self.now,
                credit: usdc(0),
                unredeemed_ceiling: usdc(0),
                redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
                vet: &vet,
            };
            let (session, effects) = ProviderSession::restore(records, &kit.network, kit.provider.clone(), &env).unwrap();
            self.provider = Some(session);
            self.carry_out(kit, shelf, effects).await?;
            // Nobody is connected yet.
            self.to_agent.clear();
            self.agent_input(kit, AgentInput::Connected);
        }
        self.talk(kit, shelf).await
    }

    async fn talk(&mut self, kit: &Kit, shelf: &mut Shelf) -> Result<(), Off> {
        while !self.to_agent.is_empty() || !self.to_provider.is_empty() {
            if let Some(frame) = self.to_provider.pop_front() {
                self.hear(kit, shelf, frame).await?;
            }
            if let Some(frame) = self.to_agent.pop_front() {
                self.agent_input(kit, AgentInput::Frame(frame));
            }
        }
        Ok(())
    }

    async fn hear(&mut self, kit: &Kit, shelf: &mut Shelf, frame: AgentFrame) -> Result<(), Off> {
        if let (None, AgentFrame::Propose(signed)) = (&self.provider, &frame) {
            let proposal = ProposedTerms::verify((**signed).clone(), &kit.network).unwrap();
            let (session, effects) = ProviderSession::accept(proposal, kit.provider.clone(), self.now).unwrap();
            self.provider = Some(session);
            return self.carry_out(kit, shelf, effects).await;
        }
        self.provider_input(kit, shelf, ProviderInput::Frame(frame)).await
    }

    async fn provider_input(&mut self, kit: &Kit, shelf: &mut Shelf, input: ProviderInput) -> Result<(), Off> {
        let vet = |_: &Job| Ok(());
        let env = ProviderEnv {
            now: self.now,
            credit: usdc(1_000_000),
            unredeemed_ceiling: usdc(u64::MAX),
            redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
            vet: &vet,
        };
        let Some(provider) = &mut self.provider else { return Ok(()) };
        let effects = provider.handle(input, &env);
        self.carry_out(kit, shelf, effects).await
    }

    async fn carry_out(&mut self, kit: &Kit, shelf: &mut Shelf, effects: Vec<ProviderEffect>) -> Result<(), Off> {
        let persist = |effect: &ProviderEffect| if let ProviderEffect::Persist(record) = effect { Some((**record).clone()) } else { None };
        let records: Vec<ProviderRecord> = effects.iter().filter_map(persist).collect();
        if !records.is_empty() {
            shelf.append(self.id(), records).await?;
        }
        self.is_out_of_step = shelf.under_way.is_some();
        for effect in effects {
            match effect {
                ProviderEffect::Send(frame) => self.send(frame),
                ProviderEffect::SendReceiptsAfter(number) => {
                    let page = shelf.store.receipts_after(self.id(), number, 0).await?;
                    page.receipts.into_iter().for_each(|receipt| self.send(ProviderFrame::Receipt(Box::new(receipt))));
                }
                ProviderEffect::Start { job, .. } => drop(self.tools.insert(job.execution, 0)),
                ProviderEffect::Kill(execution) => {
                    if let Some(ms) = self.tools.remove(&execution) {
                        let usage = Usage { effective_ms: ms, ..Usage::default() };
                        let ended = ProviderInput::Ended { execution, usage, end: EndReason::Signalled, exit_code: Some(137) };
                        Box::pin(self.provider_input(kit, shelf, ended)).await?;
                    }
                }
                ProviderEffect::Persist(_)
                | ProviderEffect::Pause(_)
                | ProviderEffect::Unpause(_)
                | ProviderEffect::HandIn(_)
                | ProviderEffect::Release(_) => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, frame: ProviderFrame) {
        if let ProviderFrame::Receipt(receipt) = &frame {
            self.sent.push((**receipt).clone());
        }
        self.to_agent.push_back(frame);
    }

    fn agent_input(&mut self, kit: &Kit, input: AgentInput) {
        let effects = self.agent.handle(input, self.now);
        self.carry_out_agent(kit, effects);
    }

    fn carry_out_agent(&mut self, kit: &Kit, effects: Vec<AgentEffect>) {
        for effect in effects {
            match effect {
                AgentEffect::Send(frame) => self.to_provider.push_back(frame),
                AgentEffect::Reserve { terms, ceiling } => {
                    let allowance = kit.allowance(&terms, ceiling);
                    self.agent_input(kit, AgentInput::Reserved { asked: ceiling, allowance });
                }
                AgentEffect::Persist(_) | AgentEffect::HandBack { .. } | AgentEffect::Tell(_) => {}
            }
        }
    }
}
