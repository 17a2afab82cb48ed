//! The provider's machine against an agent that says anything, well signed or not, an executor that reports anything, and crashes between any two effects.

use std::sync::LazyLock;

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::AgentFrame;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::job::{Argument, ArgumentValue, Job, Stdin};
use orien_protocol::receipt::EndReason;
use orien_protocol::session::provider::{ProviderInput, ProviderPhase, ProviderSession};
use orien_protocol::session::{DRAIN_GRACE, HOLD};
use orien_protocol::signing::{Signed, Verified};
use orien_protocol::terms::ProposedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::{MoneyVerified, SignedVoucher, Voucher};

use super::bytes::Bytes;
use super::shop::Shop;
use super::world::{KINDS, START, TOOLS, WORK_SECONDS, WORLD, execution, start, usdc};

/// More steps than a story needs; a longer one only costs time.
const STEPS: usize = 96;
/// Executions that a story knows.
const EXECUTIONS: u8 = 6;

const ENDS: [EndReason; 6] =
    [EndReason::Exited, EndReason::Signalled, EndReason::TimedOut, EndReason::MemoryLimit, EndReason::SetupFailed, EndReason::OutputLimit];

static PROPOSED: LazyLock<Vec<ProviderSession>> = LazyLock::new(|| {
    let accept = |kind| {
        let proposal = ProposedTerms::verify(WORLD.agreed(kind).to_signed().by_agent, &WORLD.network).unwrap();
        ProviderSession::accept(proposal, WORLD.provider.clone(), start()).unwrap().0
    };
    (0..KINDS).map(accept).collect()
});

/// Byte 0: kind of terms, and how far the session is opened in good order; byte 1: which prefix is restored in the end; then actions.
pub(crate) fn session_provider(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let (opening, prefix) = (bytes.u8(), bytes.u8());
    let session = PROPOSED[usize::from(opening % KINDS)].clone();
    let mut shop = Shop::new(session, bytes.amount());
    let opened = (opening / KINDS) % 3;
    if opened > 0 {
        let ceiling = bytes.amount();
        present(&mut shop, ceiling, 0);
    }
    if opened > 1 {
        answer(&mut shop, 0, 0);
    }
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        act(&mut shop, &mut bytes);
    }
    shop.check_prefix(prefix);
    ends_whatever_happened(&mut shop);
}

fn act(shop: &mut Shop, bytes: &mut Bytes<'_>) {
    match bytes.below(24) {
        0 => {
            let (ceiling, wrong) = (bytes.amount(), bytes.below(16));
            present(shop, ceiling, wrong);
        }
        1..=4 => {
            let job = some_job(shop, bytes);
            shop.say(AgentFrame::Run(Box::new(job)));
        }
        5..=8 => {
            let (back, wrong) = (bytes.u8(), bytes.below(16));
            answer(shop, back, wrong);
        }
        9 => shop.say(AgentFrame::Cancel(execution(bytes.below(EXECUTIONS + 1)))),
        10 => shop.say(AgentFrame::End),
        11 => resume(shop, bytes),
        12 => shop.say(AgentFrame::Propose(Box::new(shop.terms.to_signed().by_agent))),
        13 => shop.input(ProviderInput::Disconnected),
        14 | 15 => pass(shop, bytes),
        16 | 17 => work(shop, u64::from(bytes.u16())),
        18 => {
            let number = bytes.below(EXECUTIONS);
            let ms = bytes.amount();
            shop.report(execution(number), ms);
        }
        19 => finish(shop, bytes),
        20 => shop.input(ProviderInput::Tick),
        21 => match bytes.below(4) {
            0 => shop.input(ProviderInput::Stop),
            1 => shop.input(ProviderInput::Started(execution(bytes.below(EXECUTIONS)))),
            2 => shop.room = bytes.amount(),
            _ => shop.set_credit(bytes.amount()),
        },
        22 => shop.crash_after = Some(usize::from(bytes.below(8))),
        _ => shop.crash(),
    }
}

fn present(shop: &mut Shop, ceiling: u64, wrong: u8) {
    let allowance = WORLD.some_allowance(&shop.terms, usdc(ceiling), wrong);
    shop.say(AgentFrame::Present(allowance));
}

fn some_job(shop: &Shop, bytes: &mut Bytes<'_>) -> Signed<Job> {
    let (number, look) = (bytes.below(EXECUTIONS), bytes.u8());
    let job = Job {
        session: if look == 255 { SessionId::from_parts(0, 1) } else { shop.terms.session },
        execution: execution(number),
        tool: if look == 254 { "other" } else { TOOLS[usize::from(look) % TOOLS.len()] }.to_owned(),
        arguments: if look == 253 { vec![Argument { name: "a".to_owned(), value: ArgumentValue::Boolean(true) }] } else { Vec::new() },
        max_cost: usdc(if look & 8 == 0 { u64::MAX } else { bytes.amount() }),
        max_duration: Millis(if look & 16 == 0 { 3_600_000 } else { bytes.amount() }),
        issued_at: shop.now.wall,
        stdin: Stdin::Empty,
    };
    let key = if look == 252 { &WORLD.stranger } else { &WORLD.agent.peer };
    Verified::sign(job, &WORLD.network, key).into_signed()
}

