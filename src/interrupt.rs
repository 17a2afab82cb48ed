//! Ctrl-C while a tool runs far away: the first one cancels the run, the second one leaves.
//!
//! Always true: whoever is told to stop learns it from [`Interrupt::is_hit`] or because the run that it follows ends; nothing is left to run on, and to cost, without being said.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::Client;
use crate::failure::{Failure, Told};
use crate::output;

/// Whether somebody wants to stop, and what has to be cancelled then.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<State>);

#[derive(Default)]
struct State {
    is_hit: AtomicBool,
    /// The run that is followed.
    run: Mutex<Option<String>>,
}

impl Interrupt {
    /// Watches for signals from now on.
    pub(crate) fn watch(client: &Client) -> Result<Self> {
        let interrupt = Self::default();
        let (own, client) = (interrupt.clone(), client.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot watch for signals")?;
        // Handlers are in place before anything is begun that would have to be stopped.
        let signals = runtime.block_on(async { [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal) });
        let [interrupted, terminated, hung_up] = signals;
        let signals = [interrupted?, terminated?, hung_up?];
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(own.serve(client, signals)))?;
        Ok(interrupt)
    }

    /// Whether somebody wants to stop.
    pub(crate) fn is_hit(&self) -> bool {
        self.0.is_hit.load(Ordering::SeqCst)
    }

    /// An error if somebody wants to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_hit() { Err(Told::error(Failure::Interrupted, "interrupted")) } else { Ok(()) }
    }

    /// From now on this run is to be cancelled. Somebody may have wanted that already.
    pub(crate) fn follows(&self, client: &Client, run: &str) {
        *self.run() = Some(run.to_owned());
        if self.is_hit() {
            self.cancel(client);
        }
    }

    /// Nobody looks at the output any more: as if somebody had pressed Ctrl-C.
    pub(crate) fn hit(&self, client: &Client) {
        if !self.0.is_hit.swap(true, Ordering::SeqCst) {
            self.cancel(client);
        }
    }

    /// There is nothing more to cancel.
    pub(crate) fn over(&self) {
        *self.run() = None;
    }

    fn run(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.0.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self, client: &Client) {
        let Some(run) = self.run().clone() else { return };
        if let Err(error) = client.post(&format!("/executions/{run}/cancel"), &json!({}), None) {
            output::error(&error.context("the run cannot be cancelled"));
        }
    }

    async fn serve(self, client: Client, [mut interrupted, mut terminated, mut hung_up]: [Signal; 3]) {
        loop {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
                _ = hung_up.recv() => {}
            }
            if self.is_hit() {
                output::note("left; what runs is in `orien session ls`");
                std::process::exit(i32::from(Failure::Interrupted.code()));
            }
            output::note("stopping; once more to leave at once");
            let (own, client) = (self.clone(), client.clone());
            // The next signal is heard while this goes on.
            std::thread::spawn(move || own.hit(&client));
            // So that the next signal finds it hit, whichever thread is faster.
            while !self.is_hit() {
                tokio::task::yield_now().await;
            }
        }
    }
}
