//! The agent's machine against a provider and a settlement that say anything, well signed or not, and crashes between any two effects.

use std::sync::LazyLock;

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{CloseReason, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::job::Stdin;
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::{EndReason, Outcome, Receipt, Usage, Work};
use orien_protocol::session::agent::{AgentEffect, AgentInput, AgentPhase, AgentSession, RunOrder};
use orien_protocol::session::{DRAIN_GRACE, OPENING_PATIENCE};
use orien_protocol::signing::{PeerSignature, Statement, Verified};
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::{Close, MoneyVerified, SignedClose};

use super::bytes::Bytes;
use super::client::Client;
use super::world::{KINDS, START, TOOLS, WORK_SECONDS, WORLD, execution, usdc};

/// More steps than a story needs; a longer one only costs time.
const STEPS: usize = 96;
/// Executions that a story knows.
const EXECUTIONS: u8 = 6;
/// The budgets that are asked for.
const BUDGETS: [u64; 4] = [6_000, 100_000, u64::MAX / 2, u64::MAX];

const REASONS: [CloseReason; 4] = [CloseReason::Ended, CloseReason::ProviderStopped, CloseReason::NotOpened, CloseReason::NotSigned];

static PROPOSED: LazyLock<Vec<(AgentSession, Vec<AgentEffect>)>> = LazyLock::new(|| {
    let kinds = (0..KINDS).flat_map(|kind| BUDGETS.map(|budget| (kind, budget)));
    let propose = |(kind, budget)| AgentSession::propose(WORLD.terms(kind), usdc(budget), &WORLD.network, WORLD.agent.clone()).unwrap();
    kinds.map(propose).collect()
});

/// Byte 0: kind of terms and budget, and how far the session is opened in good order; byte 1: which prefix is restored in the end; then actions.
pub(crate) fn session_agent(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let (opening, prefix) = (bytes.u8(), bytes.u8());
    let kinds = KINDS * 4;
    let terms = WORLD.agreed((opening % kinds) / 4).clone();
    let mut client = Client::new(terms, PROPOSED[usize::from(opening % kinds)].clone());
    let opened = (opening / kinds) % 4;
    if opened > 0 {
        accept(&mut client, 0);
    }
    if opened > 1 {
        let budget = client.reserving.as_ref().map_or(0, |(_, ceiling)| ceiling.micros());
        reserve(&mut client, budget, 0);
    }
    if opened > 2 {
        let first = receipt(&client, None, 0, None);
        say(&mut client, ProviderFrame::Receipt(Box::new(Verified::sign(first, &WORLD.network, &WORLD.provider.peer).into_signed())));
    }
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        act(&mut client, &mut bytes);
    }
    client.check_prefix(prefix);
    ends_whatever_happened(&mut client);
}

fn act(client: &mut Client, bytes: &mut Bytes<'_>) {
    match bytes.below(24) {
        0 => accept(client, bytes.below(4)),
        1 => {
            let (ceiling, wrong) = (bytes.amount(), bytes.below(16));
            reserve(client, ceiling, wrong);
        }
        2..=4 => {
            let order = some_order(bytes);
            client.input(AgentInput::Run(order));
        }
        5 | 6 => pass(client, bytes),
        7..=11 => some_receipt(client, bytes),
        12 => client.input(AgentInput::Cancel(execution(bytes.below(EXECUTIONS)))),
        13 => client.input(AgentInput::End),
        14 => client.input(AgentInput::Tick),
        15 => client.input(AgentInput::Connected),
        16 => client.input(AgentInput::Disconnected),
        17 => some_word(client, bytes),
        18 => {
            let head = if bytes.below(2) == 0 { client.chain.head().0 } else { bytes.amount() };
            say(client, ProviderFrame::Resumed { head });
        }
        19 => some_close(client, bytes),
        20 => client.input(AgentInput::NotReserved(some_fault(bytes))),
        21 | 22 => client.crash_after = Some(usize::from(bytes.below(6))),
        _ => client.crash(),
    }
}

