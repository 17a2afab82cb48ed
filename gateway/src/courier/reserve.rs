//! Asking settlement to reserve: for the opening, and for a higher budget.
//!
//! Always true: the id of a question is durable before it is asked, so asking again after a crash reserves once.

use std::time::Duration;

use orien_bootstrap::{AskError, clock};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{Answer, Question};
use orien_protocol::id::{RequestId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::session::agent::{AgentInput, AgentPhase};
use orien_protocol::terms::SignedTerms;
use orien_protocol::voucher::SignedAllowance;

use super::{Courier, TopUp};
use crate::context::Context;
use crate::desk::{Blame, By};
use crate::store::{Put, StoreError};

/// How long settlement is asked again; below the 30 s for which a provider holds a place.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// First and longest wait between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// What became of a question.
#[derive(Debug)]
pub(super) struct Reserved {
    asked: Usdc,
    answer: Result<SignedAllowance, NoAllowance>,
}

/// Why there is no allowance.
#[derive(Debug)]
struct NoAllowance {
    blame: Blame,
    /// Settlement said no to every question that it was asked: nothing is held.
    is_sure: bool,
}

impl Courier {
    /// Starts to ask settlement for a ceiling.
    pub(super) fn ask_for(&mut self, terms: SignedTerms, ceiling: Usdc) {
        let (context, session) = (std::sync::Arc::clone(&self.context), self.desk.id);
        self.asking.spawn(async move {
            let request = request_id(&context, session, ceiling).await?;
            let question = Question::Reserve { request, terms: Box::new(terms), ceiling };
            Ok(Reserved { asked: ceiling, answer: reserve(&context, &question).await })
        });
    }

    /// Hands settlement's answer to the machine.
    pub(super) fn on_reserved(&mut self, Reserved { asked, answer }: Reserved) {
        match answer {
            Ok(allowance) => {
                self.by = By::Settlement;
                self.inputs.push_back(AgentInput::Reserved { asked, allowance });
            }
            Err(NoAllowance { blame, is_sure }) => match self.top_up.take() {
                Some(top_up) => {
                    self.desk.change(|state| state.asked = state.budget);
                    // Whoever asked may be gone; nothing has changed.
                    let _ = top_up.send(Err(blame));
                }
                None => {
                    self.by = blame.by;
                    let input = if is_sure { AgentInput::NotReserved } else { AgentInput::NotAnswered };
                    self.inputs.push_back(input(blame.fault));
                }
            },
        }
    }

    /// Raises the budget, if that can be asked for now.
    pub(super) fn on_top_up(&mut self, ceiling: Usdc, answer: TopUp) {
        let budget = self.machine.budget();
        let refused = |code, text: String| Err(Blame { fault: Fault::new(code, text), by: By::Us });
        let said = if self.machine.phase() != AgentPhase::Open || self.machine.is_disputed() {
            refused(FaultCode::WRONG_STATE, "only an open session can be given more".to_owned())
        } else if ceiling == budget {
            Ok(budget)
        } else if ceiling < budget {
            refused(FaultCode::CONFLICT, format!("the budget is {budget} USDC already; a reservation can only be raised"))
        } else if !self.asking.is_empty() {
            refused(FaultCode::BUSY, "another top-up is under way".to_owned())
        } else if let Some(terms) = self.machine.terms() {
            let terms = terms.to_signed();
            self.top_up = Some(answer);
            self.desk.change(|state| state.asked = ceiling);
            return self.ask_for(terms, ceiling);
        } else {
            refused(FaultCode::WRONG_STATE, "the session is not open".to_owned())
        };
        // Whoever asked may be gone; nothing has changed.
        let _ = answer.send(said);
    }
}

async fn request_id(context: &Context, session: SessionId, ceiling: Usdc) -> Result<RequestId, StoreError> {
    if let Some(request) = context.store.reservation(session, ceiling).await? {
        return Ok(request);
    }
    let request = clock::random_id(RequestId::from_parts).map_err(|error| StoreError::Write(error.to_string()))?;
    context.store.write(vec![Put::reservation(&session, ceiling, &request)]).await?;
    Ok(request)
}

async fn reserve(context: &Context, question: &Question) -> Result<SignedAllowance, NoAllowance> {
    let mut wait = RETRY.0;
    let mut last = AskError::Net(orien_net::NetError::TimedOut);
    let mut is_sure = true;
    let attempts = async {
        loop {
            match context.ask_settlement(question).await {
                Ok(Answer::Allowance(allowance)) => return Ok(allowance),
                Ok(_) => {
                    let fault = Fault::new(FaultCode::MALFORMED, "settlement answered something else than was asked");
                    return Err(NoAllowance { blame: Blame { fault, by: By::Settlement }, is_sure: false });
                }
                Err(error) => {
                    is_sure &= is_refused(&error);
                    if !error.is_passing() {
                        return Err(NoAllowance { blame: blame(&error), is_sure });
                    }
                    last = error;
                }
            }
            tokio::time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(RETRY.1);
        }
    };
    match tokio::time::timeout(ASK_LIMIT, attempts).await {
        Ok(answered) => answered,
        // The last question may still be answered with a reservation.
        Err(_) => Err(NoAllowance { blame: blame(&last), is_sure: false }),
    }
}

/// Whether settlement itself said that it did not reserve. One that failed or is stopping does not know.
fn is_refused(error: &AskError) -> bool {
    error.fault().is_some_and(|fault| fault.code != FaultCode::INTERNAL)
}

fn blame(error: &AskError) -> Blame {
    match error.fault() {
        Some(fault) => Blame { fault: fault.clone(), by: By::Settlement },
        None => {
            Blame { fault: Fault::new(FaultCode::INTERNAL, format_args!("settlement gave no answer: {error}")), by: By::SettlementGone }
        }
    }
}
