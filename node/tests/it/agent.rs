//! An agent: the real machine, with a stream to the shop.

use std::time::Duration;

use orien_bootstrap::{FrameStream, clock, random_id};
use orien_node::shop::{Purpose, Shop};
use orien_protocol::fault::Fault;
use orien_protocol::frame::{AgentFrame, CONTROL_FRAME_LIMIT, CloseReason, LogFrame, LogRequest, ProviderFrame, STREAM_FRAME_LIMIT};
use orien_protocol::hash::Hash;
use orien_protocol::id::ExecutionId;
use orien_protocol::job::{Argument, ArgumentValue, Stdin};
use orien_protocol::money::Usdc;
use orien_protocol::offer::Offer;
use orien_protocol::receipt::{Outcome, Receipt, Work};
use orien_protocol::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentKeys, AgentRecord, AgentSession, RunOrder};
use orien_protocol::signing::Verified;
use orien_protocol::terms::Terms;
use orien_protocol::time::Millis;
use orien_protocol::voucher::SignedClose;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::kit::{HUNG, Kit};

/// What a stream holds on its way.
const PIPE: usize = 1 << 20;

pub(crate) struct Agent<'a> {
    kit: &'a Kit,
    pub(crate) keys: AgentKeys,
    pub(crate) session: AgentSession,
    stream: Option<Wire>,
    pub(crate) events: Vec<AgentEvent>,
    pub(crate) records: Vec<AgentRecord>,
    /// Whether vouchers are sent.
    pub(crate) signs: bool,
    /// Whether settlement answers.
    pub(crate) reserves: bool,
    /// Closes of nothing, on their way to settlement.
    pub(crate) handed_back: Vec<SignedClose>,
}

/// Any way to a provider.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A stream to a provider.
pub(crate) type Wire = FrameStream<Box<dyn Io>>;

/// A stream to the shop as this agent's peer.
pub(crate) fn stream_to(shop: &Shop, keys: &AgentKeys, purpose: Purpose) -> Wire {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    shop.receive(keys.peer.id(), purpose, theirs);
    let limit = if purpose == Purpose::Control { CONTROL_FRAME_LIMIT } else { STREAM_FRAME_LIMIT };
    FrameStream::new(Box::new(ours), limit)
}

impl<'a> Agent<'a> {
    /// Proposes a session.
    pub(crate) async fn propose(kit: &'a Kit, shop: &Shop, offer: &Verified<Offer>, keys: AgentKeys, budget: u64) -> Self {
        let terms = kit.terms(offer, offer.hash(), &keys);
        Self::propose_terms(kit, shop, terms, keys, budget).await
    }

    pub(crate) async fn propose_terms(kit: &'a Kit, shop: &Shop, terms: Terms, keys: AgentKeys, budget: u64) -> Self {
        let stream = stream_to(shop, &keys, Purpose::Control);
        Self::propose_over(kit, stream, terms, keys, budget).await
    }

    pub(crate) async fn propose_over(kit: &'a Kit, stream: Wire, terms: Terms, keys: AgentKeys, budget: u64) -> Self {
        let (session, effects) = AgentSession::propose(terms, Usdc::from_micros(budget), &kit.network, keys.clone()).unwrap();
        let mut agent = Self {
            kit,
            keys,
            session,
            stream: Some(stream),
            events: Vec::new(),
            records: Vec::new(),
            signs: true,
            reserves: true,
            handed_back: Vec::new(),
        };
        agent.carry_out(effects).await;
        agent
    }

    /// Opens a session.
    pub(crate) async fn open(kit: &'a Kit, shop: &Shop, offer: &Verified<Offer>, keys: AgentKeys, budget: u64) -> Self {
        let mut agent = Self::propose(kit, shop, offer, keys, budget).await;
        agent.opened().await;
        agent
    }

    pub(crate) async fn opened(&mut self) {
        self.until("opened", |agent| agent.has(|event| matches!(event, AgentEvent::Opened))).await;
    }

