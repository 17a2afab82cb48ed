//! What everybody else may see of a live session, and how they tell its courier what they want.
//!
//! Always true: only the courier changes what is seen here, and only after what it shows is durable; a reader sees one moment, not a mixture. The lock is held for the length of a
//! function and never across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::agent::RunOrder;
use orien_protocol::time::{Millis, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use crate::artifacts::Artifacts;
use crate::decimal::Time;
use crate::experience::Measures;
use crate::meter::Meters;
use crate::news::News;
use crate::plan::{self, Handover, Plan};
use crate::rows::{Closing, ExecutionRow, SessionFacts};
use crate::store::Put;

/// Percent of the budget after which its user is warned.
const WARN_PERCENT: u64 = 80;

/// Where a session stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Proposed; not yet open.
    Opening,
    /// Takes runs.
    Open,
    /// Asked for the end.
    Ending,
    /// Over.
    Closed,
}

impl Phase {
    /// Stable name for APIs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Ending => "ending",
            Self::Closed => "closed",
        }
    }
}

/// Who stood in the way of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The provider answered with a refusal, or broke the rules.
    Provider,
    /// The provider could not be reached, or hung up.
    ProviderGone,
    /// Settlement answered with a refusal.
    Settlement,
    /// Settlement could not be reached.
    SettlementGone,
    /// We ourselves.
    Us,
}

/// A fault, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blame {
    /// What went wrong.
    pub(crate) fault: Fault,
    /// With whom.
    pub(crate) by: By,
}

/// What callers ask of a session.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run a tool.
    Run {
        /// What the machine is told.
        order: Box<RunOrder>,
        /// What is remembered.
        row: Box<ExecutionRow>,
        /// What becomes durable together with the job.
        along: Option<Put>,
        /// Whether it was taken.
        answer: oneshot::Sender<Result<(), Fault>>,
    },
    /// Stop a run.
    Cancel(ExecutionId),
    /// Raise the budget to this.
    TopUp {
        /// The new total.
        ceiling: Usdc,
        /// The budget after it.
        answer: oneshot::Sender<Result<Usdc, Blame>>,
    },
    /// Let the session go on until then.
    Extend {
        /// When it ends.
        until: Timestamp,
        /// When it ends after all.
        answer: oneshot::Sender<Result<Timestamp, Fault>>,
    },
    /// End the session.
    End,
}

/// The visible state.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) connected: bool,
    pub(crate) budget: Usdc,
    /// The highest budget that was asked for, whether or not it was given yet.
    pub(crate) asked: Usdc,
    pub(crate) charged: Usdc,
    pub(crate) promised: Usdc,
    /// How the opening went; none while it goes on.
    pub(crate) opening: Option<Result<(), Blame>>,
    /// Why nothing is signed any more.
    pub(crate) dispute: Option<Fault>,
    /// Runs that are not over; the others are in the store.
    pub(crate) runs: BTreeMap<ExecutionId, ExecutionRow>,
    /// Those of them that the provider has said something about.
    pub(crate) heard: BTreeSet<ExecutionId>,
    pub(crate) closing: Option<Closing>,
    /// Told when a run is over, and how it ended; only of those that somebody waits for.
    ends: BTreeMap<ExecutionId, watch::Sender<Option<ExecutionRow>>>,
    /// What the session shows about its provider.
    pub(crate) measures: Measures,
    /// What is wanted of it, and what was decided about it.
    pub(crate) plan: Plan,
    /// How it goes on elsewhere, if it does. Once there is one, whoever opens the successor tells how far it is.
    pub(crate) handover: Option<Handover>,
    /// Effective milliseconds of each execution that goes on, by its newest receipt.
    times: BTreeMap<ExecutionId, u64>,
    /// Of all that are over.
    ended_ms: u64,
    /// The same, with what they cost.
    pub(crate) meters: Meters,
    /// What happened.
    pub(crate) news: News,
    /// What runs left in the workspace.
    pub(crate) artifacts: Artifacts,
    /// Whether the user of this budget was warned.
    warned: bool,
}

impl State {
    /// Adds what a receipt says to the sums.
    pub(crate) fn note(&mut self, receipt: &Receipt) {
        self.charged = receipt.charged;
        self.meters.receipted(receipt, clock::now().mono);
        if let Some(work) = &receipt.work {
            match work.outcome {
                Some(outcome) => {
                    self.times.remove(&work.execution);
                    self.ended_ms = self.ended_ms.saturating_add(work.usage.effective_ms);
                    self.measures.note_end(&outcome);
                }
                None => drop(self.times.insert(work.execution, work.usage.effective_ms)),
            }
        }
    }

    /// A run is over: it is in the store only, where it stands as `ended` says if that is known.
    pub(crate) fn forget(&mut self, execution: ExecutionId, ended: Option<ExecutionRow>) {
        self.meters.forget(&execution);
        self.runs.remove(&execution);
        self.heard.remove(&execution);
        if let Some(end) = self.ends.remove(&execution) {
            end.send_replace(ended);
        }
    }

    /// Every run is over.
    pub(crate) fn forget_all(&mut self) {
        self.runs.clear();
        self.heard.clear();
        // Whoever waits hears that nobody is left to tell more.
        self.ends.clear();
    }

    /// Effective time of all executions, milliseconds.
    pub(crate) fn effective_ms(&self) -> u64 {
        self.times.values().fold(self.ended_ms, |sum, ms| sum.saturating_add(*ms))
    }