fn say(client: &mut Client, frame: ProviderFrame) {
    client.input(AgentInput::Frame(frame));
}

fn accept(client: &mut Client, wrong: u8) {
    let right = client.terms.to_signed().by_provider;
    let signature = if wrong == 1 { PeerSignature::from_bytes([7; 64]) } else { right };
    say(client, ProviderFrame::Accepted(signature));
}

fn reserve(client: &mut Client, ceiling: u64, wrong: u8) {
    let allowance = WORLD.some_allowance(&client.terms, usdc(ceiling), wrong);
    client.input(AgentInput::Reserved { asked: usdc(ceiling), allowance });
}

fn some_order(bytes: &mut Bytes<'_>) -> RunOrder {
    let (number, look) = (bytes.below(EXECUTIONS), bytes.u8());
    RunOrder {
        execution: execution(number),
        tool: if look == 254 { "other" } else { TOOLS[usize::from(look) % TOOLS.len()] }.to_owned(),
        arguments: Vec::new(),
        max_cost: (look & 8 != 0).then(|| usdc(bytes.amount())),
        max_duration: Millis(3_600_000),
        stdin: if look & 32 == 0 { Stdin::Empty } else { Stdin::Streamed },
    }
}

fn some_fault(bytes: &mut Bytes<'_>) -> Fault {
    let missing = (bytes.u8() & 1 == 0).then(|| usdc(bytes.amount()));
    Fault { code: FaultCode(bytes.u16()), text: "\u{e9}\n".repeat(usize::from(bytes.u8()) * 2), missing }
}

/// The next receipt of an honest provider.
fn receipt(client: &Client, work: Option<Work>, at: u64, charged: Option<u64>) -> Receipt {
    let (number, previous) = client.chain.head();
    let charged = charged.unwrap_or_else(|| client.chain.charge_with(work.as_ref(), &client.terms));
    Receipt {
        session: client.terms.session,
        terms: client.terms.hash(),
        number: number.saturating_add(1),
        previous,
        at: Timestamp(at),
        confinement: Confinement::S1,
        work,
        charged: usdc(charged),
    }
}

/// A receipt for some job, right or wrong in one way.
fn some_receipt(client: &mut Client, bytes: &mut Bytes<'_>) {
    let (which, more, end, wrong) = (bytes.u8(), bytes.u16(), bytes.below(4), bytes.u8());
    let jobs: Vec<_> = client.chain.jobs().cloned().collect();
    let job = jobs.get(usize::from(which) % jobs.len().max(1));
    let work = job.map(|job| {
        let job_hash = job.unverified().hash(&WORLD.network);
        let job = job.unverified();
        let never_ran = end == 2;
        let before = client.chain.ms_of(&job.execution);
        let ms = if never_ran { 0 } else { before.saturating_add(u64::from(more)) };
        let outcome = match end {
            0 | 3 => None,
            1 => Some(Outcome::of(EndReason::Exited, Some(0))),
            _ => Some(Outcome::of(EndReason::SetupFailed, None)),
        };
        let price = client.terms.price(&job.tool).unwrap_or_default();
        let charge = if never_ran { usdc(0) } else { price.of(ms).unwrap_or_default() };
        let usage = Usage { effective_ms: ms, ..Usage::default() };
        Work { execution: job.execution, job: job_hash, tool: job.tool.clone(), usage, charge, outcome }
    });
    let work = if client.chain.head().0 == 0 { None } else { work };
    let mut receipt = receipt(client, work, client.now.wall.0, None);
    let key = if wrong == 1 { &WORLD.stranger } else { &WORLD.provider.peer };
    spoil(&mut receipt, wrong);
    let signed = Verified::sign(receipt, &WORLD.network, key).into_signed();
    // An older one again.
    let old = client.chain.receipts.get(usize::from(which) % client.chain.receipts.len().max(1)).cloned();
    let signed = if wrong == 2 { old.unwrap_or(signed) } else { signed };
    say(client, ProviderFrame::Receipt(Box::new(signed)));
}

