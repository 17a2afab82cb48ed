//! Gives back what settlement reserved for a session that never opened: asks the provider for its close of nothing, and hands that in.
//!
//! Always true: it is begun when the session is over for everybody else, and holds nothing up; one step is tried at a time, with ever longer waits between failures; the machine
//! decides when it is done, and what it wants kept is durable before anything that follows. After a restart it goes on where it was.
//!
//! It makes no decision about money. Its driver cancels it at any moment; the store then says where to go on.

use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::frame::{AgentFrame, Answer, ProviderFrame, Question};
use orien_protocol::id::SessionId;
use orien_protocol::peer::PeerId;
use orien_protocol::session::agent::{AgentEffect, AgentInput, AgentRecord, AgentSession};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::context::Context;
use crate::link::Link;
use crate::rows::SessionFacts;
use crate::store::{Put, StoreError};

/// First and longest wait between two attempts: a provider that stays away is dialled once a minute, for some hours.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// How long the provider may take for its answer: a look at its disk and one commit.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a provider that was told of the end may take to close by itself, which saves asking it.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(3);

/// One reservation on its way back.
#[derive(Debug)]
pub(crate) struct Errand {
    context: Arc<Context>,
    machine: AgentSession,
    provider: PeerId,
    addresses: Vec<String>,
    /// Number of the next record.
    seq: u64,
    /// The session's own stream, on which the provider may still say something.
    link: Option<Link>,
    /// What settlement is told, once the provider's close is here.
    hand_back: Option<Question>,
    staged: Vec<Put>,
}

impl Errand {
    /// What is left to do after a session of which `seq` records are written.
    pub(crate) fn after(
        context: Arc<Context>,
        machine: AgentSession,
        facts: &SessionFacts,
        seq: u64,
        link: Option<Link>,
        hand_back: Option<Question>,
    ) -> Self {
        let (provider, addresses) = (facts.provider, facts.addresses.clone());
        Self { context, machine, provider, addresses, seq, link, hand_back, staged: Vec::new() }
    }

    /// The session that never opened.
    pub(crate) fn session(&self) -> SessionId {
        self.machine.id()
    }

    /// Goes on until nothing is held any more. Every attempt takes one of `attempts`.
    pub(crate) async fn run(mut self, first: Vec<AgentEffect>, attempts: &Semaphore) -> Result<(), StoreError> {
        self.carry_out(first).await?;
        if self.link.is_some() && !self.machine.is_let_go() {
            self.listen(LAST_WORD_LIMIT).await?;
        }
        self.hang_up().await;
        let mut wait = RETRY.0;
        loop {
            self.turn(AgentInput::Tick).await?;
            if !self.machine.owes_release() {
                return Ok(());
            }
            let was_let_go = self.machine.is_let_go();
            {
                // Closed never; one that cannot be had is an attempt that failed.
                let _attempt = attempts.acquire().await;
                match self.hand_back.clone() {
                    Some(question) => self.ask_settlement(&question).await?,
                    None => self.ask_provider().await?,
                }
            }
            if self.machine.is_let_go() != was_let_go {
                wait = RETRY.0;
            } else if self.machine.owes_release() {
                sleep(wait).await;
                wait = wait.saturating_mul(2).min(RETRY.1);
            }
        }
    }

    async fn ask_provider(&mut self) -> Result<(), StoreError> {
        let addresses = self.context.addresses_of(&self.provider, &self.addresses);
        match Link::open(&self.context.net, self.provider, &addresses).await {
            Ok(link) => self.link = Some(link),
            Err(error) => {
                tracing::debug!(session = %self.session(), %error, "the provider of a session that never opened cannot be reached");
                return Ok(());
            }
        }
        self.turn(AgentInput::Connected).await?;
        self.listen(ANSWER_LIMIT).await?;
        self.hang_up().await;
        Ok(())
    }

    /// Hears the provider out until it has let go or has nothing more to say.
    async fn listen(&mut self, limit: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + limit;
        while let Some(link) = self.link.as_mut().filter(|_| !self.machine.is_let_go()) {
            let Ok(Some(frame)) = timeout_at(deadline, link.next()).await else { return Ok(()) };
            if let ProviderFrame::Refused(fault) = &frame {
                tracing::info!(session = %self.session(), code = fault.code.name(), "the provider does not let go of a session that never opened");
            }
            self.turn(AgentInput::Frame(frame)).await?;
        }
        Ok(())
    }

    async fn hang_up(&mut self) {
        if let Some(link) = self.link.take() {
            link.finish().await;
        }
    }

    async fn ask_settlement(&mut self, question: &Question) -> Result<(), StoreError> {
        let session = self.session();
        let said = match self.context.ask_settlement(question).await {
            Ok(Answer::Claimed(state)) => Ok(state),
            Ok(_) => {
                tracing::warn!(%session, "settlement answered something else than was asked");
                return Ok(());
            }
            Err(error) => match error.fault() {
                Some(fault) => Err(fault.clone()),
                None => {
                    tracing::debug!(%session, %error, "settlement cannot be asked to release a reservation");
                    return Ok(());
                }
            },
        };
        match &said {
            Ok(_) => tracing::info!(%session, "what was reserved for a session that never opened is given back"),
            Err(fault) => tracing::info!(%session, %fault, "settlement releases nothing for a session that never opened"),
        }
        self.turn(AgentInput::HandedBack(said)).await
    }

    async fn turn(&mut self, input: AgentInput) -> Result<(), StoreError> {
        let effects = self.machine.handle(input, clock::now());
        self.carry_out(effects).await
    }

    async fn carry_out(&mut self, effects: Vec<AgentEffect>) -> Result<(), StoreError> {
        for effect in effects {
            match effect {
                AgentEffect::Persist(record) => self.stage(&record)?,
                AgentEffect::Send(frame) => {
                    self.commit().await?;
                    self.send(&frame).await;
                }
                AgentEffect::HandBack { terms, close } => self.hand_back = Some(Question::Release { terms, close }),
                // The session is over: nobody listens, and nothing is reserved for it.
                AgentEffect::Tell(_) | AgentEffect::Reserve { .. } => {}
            }
        }
        self.commit().await
    }

    fn stage(&mut self, record: &AgentRecord) -> Result<(), StoreError> {
        let session = self.session();
        self.staged.push(Put::record(&session, self.seq, record)?);
        self.seq = self.seq.saturating_add(1);
        if !self.machine.owes_release() {
            self.staged.push(Put::release(&session, false));
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.context.store.write(std::mem::take(&mut self.staged)).await
    }

    async fn send(&mut self, frame: &AgentFrame) {
        if let Some(link) = &mut self.link
            && !link.send(frame).await
        {
            self.link = None;
        }
    }
}
