//! The runs of one session: started in its workspace, measured, paused, killed.
//!
//! Always true: the workspace is made when it is first needed and gone after [`Executor::release`]; every run is a task of the executor and ends with it; each reports
//! its start, if it started, and its end, exactly once.
//!
//! It decides nothing about money: how long a run may take and when it is paused is told to it.

mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::job::Job;
use orien_protocol::receipt::{EndReason, Usage};
use orien_protocol::time::Millis;
use orien_sandbox::{CloseError, Files, Sandbox, SessionError, SessionLimits, SessionSandbox, SessionSpec};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::WorkspaceChoice;
use crate::input::Inputs;
use crate::output::Logs;
use crate::toolbox::Toolbox;
use run::{Order, Run};

/// News of runs on their way: each run has two, and all of them wait if the session is slow. As many as a session takes together.
const EVENTS_MAX: usize = 64;

/// What a run tells.
#[derive(Debug)]
pub(crate) enum RunEvent {
    /// The tool's program runs.
    Started(ExecutionId),
    /// Nothing of the run is left.
    Ended(RunEnd),
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct RunEnd {
    pub(crate) execution: ExecutionId,
    pub(crate) usage: Usage,
    pub(crate) end: EndReason,
    pub(crate) exit_code: Option<i32>,
}

impl RunEnd {
    /// The end of a run that never ran: it costs nothing.
    pub(crate) fn never_ran(execution: ExecutionId) -> Self {
        Self { execution, usage: Usage::default(), end: EndReason::SetupFailed, exit_code: None }
    }
}

/// What all sessions' executors share.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) sandbox: Sandbox,
    pub(crate) toolbox: Toolbox,
    pub(crate) workspace: WorkspaceChoice,
    pub(crate) network_bytes: u64,
    pub(crate) runs_per_session: u16,
}

/// Started runs of one session.
struct Running {
    orders: watch::Sender<Order>,
    usage: watch::Receiver<Usage>,
}

/// The runs and the workspace of one session.
pub(crate) struct Executor {
    workshop: Arc<Workshop>,
    session: SessionId,
    logs: Arc<Logs>,
    inputs: Arc<Inputs>,
    sandbox: Option<Arc<SessionSandbox>>,
    running: BTreeMap<ExecutionId, Running>,
    tasks: JoinSet<()>,
    to_session: mpsc::Sender<RunEvent>,
    events: mpsc::Receiver<RunEvent>,
}

impl Executor {
    pub(crate) fn new(workshop: Arc<Workshop>, session: SessionId, logs: Arc<Logs>, inputs: Arc<Inputs>) -> Self {
        let (to_session, events) = mpsc::channel(EVENTS_MAX);
        Self { workshop, session, logs, inputs, sandbox: None, running: BTreeMap::new(), tasks: JoinSet::new(), to_session, events }
    }

    /// The next news of a run; waits for ever when there is none. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> RunEvent {
        match self.events.recv().await {
            Some(event) => event,
            // Cannot be: this side holds a sender.
            None => std::future::pending().await,
        }
    }

    /// News of a run that are here already.
    pub(crate) fn told_already(&mut self) -> Option<RunEvent> {
        self.events.try_recv().ok()
    }

    /// Starts a tool. One that cannot even be tried is answered at once.
    pub(crate) async fn start(&mut self, job: &Job, limit: Millis) -> Result<(), RunEnd> {
        let execution = job.execution;
        self.logs.begin(execution);
        let prepared = match self.open().await {
            Ok(sandbox) => self.workshop.toolbox.spec(job, limit, &sandbox.workspace()).map(|spec| (sandbox, spec)),
            Err(error) => Err(error.to_string()),
        };
        let (sandbox, spec) = prepared.map_err(|reason| {
            self.inputs.close(execution);
            run::not_started(&self.logs, execution, &reason, false)
        })?;
        let (orders, ordered) = watch::channel(Order::default());
        let (usage, measured) = watch::channel(Usage::default());
        let run = Run::new(job, Arc::clone(&self.logs), Arc::clone(&self.inputs), ordered, usage, self.to_session.clone());
        self.running.insert(execution, Running { orders, usage: measured });
        self.tasks.spawn(run.carry_out(sandbox, spec));
        Ok(())
    }

    /// Each running tool's usage, as of the last sample.
    pub(crate) fn usages(&self) -> Vec<(ExecutionId, Usage)> {
        self.running.iter().map(|(id, running)| (*id, *running.usage.borrow())).collect()
    }

    /// Stops a tool's processes for now, or lets them go on.
    pub(crate) fn pause(&self, execution: ExecutionId, paused: bool) {
        if let Some(running) = self.running.get(&execution) {
            running.orders.send_modify(|order| order.paused = paused);
        }
    }

    /// Kills a tool; its end is told as usual.
    pub(crate) fn kill(&self, execution: ExecutionId) {
        if let Some(running) = self.running.get(&execution) {
            running.orders.send_modify(|order| order.killed = true);
        }
    }

    /// Kills every tool.
    pub(crate) fn kill_all(&self) {
        self.running.keys().for_each(|execution| self.kill(*execution));
    }

    /// A run's end was taken note of.
    pub(crate) fn forget(&mut self, execution: ExecutionId) {
        self.running.remove(&execution);
        // Its task has nothing left to do; this keeps the set as small as what runs.
        while self.tasks.try_join_next().is_some() {}
    }

    /// The workspace's files.
    pub(crate) async fn files(&mut self) -> Result<Files, SessionError> {
        Ok(self.open().await?.files())
    }

    /// Ends every run and removes the workspace.
    pub(crate) async fn release(mut self) -> Result<(), CloseError> {
        self.kill_all();
        // Runs that still want to tell something must not wait for us to listen.
        self.events.close();
        while self.tasks.join_next().await.is_some() {}
        self.logs.end_all();
        self.inputs.close_all();
        match self.sandbox.and_then(Arc::into_inner) {
            Some(sandbox) => sandbox.close().await,
            None => Ok(()),
        }
    }

    async fn open(&mut self) -> Result<Arc<SessionSandbox>, SessionError> {
        if let Some(sandbox) = &self.sandbox {
            return Ok(Arc::clone(sandbox));
        }
        let workspace = self.workshop.workspace;
        let limits = SessionLimits {
            workspace_bytes: workspace.max_bytes,
            workspace_entries: workspace.max_entries,
            // One more than the session allows: the sandbox counts a run until its last process is gone.
            parallel_runs: u32::from(self.workshop.runs_per_session).saturating_add(1),
        };
        let (network_bytes, profiles) = (self.workshop.network_bytes, self.workshop.toolbox.profiles());
        let spec = SessionSpec { limits, storage: workspace.storage, network_bytes, profiles };
        let sandbox = Arc::new(self.workshop.sandbox.session(&self.session.to_string(), spec).await?);
        self.sandbox = Some(Arc::clone(&sandbox));
        Ok(sandbox)
    }
}
