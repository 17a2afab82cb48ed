//! What frames and records are called in the story of a world: their kind, and the figures that money depends on.

use crate::frame::{AgentFrame, ProviderFrame};
use crate::id::ExecutionId;
use crate::receipt::Receipt;
use crate::session::agent::{AgentEvent, AgentRecord};
use crate::session::provider::ProviderRecord;
use crate::voucher::{Allowance, Voucher};

/// Something with a short name.
pub(super) trait Brief {
    fn brief(&self) -> String;
}

fn run(execution: &ExecutionId) -> String {
    let text = execution.to_string();
    format!("run {}", text.get(text.len().saturating_sub(4)..).unwrap_or_default())
}

fn voucher(voucher: &Voucher) -> String {
    format!("voucher {} for receipt {}", voucher.total.micros(), voucher.receipt_number)
}

fn allowance(allowance: &Allowance) -> String {
    format!("allowance {}", allowance.ceiling.micros())
}

impl Brief for Receipt {
    fn brief(&self) -> String {
        let work = self.work.as_ref().map_or("opening".to_owned(), |work| {
            let end = work.outcome.map_or("interim", |outcome| outcome.end.name());
            format!("{} {} ms {end}", run(&work.execution), work.usage.effective_ms)
        });
        format!("receipt {} charges {}: {work}", self.number, self.charged.micros())
    }
}

impl Brief for AgentFrame {
    fn brief(&self) -> String {
        match self {
            Self::Propose(_) => "propose".to_owned(),
            Self::Present(signed) => allowance(signed.unverified()),
            Self::Run(job) => format!("{} costs at most {}", run(&job.unverified().execution), job.unverified().max_cost.micros()),
            Self::Cancel(execution) => format!("cancel {}", run(execution)),
            Self::Voucher(signed) => voucher(signed.unverified()),
            Self::End => "end".to_owned(),
            Self::LetGo(_) => "let go".to_owned(),
            Self::Resume { head, .. } => format!("resume after {head}"),
        }
    }
}

impl Brief for ProviderFrame {
    fn brief(&self) -> String {
        match self {
            Self::Accepted(_) => "accepted".to_owned(),
            Self::Refused(fault) => format!("refused: {fault}"),
            Self::Receipt(receipt) => receipt.unverified().brief(),
            Self::Waiting(execution) => format!("{} waits", run(execution)),
            Self::Started { execution, .. } => format!("{} started", run(execution)),
            Self::JobRefused { execution, fault } => format!("{} refused: {fault}", run(execution)),
            Self::Resumed { head } => format!("resumed, head {head}"),
            Self::VoucherRefused(fault) => format!("voucher refused: {fault}"),
            Self::Closed { reason, close } => {
                format!("closed {}, total {:?}", reason.name(), close.map(|close| close.unverified().total.micros()))
            }
        }
    }
}

impl Brief for AgentRecord {
    fn brief(&self) -> String {
        match self {
            Self::Proposed { budget, .. } => format!("proposed, budget {}", budget.micros()),
            Self::Agreed(_) => "agreed".to_owned(),
            Self::Reserved(signed) => allowance(signed.unverified()),
            Self::Job(job) => run(&job.unverified().execution),
            Self::Cancelled(execution) => format!("cancelled {}", run(execution)),
            Self::JobRefused(execution) => format!("{} refused", run(execution)),
            Self::Answered { receipt, .. } => format!("answer to {}", receipt.unverified().brief()),
            Self::Disputed(receipt) => format!("dispute of {}", receipt.unverified().brief()),
            Self::Ending => "ending".to_owned(),
            Self::Closed { reason, .. } => format!("closed {}", reason.name()),
            Self::LetGo(_) => "let go".to_owned(),
            Self::Released => "released".to_owned(),
            Self::Sealed { most } => format!("sealed at {}", most.micros()),
        }
    }
}

impl Brief for ProviderRecord {
    fn brief(&self) -> String {
        match self {
            Self::Opened { allowance: signed, .. } => format!("opened, {}", allowance(signed.unverified())),
            Self::ToppedUp(signed) => allowance(signed.unverified()),
            Self::Job(job) => run(&job.unverified().execution),
            Self::JobDropped(execution) => format!("{} dropped", run(execution)),
            Self::Receipt(receipt) => receipt.unverified().brief(),
            Self::Voucher(signed) => voucher(signed.unverified()),
            Self::Draining(reason) => format!("draining {}", reason.name()),
            Self::GivenUp { .. } => "given up".to_owned(),
            Self::Closed { reason, close } => {
                format!("closed {}, total {:?}", reason.name(), close.map(|close| close.unverified().total.micros()))
            }
        }
    }
}

impl Brief for AgentEvent {
    fn brief(&self) -> String {
        match self {
            Self::Opened => "opened".to_owned(),
            Self::NotOpened(fault) => format!("not opened: {fault}"),
            Self::ToppedUp(ceiling) => format!("topped up to {}", ceiling.micros()),
            Self::Waiting(execution) => format!("{} waits", run(execution)),
            Self::Started(execution, _) => format!("{} started", run(execution)),
            Self::RunRefused(execution, fault) => format!("{} refused: {fault}", run(execution)),
            Self::Receipt(receipt) => receipt.brief(),
            Self::Disputed(fault) => format!("dispute: {fault}"),
            Self::VoucherRefused(fault) => format!("voucher refused: {fault}"),
            Self::Closed(reason) => format!("closed {}", reason.name()),
        }
    }
}