fn spoil(receipt: &mut Receipt, wrong: u8) {
    match wrong {
        3 => receipt.number = receipt.number.saturating_add(1),
        4 => receipt.number = u64::MAX,
        5 => receipt.previous = Hash::ZERO,
        6 => receipt.session = SessionId::from_parts(0, 1),
        7 => receipt.terms = Hash::ZERO,
        8 => receipt.charged = usdc(receipt.charged.micros().saturating_add(1)),
        9 => receipt.charged = usdc(receipt.charged.micros().saturating_sub(1)),
        10 => receipt.confinement = Confinement::S0,
        11 => receipt.work = None,
        _ => {}
    }
    let Some(work) = &mut receipt.work else { return };
    match wrong {
        12 => work.execution = execution(200),
        13 => work.job = Hash::ZERO,
        14 => work.tool = if work.tool == "work" { "call" } else { "work" }.to_owned(),
        15 => work.charge = usdc(work.charge.micros().saturating_add(1)),
        16 => work.usage.effective_ms = work.usage.effective_ms.saturating_add(1),
        17 => work.usage.effective_ms = u64::MAX,
        _ => {}
    }
}

fn some_word(client: &mut Client, bytes: &mut Bytes<'_>) {
    let (which, execution) = (bytes.below(5), execution(bytes.below(EXECUTIONS)));
    say(
        client,
        match which {
            0 => ProviderFrame::Waiting(execution),
            1 => ProviderFrame::Started { execution, at: Timestamp(bytes.u64()) },
            2 => ProviderFrame::JobRefused { execution, fault: some_fault(bytes) },
            3 => ProviderFrame::VoucherRefused(some_fault(bytes)),
            _ => ProviderFrame::Refused(some_fault(bytes)),
        },
    );
}

fn some_close(client: &mut Client, bytes: &mut Bytes<'_>) {
    let (reason, wrong) = (REASONS[bytes.index(REASONS.len())], bytes.below(8));
    let total = if wrong == 1 { usdc(bytes.amount()) } else { client.session.promised() };
    let close = Close { channel: client.terms.channel(), total };
    let key = if wrong == 2 { &WORLD.stranger_money } else { &*WORLD.provider.claim };
    let close: SignedClose = *MoneyVerified::sign(close, &WORLD.domain, key).signed();
    say(client, ProviderFrame::Closed { reason, close: (wrong != 3).then_some(close) });
}

/// Time passes, usually a little; the wall clock may also be set.
fn pass(client: &mut Client, bytes: &mut Bytes<'_>) {
    let (how, length) = (bytes.below(8), u64::from(bytes.u16()));
    let passed = match how {
        0 => OPENING_PATIENCE.0,
        1 => length * 1_000,
        _ => length,
    };
    client.pass(passed);
    client.now.wall = match how {
        2 => Timestamp(client.now.wall.0.saturating_sub(length)),
        3 => Timestamp(START.0 + (1 + u64::from(bytes.below(2))) * WORK_SECONDS * 1_000 - 1 + u64::from(bytes.below(3))),
        _ => client.now.wall.plus(Millis(passed)),
    };
}

/// A session that is told to end, and hears nothing more, is over within the grace.
fn ends_whatever_happened(client: &mut Client) {
    client.crash_after = None;
    client.input(AgentInput::Connected);
    client.input(AgentInput::Tick);
    // Every other one is given up for another instead.
    let end = if client.log.len().is_multiple_of(2) { AgentInput::End } else { AgentInput::Seal };
    client.input(end);
    client.input(AgentInput::End);
    client.pass(DRAIN_GRACE.0.max(OPENING_PATIENCE.0));
    client.input(AgentInput::Tick);
    assert!(matches!(client.session.phase(), AgentPhase::Closed(_)), "{:?}", client.session.phase());
}
