//! A provider by script: the protocol's own machine, with tools that only pretend.
//!
//! `echo` writes two lines and exits at once; `sleep` writes one and runs until it is killed; `liar` exits at once and claims an hour.

mod files;
mod input;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use orien_bootstrap::{FrameReader, FrameStream, FrameWriter, InboundStream, OfferSource, OfferStamp, Peer, PeerConfig, clock};
use orien_net::{NetStream, StreamKind};
use orien_protocol::binding::SignedBinding;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::*;
use orien_protocol::hash::Hash;
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::job::{ArgumentValue, Job};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::offer::*;
use orien_protocol::peer::PeerId;
use orien_protocol::receipt::{EndReason, Receipt, Usage};
use orien_protocol::session::provider::{
    ProviderEffect, ProviderEnv, ProviderInput, ProviderKeys, ProviderRecord, ProviderSession, let_go,
};
use orien_protocol::signing::{Address, Signed};
use orien_protocol::terms::ProposedTerms;
use orien_protocol::time::Millis;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PAYOUT: Address = Address::from_bytes([7; 20]);
const PLENTY: Usdc = Usdc::from_micros(1_000_000_000);

/// How a shop differs from the usual one.
#[derive(Clone, Debug)]
pub(crate) struct ShopPlan {
    pub(crate) label: &'static str,
    pub(crate) per_minute: Usdc,
    /// What a session costs at least.
    pub(crate) minimum_charge: Usdc,
    /// What it answers to every proposal.
    pub(crate) refuse: Option<FaultCode>,
    /// Hangs up when it is shown an allowance.
    pub(crate) hangs_up: bool,
    pub(crate) ens_name: Option<&'static str>,
}

impl Default for ShopPlan {
    fn default() -> Self {
        let (per_minute, minimum_charge) = (Usdc::from_micros(600_000), Usdc::from_micros(10_000));
        Self { label: "shop", per_minute, minimum_charge, refuse: None, hangs_up: false, ens_name: None }
    }
}

/// What a test can look at.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Sessions that were proposed, in order; one that was proposed twice is here twice.
    pub(crate) proposals: Vec<SessionId>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) vouchers: Vec<SeenVoucher>,
    /// What it would hand in.
    pub(crate) claims: Vec<Claim>,
    pub(crate) files: BTreeMap<String, (Vec<u8>, bool)>,
    /// Uploads that broke off: what came, and how long the whole is.
    pub(crate) unfinished: BTreeMap<String, (Vec<u8>, u64)>,
    /// Whether it signs closes of nothing, and how often it was asked.
    pub(crate) lets_go: bool,
    pub(crate) asked_to_let_go: usize,
    pub(crate) inputs: input::Inputs,
    /// Whether logs are given to nobody for now.
    pub(crate) holds_logs: bool,
    /// Whether it has no logs any more, as a node that was started again.
    pub(crate) forgets_logs: bool,
    /// Whether what came after the first piece of output was dropped before anybody read it.
    pub(crate) drops_output: bool,
    logs: BTreeMap<ExecutionId, (Vec<LogFrame>, bool)>,
    sessions: BTreeMap<SessionId, mpsc::Sender<ToSession>>,
    /// What drives them.
    driving: JoinSet<()>,
}

