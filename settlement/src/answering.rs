//! Answers the questions that peers ask settlement.
//!
//! Questions are answered beside each other, a bounded number at once and a smaller number per peer; one more is told that we are busy. Every question gets an answer, and an
//! answer that follows from a change is given after it was stored.

use std::collections::HashMap;

use orien_bootstrap::InboundQuestion;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{Answer, Question};
use orien_protocol::peer::PeerId;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clerk::Clerk;
use crate::desk::DeskError;

/// Most questions in work at once; others wait in the peer's bounded queue.
const QUESTIONS_AT_ONCE: usize = 64;
/// Most questions of one peer in work at once: a gateway that opens several sessions, or a node that claims them.
const QUESTIONS_PER_PEER: usize = 16;

/// Questions in work, and who asked them.
#[derive(Default)]
struct Working {
    tasks: JoinSet<()>,
    askers: HashMap<Id, PeerId>,
}

impl Working {
    fn take(&mut self, clerk: &Clerk, asked: InboundQuestion) {
        let InboundQuestion { peer, question, reply } = asked;
        let busy = self.askers.values().filter(|asker| **asker == peer).count() >= QUESTIONS_PER_PEER;
        let clerk = clerk.clone();
        let task = self.tasks.spawn(async move {
            let answer = if busy {
                Answer::Refused(Fault::new(FaultCode::BUSY, "too many of your questions are being answered; ask again"))
            } else {
                answer(&clerk, peer, question).await
            };
            if let Err(error) = reply.answer(&answer).await {
                tracing::debug!(%peer, %error, "an answer did not leave");
            }
        });
        self.askers.insert(task.id(), peer);
    }

    /// Waits for one to be finished; false when there is none.
    async fn finish_one(&mut self) -> bool {
        let Some(done) = self.tasks.join_next_with_id().await else { return false };
        let id = done.map_or_else(
            |error| {
                tracing::error!(%error, "answering a question broke off");
                error.id()
            },
            |(id, ())| id,
        );
        self.askers.remove(&id);
        true
    }
}

/// Answers questions until there are no more or `cancel`; those in work are finished.
pub(crate) async fn answer_all(clerk: Clerk, mut questions: mpsc::Receiver<InboundQuestion>, cancel: CancellationToken) {
    let mut working = Working::default();
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            true = working.finish_one() => {}
            asked = questions.recv(), if working.tasks.len() < QUESTIONS_AT_ONCE => match asked {
                Some(asked) => working.take(&clerk, asked),
                None => break,
            },
        }
    }
    while working.finish_one().await {}
}

/// The answer to one question.
async fn answer(clerk: &Clerk, peer: PeerId, question: Question) -> Answer {
    let kind = kind(&question);
    let answer = match question {
        Question::Reserve { request, terms, ceiling } => {
            clerk.call(move |desk, now| desk.reserve(peer, request, *terms, ceiling, now)).await.map(Answer::Allowance)
        }
        Question::Claim(claim) => clerk.call(move |desk, now| desk.claim(*claim, now)).await.map(Answer::Claimed),
        Question::Release { terms, close } => {
            clerk.call(move |desk, now| desk.release(peer, *terms, close, now)).await.map(Answer::Claimed)
        }
        Question::Balance(account) => clerk.call(move |desk, _| desk.funds(&account)).await.map(Answer::Balance),
        Question::ChannelState(channel) => clerk.call(move |desk, _| desk.channel_state(&channel)).await.map(Answer::ChannelState),
        Question::Earnings(payee) => clerk.call(move |desk, _| desk.earnings(&payee)).await.map(Answer::Earnings),
        Question::Offer | Question::OfferOf(_) | Question::Catalogue { .. } | Question::Digests { .. } => {
            Err(DeskError::Refused(Fault::new(FaultCode::NOT_FOUND, "settlement does not answer this question")))
        }
    };
    answer.unwrap_or_else(|error| match error {
        DeskError::Refused(fault) => {
            tracing::debug!(%peer, kind, %fault, "a question was refused");
            Answer::Refused(fault)
        }
        DeskError::Shut(_) => Answer::Refused(Fault::new(FaultCode::INTERNAL, "settlement is stopping; ask again later")),
    })
}

const fn kind(question: &Question) -> &'static str {
    match question {
        Question::Reserve { .. } => "reserve",
        Question::Claim(_) => "claim",
        Question::Release { .. } => "release",
        Question::Balance(_) => "balance",
        Question::ChannelState(_) => "channel_state",
        Question::Earnings(_) => "earnings",
        Question::Offer | Question::OfferOf(_) | Question::Catalogue { .. } | Question::Digests { .. } => "catalogue",
    }
}
