//! The run that a session is opened for, held against a provider's offer before anything is opened or paid.
//!
//! Always true: what passes here is refused later only for what only the provider can know, such as whether a file is there.
//!
//! It starts nothing: the caller still asks for the run.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::job::{ARGUMENTS_LIMIT_BYTES, Argument, ArgumentValue};
use orien_protocol::money::{Meter, Usdc};
use orien_protocol::offer::{Offer, Tool};
use thiserror::Error;

use crate::arguments::{Args, ArgumentProblem};

/// What will be run first.
#[derive(Clone, Debug)]
pub(crate) struct FirstRun {
    pub(crate) tool: String,
    pub(crate) args: Args,
    pub(crate) max_cost: Option<Usdc>,
}

/// Why an offer does not take it.
#[derive(Clone, Debug, Error)]
pub(crate) enum Unfit {
    /// The arguments do not fit the tool.
    #[error("{}", sentence(.0))]
    Arguments(Vec<ArgumentProblem>),
    /// There is no such tool, or it costs or is given too much.
    #[error(transparent)]
    Refused(#[from] Fault),
}

/// Several problems in one line.
pub(crate) fn sentence(problems: &[ArgumentProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl FirstRun {
    /// Whether a session with this budget could begin with it, as the offer stands.
    pub(crate) fn check(&self, offer: &Offer, budget: Usdc) -> Result<(), Unfit> {
        let tool = offer.tool(&self.tool).ok_or_else(|| Fault::new(FaultCode::UNKNOWN_TOOL, "the provider does not offer this tool"))?;
        let arguments = self.args.bind(tool).map_err(Unfit::Arguments)?;
        check_size(&arguments)?;
        self.check_cost(tool, offer, budget).map_err(Unfit::Refused)
    }

    /// As a session checks it before each run: the call fee and one metering interval.
    fn check_cost(&self, tool: &Tool, offer: &Offer, budget: Usdc) -> Result<(), Fault> {
        let exhausted = |text: &str, missing: Usdc| Fault::new(FaultCode::BUDGET_EXHAUSTED, text).missing(missing);
        let fee = tool.price.call_fee.excess_over(self.max_cost.unwrap_or(tool.price.call_fee));
        if fee > Usdc::ZERO {
            return Err(exhausted("maxCost does not cover the call fee", fee));
        }
        let overflow = |error| Fault::new(FaultCode::BUDGET_EXHAUSTED, error);
        let mut meter = Meter::default();
        meter.add(tool.price, offer.metering_interval.0).map_err(overflow)?;
        let missing = meter.charge(offer.minimum_charge).map_err(overflow)?.excess_over(budget);
        if missing > Usdc::ZERO {
            return Err(exhausted("the budget does not cover the call fee and one metering interval of this tool", missing));
        }
        Ok(())
    }
}

/// Whether arguments go into one job.
fn check_size(arguments: &[Argument]) -> Result<(), Fault> {
    let length = |argument: &Argument| match &argument.value {
        ArgumentValue::Text(text) | ArgumentValue::Number(text) => text.len(),
        ArgumentValue::Integer(_) | ArgumentValue::Boolean(_) => 0,
    };
    if arguments.iter().map(length).sum::<usize>() > ARGUMENTS_LIMIT_BYTES {
        return Err(Fault::new(FaultCode::TOO_LARGE, format_args!("the arguments have more than {ARGUMENTS_LIMIT_BYTES} bytes together")));
    }
    Ok(())
}
