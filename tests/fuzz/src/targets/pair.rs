//! Both machines, honest, over a connection that breaks at any moment, with crashes of either side between any two effects. Whatever happens, they agree in the end.

use std::collections::VecDeque;
use std::sync::LazyLock;

use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::job::Stdin;
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentPhase, AgentSession, RunOrder};
use orien_protocol::session::provider::{ProviderInput, ProviderPhase, ProviderSession};
use orien_protocol::session::{DRAIN_GRACE, OPENING_PATIENCE};
use orien_protocol::terms::ProposedTerms;
use orien_protocol::time::Millis;

use super::bytes::Bytes;
use super::client::Client;
use super::shop::Shop;
use super::world::{TOOLS, WORLD, execution, start, usdc};

/// More steps than a story needs; a longer one only costs time.
const STEPS: usize = 64;
/// Executions that a story knows.
const EXECUTIONS: u8 = 8;
/// A metering tick.
const TICK_MS: u64 = 250;
/// Both kinds of terms under which sensible work is possible.
const KINDS: [u8; 2] = [0, 3];
/// More than any talk takes; beyond it the machines talk in circles.
const TURNS: usize = 10_000;

type Opening = (Vec<(AgentSession, Vec<AgentEffect>)>, ProviderSession);

const BUDGETS: [u64; 4] = [5_000, 20_000, 150_000, 10_000_000];

static OPENINGS: LazyLock<Vec<Opening>> = LazyLock::new(|| {
    let opening = |kind| {
        let propose = |budget| AgentSession::propose(WORLD.terms(kind), usdc(budget), &WORLD.network, WORLD.agent.clone()).unwrap();
        let proposal = ProposedTerms::verify(WORLD.agreed(kind).to_signed().by_agent, &WORLD.network).unwrap();
        (BUDGETS.map(propose).to_vec(), ProviderSession::accept(proposal, WORLD.provider.clone(), start()).unwrap().0)
    };
    KINDS.map(opening).to_vec()
});

struct Pair {
    client: Client,
    shop: Shop,
    to_agent: VecDeque<ProviderFrame>,
    to_provider: VecDeque<AgentFrame>,
    connected: bool,
    accepted: bool,
    crashes_seen: u64,
}

/// Byte 0: kind of terms, budget and credit; then actions.
pub(crate) fn session_pair(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let (setting, credit) = (bytes.u8(), bytes.u8());
    let (proposed, accepted) = &OPENINGS[usize::from(setting) % KINDS.len()];
    let proposed = proposed[usize::from(setting / 2) % BUDGETS.len()].clone();
    let credit = [5_000, 20_000, 100_000, 1_000_000][usize::from(credit) % 4];
    let mut pair = Pair {
        client: Client::new(accepted.terms().clone(), proposed),
        shop: Shop::new(accepted.clone(), credit),
        to_agent: VecDeque::new(),
        to_provider: VecDeque::new(),
        connected: true,
        accepted: false,
        crashes_seen: 0,
    };
    pair.collect();
    if setting < 240 {
        pair.talk();
    }
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        pair.act(&mut bytes);
    }
    pair.agree_in_the_end();
}

impl Pair {
    fn act(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(16) {
            0 | 1 => self.run(bytes),
            2..=4 => self.pass(u64::from(bytes.u16()) % 20_000),
            5 => self.finish(bytes),
            6 => self.client.input(AgentInput::Cancel(execution(bytes.below(EXECUTIONS)))),
            7 => self.deliver_to_provider(),
            8 => self.deliver_to_agent(),
            9 => self.disconnect(),
            10 => self.connect(),
            11 => self.client.crash_after = Some(usize::from(bytes.below(6))),
            12 => self.shop.crash_after = Some(usize::from(bytes.below(8))),
            13 => match bytes.below(8) {
                0 => self.client.input(AgentInput::End),
                1 => self.shop.input(ProviderInput::Stop),
                2 => self.crash_agent(),
                3 => self.crash_provider(),
                4 => self.shop.room = if self.shop.room == 0 { u64::MAX } else { 0 },
                _ => self.top_up(bytes),
            },
            _ => self.talk(),
        }
        self.collect();
    }

    /// Takes what was said to the wire; a crash breaks the connection.
    fn collect(&mut self) {
        let crashes = self.client.crashes + u64::from(self.shop.crashes);
        if std::mem::replace(&mut self.crashes_seen, crashes) < crashes {
            self.disconnect();
        }
        if self.connected {
            self.to_provider.extend(self.client.to_provider.drain(..));
            self.to_agent.extend(self.shop.to_agent.drain(..));
        } else {
            self.client.to_provider.clear();
            self.shop.to_agent.clear();
        }
        if let Some((terms, ceiling)) = self.client.reserving.take() {
            let allowance = WORLD.allowance(&terms, ceiling);
            self.client.input(AgentInput::Reserved { asked: ceiling, allowance });
            self.collect();
        }
    }