    /// What the session's user has to be told about the budget now, if anything: most of it is used. Said once, and again when there is more.
    pub(crate) fn warning(&mut self) -> Option<Value> {
        let (charged, budget) = (u128::from(self.charged.micros()), u128::from(self.budget.micros()));
        let is_reached = charged.saturating_mul(100) >= budget.saturating_mul(u128::from(WARN_PERCENT));
        let was_warned = std::mem::replace(&mut self.warned, is_reached);
        (is_reached && !was_warned).then(|| {
            json!({
                "kind": "budget",
                "percent": WARN_PERCENT,
                "budgetConsumed": self.charged.to_string(),
                "budgetAllowance": self.budget.to_string(),
                "remaining": self.budget.excess_over(self.charged).to_string(),
            })
        })
    }
}

/// How a session ended, as its last event says.
pub(crate) fn end_data(closing: &Closing, plan: &Plan, handover: Option<&Handover>) -> Value {
    json!({
        "at": Time(closing.at).to_string(),
        "reason": plan::end_reason(Some(closing), plan, handover),
        "status": plan::status(Some(closing), plan, handover),
        "budgetAllowance": closing.budget.to_string(),
        "budgetConsumed": closing.charged.to_string(),
        "fault": closing.fault.as_ref().map(fault_data),
    })
}

/// What went wrong, as events say it.
pub(crate) fn fault_data(fault: &Fault) -> Value {
    json!({ "code": fault.code.name(), "detail": fault.text, "missing": fault.missing.map(|amount| amount.to_string()) })
}

/// Somebody doing something in a session.
#[derive(Debug)]
pub(crate) struct Acting(Arc<Desk>);

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.touch();
        self.0.acting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A live session.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Which.
    pub(crate) id: SessionId,
    /// What it is about.
    pub(crate) facts: SessionFacts,
    /// When somebody last did something in it, monotonic milliseconds.
    touched: AtomicU64,
    /// How many do something in it just now.
    acting: AtomicU64,
    commands: mpsc::Sender<Command>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Desk {
    /// A session that is being opened.
    pub(crate) fn new(id: SessionId, facts: SessionFacts, plan: Plan, commands: mpsc::Sender<Command>) -> Self {
        let state = State {
            phase: Phase::Opening,
            connected: false,
            budget: facts.budget,
            asked: facts.budget,
            charged: Usdc::ZERO,
            promised: Usdc::ZERO,
            opening: None,
            dispute: None,
            runs: BTreeMap::new(),
            heard: BTreeSet::new(),
            closing: None,
            ends: BTreeMap::new(),
            measures: Measures::default(),
            plan,
            handover: None,
            times: BTreeMap::new(),
            ended_ms: 0,
            meters: Meters::new(&facts.tools),
            news: News::new(clock::wall().0),
            artifacts: Artifacts::default(),
            warned: false,
        };
        let (touched, acting) = (AtomicU64::new(clock::now().mono.0), AtomicU64::new(0));
        Self { id, facts, touched, acting, commands, state: Mutex::new(state), changed: watch::Sender::new(0) }
    }

    /// Notes that somebody does something in the session.
    pub(crate) fn touch(&self) {
        self.touched.fetch_max(clock::now().mono.0, Ordering::Relaxed);
    }

    /// Somebody does something in the session for as long as this is kept.
    pub(crate) fn act(self: &Arc<Self>) -> Acting {
        self.acting.fetch_add(1, Ordering::Relaxed);
        Acting(Arc::clone(self))
    }

    /// For how long nobody did anything in the session.
    pub(crate) fn idle(&self) -> Millis {
        if self.acting.load(Ordering::Relaxed) > 0 {
            self.touch();
        }
        Millis(clock::now().mono.0.saturating_sub(self.touched.load(Ordering::Relaxed)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at one moment.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }

    /// Changes what is seen, and wakes whoever waits. For the courier alone.
    pub(crate) fn change<T>(&self, how: impl FnOnce(&mut State) -> T) -> T {
        let changed = how(&mut self.state());
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        changed
    }

    /// Notes that somebody follows the session; nobody is woken for that.
    pub(crate) fn want_artifacts(&self, now: Millis) {
        self.state().artifacts.want(now);
    }

    /// Tells when something changed.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until `look` finds something, but not for longer than `limit`.
    pub(crate) async fn wait<T>(&self, limit: Duration, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let mut changes = self.watch();
        let found = async {
            loop {
                if let Some(found) = self.read(&look) {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        tokio::time::timeout(limit, found).await.ok().flatten()
    }

    /// Waits until a run is over, but not for longer than `limit`; answers how it ended, if that is known here. Other changes wake nobody who waits here.
    pub(crate) async fn wait_over(&self, execution: ExecutionId, limit: Duration) -> Option<ExecutionRow> {
        let mut end = {
            let mut state = self.state();
            if !state.runs.contains_key(&execution) {
                return None;
            }
            state.ends.entry(execution).or_insert_with(|| watch::Sender::new(None)).subscribe()
        };
        // Whoever waits goes on with what there is.
        tokio::time::timeout(limit, end.changed()).await.ok()?.ok()?;
        end.borrow_and_update().clone()
    }

    /// Tells the courier something. Refused when the session is over or too many wait.
    pub(crate) fn command(&self, command: Command) -> Result<(), Fault> {
        self.touch();
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Fault::new(FaultCode::BUSY, "too many requests wait in this session"),
            mpsc::error::TrySendError::Closed(_) => Fault::new(FaultCode::SESSION_ENDED, "the session has ended"),
        })
    }
}