/// Answers the newest receipt but `back`, rightly or wrong in one way.
fn answer(shop: &mut Shop, back: u8, wrong: u8) {
    let (head, _) = shop.chain.head();
    // Usually the newest.
    let number = head.saturating_sub(u64::from(back / 32));
    let receipt = usize::try_from(number).ok().and_then(|number| shop.chain.receipts.get(number.checked_sub(1)?));
    let total = receipt.map_or(usdc(u64::from(back)), |receipt| receipt.unverified().charged);
    let mut voucher = Voucher {
        channel: shop.terms.channel(),
        total,
        receipt_number: number,
        receipt_hash: shop.chain.hash_of(number).unwrap_or(Hash::ZERO),
    };
    match wrong {
        1 => voucher.total = usdc(total.micros().saturating_add(1)),
        2 => voucher.total = usdc(total.micros().saturating_sub(1)),
        3 => voucher.receipt_hash = Hash::ZERO,
        4 => voucher.receipt_number = number.saturating_add(1),
        5 => voucher.channel = ChannelId::from_hash(Hash::ZERO),
        _ => {}
    }
    let key = if wrong == 6 { &WORLD.stranger_money } else { &WORLD.agent.spending };
    shop.say(AgentFrame::Voucher(sign(voucher, key)));
}

fn sign(voucher: Voucher, key: &orien_protocol::signing::MoneyKey) -> SignedVoucher {
    *MoneyVerified::sign(voucher, &WORLD.domain, key).signed()
}

fn resume(shop: &mut Shop, bytes: &mut Bytes<'_>) {
    let (own, choice) = (shop.chain.head().0, bytes.u8());
    let head = if choice & 1 == 0 { own } else { u64::from(choice / 2) };
    let head_hash = if choice == 255 { Hash::of(b"another history") } else { shop.chain.hash_of(head).unwrap_or(Hash::ZERO) };
    shop.say(AgentFrame::Resume { session: shop.terms.session, head, head_hash });
}

/// Time passes, usually a little; the wall clock may also be set.
fn pass(shop: &mut Shop, bytes: &mut Bytes<'_>) {
    let (how, length) = (bytes.below(8), u64::from(bytes.u16()));
    let mono = match how {
        0 => DRAIN_GRACE.0,
        1 => length * 1_000,
        _ => length,
    };
    shop.now.mono = Millis(shop.now.mono.0 + mono);
    shop.now.wall = match how {
        2 => Timestamp(shop.now.wall.0.saturating_sub(length)),
        3 => Timestamp(START.0 + WORK_SECONDS * 1_000 - 1 + u64::from(bytes.below(3))),
        4 => Timestamp(u64::MAX - length),
        _ => shop.now.wall.plus(Millis(mono)),
    };
}

/// Every tool that is not paused works for so long, up to its limit.
fn work(shop: &mut Shop, ms: u64) {
    for execution in shop.tools.keys().copied().collect::<Vec<_>>() {
        let Some(tool) = shop.tools.get_mut(&execution).filter(|tool| !tool.paused) else { continue };
        tool.ms = tool.ms.saturating_add(ms).min(tool.limit);
        let used = tool.ms;
        shop.report(execution, used);
    }
}

/// Some execution ends, whether or not it runs.
fn finish(shop: &mut Shop, bytes: &mut Bytes<'_>) {
    let (choice, end) = (bytes.u8(), ENDS[bytes.index(ENDS.len())]);
    let running: Vec<_> = shop.tools.keys().copied().collect();
    let which = running.get(usize::from(choice) % (running.len() + 1)).copied().unwrap_or(execution(choice % EXECUTIONS));
    let ms = shop.tools.get(&which).map_or(0, |tool| tool.ms);
    shop.finish(which, end, if choice == 255 { bytes.u64() } else { ms });
}

/// A stopped session gives its place back within the grace, whatever happened to it before.
fn ends_whatever_happened(shop: &mut Shop) {
    shop.crash_after = None;
    shop.input(ProviderInput::Stop);
    for (execution, tool) in shop.tools.clone() {
        shop.finish(execution, EndReason::Signalled, tool.ms);
    }
    shop.now.mono = Millis(shop.now.mono.0 + DRAIN_GRACE.0.max(HOLD.0));
    shop.input(ProviderInput::Tick);
    assert!(shop.session.is_released(), "{:?}", shop.session.phase());
    assert!(shop.tools.is_empty());
    // What is owed can still be made good.
    answer(shop, 0, 0);
    if shop.chain.promised() == shop.chain.charged() {
        assert!(matches!(shop.session.phase(), ProviderPhase::Closed(_)), "{:?}", shop.session.phase());
    }
}