    pub(crate) fn has(&self, is: impl Fn(&AgentEvent) -> bool) -> bool {
        self.events.iter().any(is)
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| if let AgentEvent::Closed(reason) = event { Some(*reason) } else { None })
    }

    pub(crate) fn not_opened(&self) -> Option<&Fault> {
        self.events.iter().find_map(|event| if let AgentEvent::NotOpened(fault) = event { Some(fault) } else { None })
    }

    pub(crate) fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.events.iter().filter_map(|event| if let AgentEvent::Receipt(receipt) = event { Some(&***receipt) } else { None })
    }

    pub(crate) fn final_work(&self, execution: ExecutionId) -> Option<&Work> {
        self.receipts().filter_map(|receipt| receipt.work.as_ref()).find(|work| work.execution == execution && work.outcome.is_some())
    }

    pub(crate) fn refusal(&self, execution: ExecutionId) -> Option<&Fault> {
        self.events.iter().find_map(|event| match event {
            AgentEvent::RunRefused(refused, fault) if *refused == execution => Some(fault),
            _ => None,
        })
    }

    /// Asks for a run with text arguments (whole numbers become integers where the tool is `count`).
    pub(crate) async fn run(&mut self, tool: &str, arguments: &[(&str, &str)]) -> ExecutionId {
        self.run_at_most(tool, arguments, None).await
    }

    pub(crate) async fn run_at_most(&mut self, tool: &str, arguments: &[(&str, &str)], max_cost: Option<u64>) -> ExecutionId {
        self.run_as(tool, arguments, max_cost, Millis::from_secs(60), Stdin::Empty).await
    }

    /// Runs a tool without arguments that wants input, for so many seconds at most.
    pub(crate) async fn run_with_input(&mut self, tool: &str, seconds: u64) -> ExecutionId {
        self.run_as(tool, &[], None, Millis::from_secs(seconds), Stdin::Streamed).await
    }

    async fn run_as(
        &mut self,
        tool: &str,
        arguments: &[(&str, &str)],
        max_cost: Option<u64>,
        max_duration: Millis,
        stdin: Stdin,
    ) -> ExecutionId {
        let execution = random_id(ExecutionId::from_parts).unwrap();
        let value = |value: &str| match (tool, value.parse()) {
            ("count", Ok(number)) => ArgumentValue::Integer(number),
            _ => ArgumentValue::Text(value.to_owned()),
        };
        let arguments = arguments.iter().map(|(name, text)| Argument { name: (*name).to_owned(), value: value(text) }).collect();
        let order =
            RunOrder { execution, tool: tool.to_owned(), arguments, max_cost: max_cost.map(Usdc::from_micros), max_duration, stdin };
        self.input(AgentInput::Run(order)).await;
        execution
    }

    /// Runs a tool to its end.
    pub(crate) async fn run_to_end(&mut self, tool: &str, arguments: &[(&str, &str)]) -> Work {
        let execution = self.run(tool, arguments).await;
        self.ended(execution).await
    }

    pub(crate) async fn ended(&mut self, execution: ExecutionId) -> Work {
        self.until("the run ended", |agent| agent.final_work(execution).is_some()).await;
        self.final_work(execution).unwrap().clone()
    }

    pub(crate) async fn outcome(&mut self, execution: ExecutionId) -> Outcome {
        self.ended(execution).await.outcome.unwrap()
    }

    pub(crate) async fn started(&mut self, execution: ExecutionId) {
        self.until("the tool started", |agent| agent.has(|event| matches!(event, AgentEvent::Started(id, _) if *id == execution))).await;
    }

    pub(crate) async fn end(&mut self) -> CloseReason {
        self.input(AgentInput::End).await;
        self.until("closed", |agent| agent.closed().is_some()).await;
        self.closed().unwrap()
    }

    /// Comes back on a new stream.
    pub(crate) async fn reconnect(&mut self, shop: &Shop) {
        self.stream = Some(stream_to(shop, &self.keys, Purpose::Control));
        self.input(AgentInput::Connected).await;
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Hangs up.
    pub(crate) async fn hang_up(&mut self) {
        self.stream = None;
        self.input(AgentInput::Disconnected).await;
    }

    /// Says something that the machine did not ask for.
    pub(crate) async fn send(&mut self, frame: AgentFrame) {
        self.stream.as_mut().unwrap().send(&frame).await.unwrap();
    }

    pub(crate) async fn input(&mut self, input: AgentInput) {
        let effects = self.session.handle(input, clock::now());
        self.carry_out(effects).await;
    }

    /// Listens until something holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + HUNG;
        while !holds(self) {
            assert!(tokio::time::Instant::now() < deadline, "never: {what}; phase {:?}, events {:?}", self.session.phase(), self.events);
            self.listen().await;
        }
    }

    /// Goes on listening while something else is done.
    pub(crate) async fn while_doing<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(tokio::time::timeout(HUNG, work));
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done.unwrap(),
                () = self.listen() => {}
            }
        }
    }

    pub(crate) async fn listen(&mut self) {
        let tick = tokio::time::sleep(Duration::from_millis(50));
        let Some(stream) = &mut self.stream else { return tick.await };
        let heard = tokio::select! {
            heard = stream.recv::<ProviderFrame>() => heard,
            () = tick => return self.input(AgentInput::Tick).await,
        };
        match heard {
            Ok(Some(frame)) => self.input(AgentInput::Frame(frame)).await,
            _ => self.hang_up().await,
        }
    }

    async fn carry_out(&mut self, effects: Vec<AgentEffect>) {
        let mut queue = std::collections::VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                AgentEffect::Persist(record) => self.records.push(*record),
                AgentEffect::Send(AgentFrame::Voucher(_)) if !self.signs => {}
                AgentEffect::Send(frame) => {
                    if let Some(stream) = &mut self.stream
                        && stream.send(&frame).await.is_err()
                    {
                        self.stream = None;
                    }
                }
                AgentEffect::HandBack { close, .. } => self.handed_back.push(close),
                AgentEffect::Reserve { .. } if !self.reserves => {}
                AgentEffect::Reserve { terms, ceiling } => {
                    let reserved = AgentInput::Reserved { asked: ceiling, allowance: self.kit.allowance(&terms, ceiling) };
                    queue.extend(self.session.handle(reserved, clock::now()));
                }
                AgentEffect::Tell(event) => self.events.push(event),
            }
        }
    }

    /// A run's whole output, with its numbered chunks joined.
    pub(crate) async fn log(&self, shop: &Shop, execution: ExecutionId) -> Result<Vec<u8>, Fault> {
        let mut stream = stream_to(shop, &self.keys, Purpose::Log);
        stream.send(&LogRequest { session: self.session.id(), execution, from: 0 }).await.unwrap();
        let mut output = Vec::new();
        loop {
            match stream.recv::<LogFrame>().await.unwrap().unwrap() {
                LogFrame::Chunk { bytes, .. } => output.extend(bytes),
                LogFrame::Gap { .. } => {}
                LogFrame::End => return Ok(output),
                LogFrame::Refused(fault) => return Err(fault),
            }
        }
    }
}

/// BLAKE3, as receipts and transfers give it.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    Hash::of(bytes)
}
