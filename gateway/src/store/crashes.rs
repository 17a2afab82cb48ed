//! Power fails at every operation on the disk while a session's real records and rows are written; what is left is one of the two things it can be.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use orien_bootstrap::FaultyDisk;
use orien_protocol::binding::SignedBinding;
use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::job::{Job, Stdin};
use orien_protocol::money::Price;
use orien_protocol::network::NetworkId;
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::{EndReason, Usage};
use orien_protocol::session::agent::{AgentEffect, AgentInput, AgentKeys, AgentSession, RunOrder};
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderKeys, ProviderSession};
use orien_protocol::signing::{MoneyDomain, MoneyKey, PeerKey};
use orien_protocol::terms::{ProposedTerms, Terms, ToolPrice};
use orien_protocol::time::{Millis, Now, Timestamp, UnixSeconds};
use orien_protocol::voucher::{Allowance, MoneyVerified};

use super::*;
use crate::rows::{KeptAnswer, RunStatus};

const START: Timestamp = Timestamp(1_800_000_000_000);
const BUDGET: Usdc = Usdc::from_micros(1_000_000);
const HIGHER: Usdc = Usdc::from_micros(2_000_000);
/// One micro-USDC per millisecond, and at least this.
const MINIMUM: u64 = 5_000;

/// Both machines of one session, which write nothing; what the agent wants kept is taken from it turn by turn.
struct Story {
    network: NetworkId,
    keys: AgentKeys,
    settlement: MoneyKey,
    agent: AgentSession,
    provider: Option<ProviderSession>,
    provider_keys: ProviderKeys,
    now: Now,
    to_agent: VecDeque<ProviderFrame>,
    to_provider: VecDeque<AgentFrame>,
    turns: Vec<Vec<AgentRecord>>,
}

impl Story {
    fn propose() -> Self {
        let money = |seed| Arc::new(MoneyKey::from_bytes(&[seed; 32]).unwrap());
        let peer = |seed| Arc::new(PeerKey::from_seed(&[seed; 32]));
        let network: NetworkId = "test-0011223344556677".parse().unwrap();
        let settlement = MoneyKey::from_bytes(&[9; 32]).unwrap();
        let domain = MoneyDomain::ledger(network.as_str(), &settlement.address());
        let keys = AgentKeys { peer: peer(1), spending: money(2) };
        let provider_keys = ProviderKeys { peer: peer(3), claim: money(4) };
        let bind = |peer: &PeerKey, money: &MoneyKey| SignedBinding::make(peer, money, money.address(), &network, &domain);
        let terms = Terms {
            session: SessionId::from_parts(START.0, 7),
            agent: bind(&keys.peer, &keys.spending),
            provider: bind(&provider_keys.peer, &provider_keys.claim),
            domain,
            settlement_signer: settlement.address(),
            offer: Hash::of(b"offer"),
            prices: vec![ToolPrice {
                tool: "work".to_owned(),
                price: Price { per_minute: Usdc::from_micros(60_000), call_fee: Usdc::ZERO },
            }],
            minimum_charge: Usdc::from_micros(MINIMUM),
            metering_interval: Millis(5_000),
            time_tolerance: Millis(100),
            runs_at_once: 2,
            confinement: Confinement::S0,
            issued_at: START,
            work_until: UnixSeconds(START.0 / 1000 + 3600),
            redeem_until: UnixSeconds(START.0 / 1000 + 7200),
        };
        let (agent, effects) = AgentSession::propose(terms, BUDGET, &network, keys.clone()).unwrap();
        let now = Now { wall: START, mono: Millis(1_000_000) };
        let (to_agent, to_provider) = (VecDeque::new(), VecDeque::new());
        let turns = Vec::new();
        let mut story = Self { network, keys, settlement, agent, provider: None, provider_keys, now, to_agent, to_provider, turns };
        story.take(effects);
        story.talk();
        story
    }