    fn disconnect(&mut self) {
        self.to_agent.clear();
        self.to_provider.clear();
        self.client.to_provider.clear();
        self.shop.to_agent.clear();
        self.connected = false;
        self.client.input(AgentInput::Disconnected);
        self.shop.input(ProviderInput::Disconnected);
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            self.client.input(AgentInput::Connected);
        }
    }

    fn deliver_to_provider(&mut self) {
        match self.to_provider.pop_front() {
            // The proposal was accepted when the story began; saying so is the driver's part.
            Some(AgentFrame::Propose(_)) if !self.accepted => {
                self.accepted = true;
                self.to_agent.push_back(ProviderFrame::Accepted(self.shop.terms.to_signed().by_provider));
            }
            Some(frame) => self.shop.say(frame),
            None => {}
        }
        self.collect();
    }

    fn deliver_to_agent(&mut self) {
        if let Some(frame) = self.to_agent.pop_front() {
            self.client.input(AgentInput::Frame(frame));
        }
        self.collect();
    }

    fn talk(&mut self) {
        self.collect();
        for turn in 0.. {
            if self.to_agent.is_empty() && self.to_provider.is_empty() {
                return;
            }
            assert!(turn < TURNS, "the machines talk in circles: {:?} {:?}", self.to_agent.front(), self.to_provider.front());
            self.deliver_to_provider();
            self.deliver_to_agent();
        }
    }

    fn run(&mut self, bytes: &mut Bytes<'_>) {
        let (number, look) = (bytes.below(EXECUTIONS), bytes.u8());
        let order = RunOrder {
            execution: execution(number),
            tool: TOOLS[usize::from(look) % TOOLS.len()].to_owned(),
            arguments: Vec::new(),
            max_cost: (look & 8 != 0).then(|| usdc(bytes.amount())),
            max_duration: Millis(if look & 16 == 0 { 3_600_000 } else { 1 + u64::from(bytes.u16()) }),
            stdin: if look & 32 == 0 { Stdin::Empty } else { Stdin::Streamed },
        };
        self.client.input(AgentInput::Run(order));
    }

    /// Time passes for both, in ticks; tools work through it.
    fn pass(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(TICK_MS);
            left -= step;
            self.client.pass(step);
            self.client.now.wall = self.client.now.wall.plus(Millis(step));
            self.shop.now.wall = self.client.now.wall;
            self.shop.now.mono = Millis(self.shop.now.mono.0 + step);
            self.work(step);
            self.shop.input(ProviderInput::Tick);
            self.client.input(AgentInput::Tick);
            self.collect();
            if self.connected {
                self.talk();
            }
        }
    }

    fn work(&mut self, step: u64) {
        for execution in self.shop.tools.keys().copied().collect::<Vec<_>>() {
            let Some(tool) = self.shop.tools.get_mut(&execution) else { continue };
            let (killed, paused) = (tool.killed, tool.paused);
            if !paused {
                tool.ms = (tool.ms + step).min(tool.limit);
            }
            let (ms, over) = (tool.ms, tool.ms >= tool.limit);
            if killed {
                self.shop.finish(execution, EndReason::Signalled, ms);
            } else if over {
                self.shop.finish(execution, EndReason::TimedOut, ms);
            } else if !paused {
                self.shop.report(execution, ms);
            }
            self.collect();
        }
    }

    fn finish(&mut self, bytes: &mut Bytes<'_>) {
        let choice = bytes.u8();
        let running: Vec<_> = self.shop.tools.iter().map(|(id, tool)| (*id, tool.ms)).collect();
        let Some((which, ms)) = running.get(usize::from(choice) % running.len().max(1)).copied() else { return };
        self.shop.finish(which, if choice >= 240 { EndReason::SetupFailed } else { EndReason::Exited }, ms);
    }

    fn crash_agent(&mut self) {
        self.client.crash();
    }

    fn crash_provider(&mut self) {
        self.shop.crash();
    }

    fn top_up(&mut self, bytes: &mut Bytes<'_>) {
        if self.client.ceiling() == 0 {
            return;
        }
        let ceiling = usdc(self.client.ceiling().saturating_add(bytes.amount()));
        let allowance = WORLD.allowance(&self.client.terms.to_signed(), ceiling);
        self.client.input(AgentInput::Reserved { asked: ceiling, allowance });
    }

    /// Once both are there and connected, an end closes the session on both sides with one sum.
    fn agree_in_the_end(&mut self) {
        (self.client.crash_after, self.shop.crash_after) = (None, None);
        self.collect();
        let opened = self.client.chain.newest_voucher.is_some();
        self.connect();
        self.talk();
        self.client.input(AgentInput::End);
        self.talk();
        self.pass(2 * TICK_MS);
        assert!(!self.client.session.is_disputed(), "an honest provider is never disputed: {:?}", self.client.events.last());
        assert!(!self.client.events.iter().any(|event| matches!(event, AgentEvent::VoucherRefused(_))), "an honest voucher is taken");
        if opened && self.client.chain.newest_voucher.is_some() {
            assert_eq!(self.shop.chain.charged(), self.client.chain.promised(), "everything that was charged is promised");
            assert_eq!(self.shop.chain.promised(), self.client.chain.promised(), "what was promised arrived");
            assert!(matches!(self.shop.session.phase(), ProviderPhase::Closed(_)), "{:?}", self.shop.session.phase());
            assert!(matches!(self.client.session.phase(), AgentPhase::Closed(_)), "{:?}", self.client.session.phase());
        }
        self.pass(DRAIN_GRACE.0.max(OPENING_PATIENCE.0));
        assert!(self.shop.session.is_released() && self.shop.tools.is_empty(), "{:?}", self.shop.session.phase());
        assert!(matches!(self.client.session.phase(), AgentPhase::Closed(_)), "{:?}", self.client.session.phase());
    }
}
