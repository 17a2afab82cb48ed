//! Carries out what the machine asks for, in its order.

use std::collections::VecDeque;

use orien_protocol::frame::{CloseReason, ProviderFrame};
use orien_protocol::job::Stdin;
use orien_protocol::session::provider::{ProviderEffect, ProviderInput, ProviderRecord};
use tokio::time::Instant;

use super::{Broken, Clerk};

impl Clerk {
    /// Hands the machine one input, and whatever follows from it at once.
    pub(super) async fn turn(&mut self, input: ProviderInput) -> Result<(), Broken> {
        let effects = self.step(input);
        self.finish_turn(effects).await
    }

    pub(super) async fn finish_turn(&mut self, effects: Vec<ProviderEffect>) -> Result<(), Broken> {
        // A tool that cannot be tried ends within its own turn, and may make room for the next: each does so once.
        let mut next = VecDeque::from([effects]);
        while let Some(effects) = next.pop_front() {
            self.persist(&effects).await?;
            for effect in effects {
                if let Some(input) = self.carry_out(effect).await? {
                    let more = self.step(input);
                    next.push_back(more);
                }
            }
        }
        Ok(())
    }

    /// Commits everything that one turn wants kept, in one transaction, before anything else of the turn is done: earlier than asked is safe, later is not.
    async fn persist(&mut self, effects: &[ProviderEffect]) -> Result<(), Broken> {
        let records: Vec<_> = effects
            .iter()
            .filter_map(|effect| if let ProviderEffect::Persist(record) = effect { Some((**record).clone()) } else { None })
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        self.has_records |= !records.iter().all(|record| matches!(record, ProviderRecord::GivenUp { .. }));
        records.iter().for_each(|record| self.keep_streams(record));
        self.house.store.append(self.id, records).await.map_err(|error| self.broken(error))
    }

    /// A job has its log and its input from when it is taken, so that it can be followed and fed before its turn comes.
    fn keep_streams(&self, record: &ProviderRecord) {
        match record {
            ProviderRecord::Job(job) => {
                let job = job.unverified();
                self.logs.begin(job.execution);
                if job.stdin == Stdin::Streamed {
                    self.inputs.begin(job.execution);
                }
            }
            ProviderRecord::JobDropped(execution) => {
                self.logs.end(*execution);
                self.inputs.close(*execution);
            }
            _ => {}
        }
    }

    fn broken(&self, error: crate::store::StoreError) -> Broken {
        tracing::error!(session = %self.id, %error, "the store failed; this process ends");
        self.house.fail(error);
        Broken
    }

    async fn carry_out(&mut self, effect: ProviderEffect) -> Result<Option<ProviderInput>, Broken> {
        match effect {
            ProviderEffect::Persist(_) => {}
            ProviderEffect::Send(frame) => self.say(frame),
            ProviderEffect::SendReceiptsAfter(number) => {
                if self.line.as_ref().is_some_and(|line| !line.say_receipts_after(number)) {
                    self.line_is_deaf();
                }
            }
            ProviderEffect::Start { job, limit } => return Ok(self.start(&job, limit).await),
            ProviderEffect::Pause(execution) => self.on_executor(|executor, id| executor.pause(id, true), execution),
            ProviderEffect::Unpause(execution) => self.on_executor(|executor, id| executor.pause(id, false), execution),
            ProviderEffect::Kill(execution) => self.on_executor(|executor, id| executor.kill(id), execution),
            // The claim is made of the records whenever it is handed in, so that none is lost with this process.
            ProviderEffect::HandIn(_) => self.house.collector.hand_in(self.id),
            ProviderEffect::Release(reason) => self.release(reason),
        }
        Ok(None)
    }

    pub(super) fn say(&self, frame: ProviderFrame) {
        if self.line.as_ref().is_some_and(|line| !line.say(frame)) {
            self.line_is_deaf();
        }
    }

    /// The cut line ends the hearing too, which is when the machine learns of it.
    fn line_is_deaf(&self) {
        tracing::info!(session = %self.id, "the agent does not read what it is sent; its stream is cut");
    }

    fn release(&mut self, reason: CloseReason) {
        tracing::info!(session = %self.id, reason = reason.name(), charged = %self.session.charged(), "session closed");
        self.released.cancel();
        self.over_since = Some(Instant::now());
        if let Some(executor) = self.executor.take() {
            // Nothing runs any more; what takes time is removing files, and nobody should wait for it.
            let (id, place) = (self.id, self.place.take());
            self.house.tasks.spawn(async move {
                if let Err(error) = executor.release().await {
                    tracing::error!(session = %id, %error, "a workspace is left behind until the next start");
                }
                drop(place);
            });
        }
        self.place = None;
    }
}