    /// A session with two runs, one of them of several intervals, a higher budget between them, and an orderly end.
    fn told() -> Self {
        let mut story = Self::propose();
        story.run(1, &[6_000, 12_000, 13_000]);
        let terms = story.agent.terms().unwrap().to_signed();
        story.reserved(terms, HIGHER);
        story.talk();
        story.run(2, &[7_000]);
        story.tell(AgentInput::End);
        assert_eq!(story.agent.promised(), Usdc::from_micros(20_000));
        assert!(matches!(story.turns.last().and_then(|turn| turn.last()), Some(AgentRecord::Closed { close: Some(_), .. })));
        story
    }

    fn run(&mut self, number: u128, times: &[u64]) {
        let execution = ExecutionId::from_parts(START.0, number);
        let order = RunOrder {
            execution,
            tool: "work".to_owned(),
            arguments: Vec::new(),
            max_cost: None,
            max_duration: Millis(3_600_000),
            stdin: Stdin::Empty,
        };
        self.tell(AgentInput::Run(order));
        let started = self.now;
        for ms in times {
            self.now = Now { wall: started.wall.plus(Millis(*ms)), mono: Millis(started.mono.0 + ms) };
            self.provide(ProviderInput::Progress(execution, Usage { effective_ms: *ms, ..Usage::default() }));
        }
        let usage = Usage { effective_ms: *times.last().unwrap(), ..Usage::default() };
        self.provide(ProviderInput::Ended { execution, usage, end: EndReason::Exited, exit_code: Some(0) });
    }

    fn tell(&mut self, input: AgentInput) {
        let effects = self.agent.handle(input, self.now);
        self.take(effects);
        self.talk();
    }

    fn reserved(&mut self, terms: orien_protocol::terms::SignedTerms, ceiling: Usdc) {
        let terms = terms.verify(&self.network).unwrap();
        let allowance = Allowance {
            channel: terms.channel(),
            ceiling,
            work_until: terms.work_until,
            redeem_until: terms.redeem_until,
            terms: terms.hash(),
            claim_key: terms.claim_key(),
        };
        let allowance = *MoneyVerified::sign(allowance, &terms.domain, &self.settlement).signed();
        let effects = self.agent.handle(AgentInput::Reserved { asked: ceiling, allowance }, self.now);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<AgentEffect>) {
        let (mut turn, mut questions) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                AgentEffect::Persist(record) => turn.push(*record),
                AgentEffect::Send(frame) => self.to_provider.push_back(frame),
                AgentEffect::Reserve { terms, ceiling } => questions.push((*terms, ceiling)),
                AgentEffect::HandBack { .. } | AgentEffect::Tell(_) => {}
            }
        }
        if !turn.is_empty() {
            self.turns.push(turn);
        }
        questions.into_iter().for_each(|(terms, ceiling)| self.reserved(terms, ceiling));
    }

    fn provide(&mut self, input: ProviderInput) {
        let vet = |_: &Job| Ok(());
        let room = Usdc::from_micros(u64::MAX);
        let env = ProviderEnv {
            now: self.now,
            credit: Usdc::from_micros(10_000),
            unredeemed_ceiling: room,
            redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
            vet: &vet,
        };
        let effects = self.provider.as_mut().unwrap().handle(input, &env);
        self.say(effects);
        self.talk();
    }

    fn say(&mut self, effects: Vec<ProviderEffect>) {
        for effect in effects {
            if let ProviderEffect::Send(frame) = effect {
                self.to_agent.push_back(frame);
            }
        }
    }

    fn talk(&mut self) {
        while let Some(frame) = self.to_provider.pop_front() {
            if let AgentFrame::Propose(signed) = frame {
                let proposal = ProposedTerms::verify(*signed, &self.network).unwrap();
                let (session, effects) = ProviderSession::accept(proposal, self.provider_keys.clone(), self.now).unwrap();
                self.provider = Some(session);
                self.say(effects);
            } else {
                self.provide(ProviderInput::Frame(frame));
            }
            while let Some(frame) = self.to_agent.pop_front() {
                let effects = self.agent.handle(AgentInput::Frame(frame), self.now);
                self.take(effects);
            }
        }
        while let Some(frame) = self.to_agent.pop_front() {
            self.tell(AgentInput::Frame(frame));
        }
    }
}