impl Seen {
    /// Whether a run has ended.
    fn is_over(&self, execution: ExecutionId) -> bool {
        self.logs.get(&execution).is_some_and(|(_, ended)| *ended)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeenVoucher {
    pub(crate) receipt: u64,
    pub(crate) total: Usdc,
}

pub(crate) struct Shop {
    peer: Arc<Peer>,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

struct Source {
    plan: ShopPlan,
    binding: SignedBinding,
}

fn parameter(name: &str, kind: ParameterKind) -> Parameter {
    Parameter { name: name.to_owned(), description: String::new(), required: true, kind }
}

impl OfferSource for Source {
    fn offer(&self, stamp: OfferStamp) -> Offer {
        let price = Price { per_minute: self.plan.per_minute, call_fee: Usdc::from_micros(10_000) };
        let tool = |id: &str, parameters| Tool {
            id: id.to_owned(),
            name: String::new(),
            description: String::new(),
            command: id.to_owned(),
            parameters,
            max_duration: Millis::from_secs(300),
            cpu_millis: 2000,
            memory_bytes: 4 << 30,
            price,
            workspace_required: true,
            capabilities: vec!["pretend".to_owned()],
        };
        let text = vec![parameter("text", ParameterKind::Text { max_bytes: 100 })];
        Offer {
            provider: stamp.provider,
            version: stamp.version,
            issued_at: stamp.issued_at,
            expires_at: stamp.expires_at,
            label: self.plan.label.to_owned(),
            name: "A shop".to_owned(),
            description: String::new(),
            ens_name: self.plan.ens_name.map(str::to_owned),
            region: None,
            binding: self.binding.clone(),
            price,
            minimum_charge: self.plan.minimum_charge,
            metering_interval: Millis::from_secs(5),
            tools: vec![tool("echo", text), tool("sleep", Vec::new()), tool("liar", Vec::new())],
            confinement: Confinement::S0,
            hardware: Hardware::default(),
            capacity: Capacity { sessions: 4, free: 4, runs_per_session: 4 },
            record: Record::default(),
            addresses: stamp.addresses,
        }
    }
}

impl Shop {
    pub(crate) async fn open(config: PeerConfig, plan: ShopPlan) -> Self {
        let peer = Arc::new(Peer::start(config, CancellationToken::new()).await.unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(Arc::clone(&peer), plan.clone(), Arc::clone(&seen)));
        peer.publish(Arc::new(Source { plan, binding: peer.binding(PAYOUT) })).await.unwrap();
        Self { peer, seen, _tasks: tasks }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.peer.id()
    }

    pub(crate) fn see<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    /// Stops every session that is under way, as a node does that is asked to stop.
    pub(crate) fn stop_sessions(&self) {
        let sessions: Vec<_> = self.see(|seen| seen.sessions.values().cloned().collect());
        for session in sessions {
            // One that is over hears nothing any more.
            let _ = session.try_send(ToSession::Input(Box::new(ProviderInput::Stop)));
        }
    }

    pub(crate) async fn close(self) {
        // A QUIC connection outlives its network for as long as somebody holds a stream of it: nobody would notice that the shop is gone.
        let mut driving = self.see(|seen| std::mem::take(&mut seen.driving));
        driving.shutdown().await;
        self.peer.stop().await;
    }
}

async fn serve(peer: Arc<Peer>, plan: ShopPlan, seen: Arc<Mutex<Seen>>) {
    let mut streams = peer.take_streams().unwrap();
    let mut tasks = JoinSet::new();
    while let Some(InboundStream { kind, stream, .. }) = streams.recv().await {
        let (seen, peer, plan) = (Arc::clone(&seen), Arc::clone(&peer), plan.clone());
        match kind {
            StreamKind::Control => tasks.spawn(control(peer, plan, seen, stream)),
            StreamKind::Log => tasks.spawn(log(seen, stream)),
            StreamKind::File => tasks.spawn(files::serve(seen, stream)),
            StreamKind::Input => tasks.spawn(input::serve(seen, stream)),
        };
    }
}

type Writer = FrameWriter<WriteHalf<NetStream>>;

#[derive(Debug)]
enum ToSession {
    Stream(Writer),
    HangUp,
    Input(Box<ProviderInput>),
}

async fn control(peer: Arc<Peer>, plan: ShopPlan, seen: Arc<Mutex<Seen>>, stream: NetStream) {
    let (mut reader, mut writer) = FrameStream::new(stream, CONTROL_FRAME_LIMIT).split();
    let Ok(Some(first)) = reader.recv::<AgentFrame>().await else { return };
    let (session, first) = match first {
        AgentFrame::Propose(terms) => {
            if let Some(code) = plan.refuse {
                writer.send(&ProviderFrame::Refused(Fault::new(code, "not today"))).await.unwrap();
                // Until the agent has read it and hangs up.
                let _ = reader.recv::<AgentFrame>().await;
                return;
            }
            let proposal = ProposedTerms::verify(*terms, peer.network().id()).unwrap();
            let id = proposal.terms().session;
            let keys = ProviderKeys { peer: peer.key(), claim: peer.money_key() };
            let (machine, effects) = ProviderSession::accept(proposal, keys, clock::now()).unwrap();
            let (to, inputs) = mpsc::channel(256);
            let driven = session_task(machine, effects, to.clone(), inputs, Arc::clone(&seen));
            {
                let mut seen = seen.lock().unwrap();
                seen.proposals.push(id);
                seen.sessions.insert(id, to.clone());
                seen.driving.spawn(driven);
            }
            (to, None)
        }
        resume @ AgentFrame::Resume { .. } => {
            let AgentFrame::Resume { session, .. } = resume else { return };
            let Some(to) = seen.lock().unwrap().sessions.get(&session).cloned() else { return };
            (to, Some(resume))
        }
        AgentFrame::LetGo(terms) => {
            let keys = ProviderKeys { peer: peer.key(), claim: peer.money_key() };
            let answer = match seen.lock().unwrap().lets_go {
                true => let_go(&terms.verify(peer.network().id()).unwrap(), &keys).1,
                false => ProviderFrame::Refused(Fault::new(FaultCode::BUSY, "not now")),
            };
            writer.send(&answer).await.unwrap();
            let _ = writer.finish().await;
            seen.lock().unwrap().asked_to_let_go += 1;
            return;
        }
        _ => return,
    };
    let _ = session.send(ToSession::Stream(writer)).await;
    if let Some(first) = first {
        let _ = session.send(ToSession::Input(Box::new(ProviderInput::Frame(first)))).await;
    }
    read(reader, session, seen, plan.hangs_up).await;
}

async fn read(mut reader: FrameReader<ReadHalf<NetStream>>, session: mpsc::Sender<ToSession>, seen: Arc<Mutex<Seen>>, hangs_up: bool) {
    while let Ok(Some(frame)) = reader.recv::<AgentFrame>().await {
        match &frame {
            AgentFrame::Present(_) if hangs_up => {
                let _ = session.send(ToSession::HangUp).await;
                return;
            }
            AgentFrame::Run(job) => seen.lock().unwrap().jobs.push(job.unverified().clone()),
            AgentFrame::Voucher(voucher) => {
                let voucher = voucher.unverified();
                seen.lock().unwrap().vouchers.push(SeenVoucher { receipt: voucher.receipt_number, total: voucher.total });
            }
            _ => {}
        }
        if session.send(ToSession::Input(Box::new(ProviderInput::Frame(frame)))).await.is_err() {
            return;
        }
    }
    let _ = session.send(ToSession::Input(Box::new(ProviderInput::Disconnected))).await;
}

async fn session_task(
    mut machine: ProviderSession,
    first: Vec<ProviderEffect>,
    to: mpsc::Sender<ToSession>,
    mut inputs: mpsc::Receiver<ToSession>,
    seen: Arc<Mutex<Seen>>,
) {
    let vet = |_: &Job| Ok(());
    let mut script = Script { to, seen, writer: None, receipts: Vec::new(), sleeping: BTreeMap::new() };
    let mut waiting = first;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        let mut effects = std::mem::take(&mut waiting);
        tokio::select! {
            said = inputs.recv() => match said {
                None | Some(ToSession::HangUp) => return,
                Some(ToSession::Stream(writer)) => script.writer = Some(writer),
                Some(ToSession::Input(input)) => {
                    let env = ProviderEnv { now: clock::now(), credit: PLENTY, unredeemed_ceiling: PLENTY, redemption_grace: orien_protocol::session::REDEMPTION_GRACE, vet: &vet };
                    effects.extend(machine.handle(*input, &env));
                }
            },
            _ = tick.tick() => {
                let mut ticks = vec![ProviderInput::Tick];
                ticks.extend(script.sleeping.iter().map(|(id, since)| ProviderInput::Progress(*id, usage(since.elapsed(), b"zzz\n"))));
                for input in ticks {
                    let env = ProviderEnv { now: clock::now(), credit: PLENTY, unredeemed_ceiling: PLENTY, redemption_grace: orien_protocol::session::REDEMPTION_GRACE, vet: &vet };
                    effects.extend(machine.handle(input, &env));
                }
            }
        }
        if script.writer.is_none() {
            waiting = effects;
            continue;
        }
        for effect in effects {
            script.carry_out(effect).await;
        }
    }
}

struct Script {
    to: mpsc::Sender<ToSession>,
    seen: Arc<Mutex<Seen>>,
    writer: Option<Writer>,
    receipts: Vec<Signed<Receipt>>,
    sleeping: BTreeMap<ExecutionId, Instant>,
}

impl Script {
    async fn carry_out(&mut self, effect: ProviderEffect) {
        match effect {
            ProviderEffect::Persist(record) => {
                if let ProviderRecord::Receipt(receipt) = *record {
                    self.receipts.push(receipt);
                }
            }
            ProviderEffect::Send(frame) => self.send(&frame).await,
            ProviderEffect::SendReceiptsAfter(number) => {
                for receipt in self.receipts.clone() {
                    if receipt.unverified().number > number {
                        self.send(&ProviderFrame::Receipt(Box::new(receipt))).await;
                    }
                }
            }
            ProviderEffect::HandIn(claim) => self.seen.lock().unwrap().claims.push(*claim),
            ProviderEffect::Start { job, .. } => self.start(*job),
            ProviderEffect::Kill(execution) => {
                if let Some(since) = self.sleeping.remove(&execution) {
                    self.end(execution, since.elapsed(), b"zzz\n", EndReason::Signalled, Some(137));
                }
            }
            _ => {}
        }
    }

    async fn send(&mut self, frame: &ProviderFrame) {
        if let Some(writer) = &mut self.writer {
            // An agent that is gone gets it when it resumes.
            let _ = writer.send(frame).await;
        }
    }

    fn start(&mut self, job: Job) {
        self.tell(ProviderInput::Started(job.execution));
        let execution = job.execution;
        match job.tool.as_str() {
            "echo" => {
                let ArgumentValue::Text(text) = &job.arguments[0].value else { panic!("text") };
                let output = format!("hello\n{text}\n").into_bytes();
                self.end(execution, Duration::from_millis(5), &output, EndReason::Exited, Some(0));
            }
            "sleep" => {
                self.write(execution, b"zzz\n", false);
                self.sleeping.insert(execution, Instant::now());
            }
            _ => self.end(execution, Duration::from_secs(3600), b"trust me\n", EndReason::Exited, Some(0)),
        }
    }

    fn end(&self, execution: ExecutionId, took: Duration, output: &[u8], end: EndReason, exit_code: Option<i32>) {
        self.write(execution, output, true);
        self.tell(ProviderInput::Ended { execution, usage: usage(took, output), end, exit_code });
    }

    fn write(&self, execution: ExecutionId, output: &[u8], ended: bool) {
        let mut seen = self.seen.lock().unwrap();
        let log = seen.logs.entry(execution).or_default();
        if log.0.is_empty() {
            log.0.push(LogFrame::Chunk { sequence: 0, at: clock::wall(), stream: OutputStream::Stdout, bytes: output.to_vec() });
        }
        log.1 = ended;
    }

    fn tell(&self, input: ProviderInput) {
        self.to.try_send(ToSession::Input(Box::new(input))).unwrap();
    }
}

fn usage(took: Duration, output: &[u8]) -> Usage {
    let effective_ms = u64::try_from(took.as_millis()).unwrap();
    Usage { effective_ms, bytes_out: output.len() as u64, output_hash: Hash::of(output), ..Usage::default() }
}

async fn log(seen: Arc<Mutex<Seen>>, stream: NetStream) {
    let mut frames = FrameStream::new(stream, STREAM_FRAME_LIMIT);
    let Ok(Some(request)) = frames.recv::<LogRequest>().await else { return };
    let mut next = usize::try_from(request.from).unwrap();
    while seen.lock().unwrap().holds_logs {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    loop {
        let found = seen
            .lock()
            .unwrap()
            .logs
            .get(&request.execution)
            .map(|(chunks, ended)| (chunks.iter().skip(next).cloned().collect::<Vec<_>>(), *ended));
        let forgets = seen.lock().unwrap().forgets_logs;
        let Some((chunks, ended)) = found.filter(|_| !forgets) else {
            let _ = frames.send(&LogFrame::Refused(Fault::new(FaultCode::NOT_FOUND, "no such log"))).await;
            return;
        };
        for chunk in chunks {
            next += 1;
            if frames.send(&chunk).await.is_err() {
                return;
            }
        }
        if ended {
            if seen.lock().unwrap().drops_output {
                let _ = frames.send(&LogFrame::Gap { next: 100 }).await;
            }
            let _ = frames.send(&LogFrame::End).await;
            let _ = frames.finish().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