/// Everything in a store that has one session.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    records: Vec<AgentRecord>,
    runs: BTreeMap<ExecutionId, ExecutionRow>,
    keys: BTreeMap<Vec<u8>, KeyRow>,
    reservations: BTreeMap<u64, RequestId>,
}

/// One write of several things.
type Written = (Kept, Vec<Put>);

fn row(session: SessionId, status: RunStatus) -> ExecutionRow {
    ExecutionRow {
        session,
        tool: "work".to_owned(),
        args: "{}".to_owned(),
        asked_at: START,
        started_at: None,
        completed_at: None,
        status,
        work: None,
        fault: None,
    }
}

fn key(number: usize, answer: Option<&str>) -> (Vec<u8>, KeyRow) {
    let answer = answer.map(|body| KeptAnswer { status: 201, body: Some(body.to_owned()), refusal: None });
    let seed = [u8::try_from(number).unwrap(); 16];
    (format!("owner\0run\0{number}").into_bytes(), KeyRow { request: Hash::of(&seed), seed, answer, until: UnixSeconds(100) })
}

/// What is written in the course of a session, as its courier and its requests write it, and what is kept after each.
fn writes(story: &Story) -> Vec<Written> {
    let session = story.agent.id();
    let (mut kept, mut writes, mut seq) = (Kept::default(), Vec::new(), 0);
    for (number, turn) in story.turns.iter().enumerate() {
        let mut puts = Vec::new();
        for record in turn {
            puts.push(Put::record(&session, seq, record).unwrap());
            kept.records.push(record.clone());
            seq += 1;
            let rows: Vec<(ExecutionId, ExecutionRow)> = match record {
                AgentRecord::Job(job) => {
                    let (name, mark) = key(number, None);
                    puts.push(Put::key(&name, &mark).unwrap());
                    kept.keys.insert(name, mark);
                    vec![(job.unverified().execution, row(session, RunStatus::Pending))]
                }
                AgentRecord::Answered { receipt, .. } => {
                    let receipt = receipt.unverified();
                    let work = receipt.work.iter();
                    work.filter_map(|work| Some((work.execution, kept.runs.get(&work.execution)?.receipted(work, receipt.at)))).collect()
                }
                AgentRecord::Agreed(_) | AgentRecord::Reserved(_) => {
                    let ceiling = u64::try_from(number).unwrap();
                    let request = RequestId::from_parts(START.0, u128::from(ceiling));
                    puts.push(Put::reservation(&session, Usdc::from_micros(ceiling), &request));
                    kept.reservations.insert(ceiling, request);
                    Vec::new()
                }
                _ => Vec::new(),
            };
            for (execution, row) in rows {
                puts.push(Put::execution(&execution, &row).unwrap());
                kept.runs.insert(execution, row);
            }
        }
        writes.push((kept.clone(), puts));
        if turn.iter().any(|record| matches!(record, AgentRecord::Job(_))) {
            let (name, answered) = key(number, Some("{}"));
            kept.keys.insert(name.clone(), answered.clone());
            writes.push((kept.clone(), vec![Put::key(&name, &answered).unwrap()]));
        }
    }
    let (name, _) = kept.keys.pop_first().unwrap();
    writes.push((kept.clone(), vec![Put::forget_key(&name)]));
    kept.keys.clear();
    writes.push((kept, vec![Put::forget_keys_before(UnixSeconds(101))]));
    writes
}

async fn read(store: &Store, story: &Story) -> Kept {
    let session = story.agent.id();
    let (runs, all) = store.executions_of(session, None, usize::MAX).await.unwrap();
    assert_eq!(runs.len(), all);
    let unfinished: Vec<_> = runs.iter().filter(|(_, row)| !row.is_over()).cloned().collect();
    assert!(store.unfinished_of(session).await.unwrap().into_iter().eq(unfinished.into_iter().rev()));
    let mut kept = Kept { records: store.records(session).await.unwrap(), runs: runs.into_iter().collect(), ..Kept::default() };
    for number in 0..story.turns.len() {
        let (name, _) = key(number, None);
        kept.keys.extend(store.key(name.clone()).await.unwrap().map(|row| (name, row)));
        let ceiling = u64::try_from(number).unwrap();
        let request = store.reservation(session, Usdc::from_micros(ceiling)).await.unwrap();
        kept.reservations.extend(request.map(|request| (ceiling, request)));
    }
    kept
}

/// The records make a session that promises what its receipts charge, by times and prices added up here.
fn check(kept: &Kept, story: &Story) {
    if kept.records.is_empty() {
        return;
    }
    let (machine, _) = AgentSession::restore(kept.records.clone(), &story.network, story.keys.clone(), story.now).unwrap();
    let (mut times, mut promised, mut receipts) = (BTreeMap::new(), 0, 0);
    for record in &kept.records {
        if let AgentRecord::Answered { receipt, voucher } = record {
            let receipt = receipt.unverified();
            receipts += 1;
            times.extend(receipt.work.iter().map(|work| (work.execution, u128::from(work.usage.effective_ms))));
            promised = times.values().sum::<u128>().max(u128::from(MINIMUM));
            let voucher = voucher.unverified();
            assert_eq!((receipt.number, voucher.receipt_number), (receipts, receipts));
            assert_eq!((u128::from(receipt.charged.micros()), u128::from(voucher.total.micros())), (promised, promised));
        }
    }
    assert_eq!((u128::from(machine.promised().micros()), machine.charged()), (promised, machine.promised()));
}

async fn write_all_until_it_fails(disk: &FaultyDisk, writes: Vec<Written>) -> usize {
    let broken = CancellationToken::new();
    let Ok(store) = Store::over(disk.clone(), broken.clone()) else { return 0 };
    let mut done = 0;
    for (_, puts) in writes {
        if store.write(puts).await.is_err() {
            assert!(broken.is_cancelled() && store.failure().is_some());
            let operations = disk.operations();
            assert!(store.write(vec![Put::forget_key(b"x")]).await.is_err(), "written after a failed write");
            assert_eq!(disk.operations(), operations);
            break;
        }
        done += 1;
    }
    done
}

async fn crash(story: &Story, operation: u64, seed: u64) {
    let what = format!("crash {operation} {seed}");
    let disk = FaultyDisk::default();
    disk.cut_at(operation, seed);
    let done = write_all_until_it_fails(&disk, writes(story)).await;
    let mut left = disk.left(seed);
    if seed.is_multiple_of(3) {
        // It fails again while the store is opened on what is left.
        let disk = FaultyDisk::holding(left);
        disk.cut_at(seed % 11, seed);
        drop(Store::over(disk.clone(), CancellationToken::new()));
        left = disk.left(seed + 1);
    }
    let store = Store::over(FaultyDisk::holding(left), CancellationToken::new()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = read(&store, story).await;
    check(&found, story);
    let writes = writes(story);
    let before = done.checked_sub(1).map_or_else(Kept::default, |last| writes[last].0.clone());
    let after = writes.get(done).map(|(kept, _)| kept);
    assert!(found == before || Some(&found) == after, "{what} in write {done}: {found:?}");
    for (kept, puts) in writes.into_iter().skip(done) {
        store.write(puts).await.unwrap();
        assert_eq!(read(&store, story).await, kept, "{what}");
    }
    check(&read(&store, story).await, story);
}

#[tokio::test]
async fn whenever_the_power_fails_each_write_is_there_wholly_or_not_at_all_and_the_session_goes_on() {
    let story = Story::told();
    let disk = FaultyDisk::default();
    let count = writes(&story).len();
    assert_eq!(write_all_until_it_fails(&disk, writes(&story)).await, count);
    let end = disk.operations();
    let is_all = std::env::var("ORIEN_CRASHES").is_ok_and(|which| which == "all");
    let step = if is_all { 1 } else { (end / 60).max(1) };
    for operation in (0..=end).filter(|operation| operation.is_multiple_of(step)) {
        // Not the same operation of each commit.
        let operation = if is_all { operation } else { operation + operation / step % step };
        crash(&story, operation, operation * 31).await;
    }
}
