//! The agent's signed request for one run.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{ExecutionId, SessionId};
use crate::money::Usdc;
use crate::offer::{NAME_LIMIT, PARAMETERS_LIMIT};
use crate::signing::{Layout, Statement};
use crate::time::{Millis, Timestamp};

/// Most bytes of all argument values together; the kernel's own limit for a command line is above this.
pub const ARGUMENTS_LIMIT_BYTES: usize = 128 * 1024;
/// Most bytes of one argument value.
pub const ARGUMENT_LIMIT_BYTES: usize = 32 * 1024;

/// The value of one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArgumentValue {
    /// Text, a choice, or a path in the workspace.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A decimal number, as written.
    Number(String),
    /// True or false.
    Boolean(bool),
}

/// One named argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// The parameter it is for.
    pub name: String,
    /// Its value.
    pub value: ArgumentValue,
}

/// What a tool finds on its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Stdin {
    /// Its end, at once.
    #[default]
    Empty,
    /// What the agent sends on an input stream, until it ends it.
    Streamed,
}

impl Stdin {
    /// Its number in signed bytes.
    const fn number(self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Streamed => 1,
        }
    }
}

/// A request for one run of one tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The session it belongs to.
    pub session: SessionId,
    /// Made by the agent and kept before sending, so that asking twice runs once.
    pub execution: ExecutionId,
    /// Which tool.
    pub tool: String,
    /// With what.
    pub arguments: Vec<Argument>,
    /// The run is stopped when its own charge reaches this.
    pub max_cost: Usdc,
    /// The run is stopped after this much effective time; the tool's own limit holds too.
    pub max_duration: Millis,
    /// When the agent asked.
    pub issued_at: Timestamp,
    /// What the tool finds on its standard input.
    pub stdin: Stdin,
}

/// A job is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JobError {
    /// A name is too long or there are too many arguments.
    #[error("a job has at most {PARAMETERS_LIMIT} arguments with names of at most {NAME_LIMIT} bytes")]
    TooMany,
    /// The values are too long.
    #[error("argument values have at most {ARGUMENT_LIMIT_BYTES} bytes each and {ARGUMENTS_LIMIT_BYTES} together")]
    TooLong,
}

impl Job {
    /// Refuses what is oversized; types are checked against the tool by whoever knows it.
    pub fn check(&self) -> Result<(), JobError> {
        let names = self.arguments.iter().all(|a| a.name.len() <= NAME_LIMIT);
        if !names || self.tool.len() > NAME_LIMIT || self.arguments.len() > PARAMETERS_LIMIT {
            return Err(JobError::TooMany);
        }
        let lengths = self.arguments.iter().map(|a| match &a.value {
            ArgumentValue::Text(text) | ArgumentValue::Number(text) => text.len(),
            ArgumentValue::Integer(_) | ArgumentValue::Boolean(_) => 0,
        });
        let longest = lengths.clone().max().unwrap_or(0);
        if longest > ARGUMENT_LIMIT_BYTES || lengths.sum::<usize>() > ARGUMENTS_LIMIT_BYTES {
            return Err(JobError::TooLong);
        }
        Ok(())
    }
}

impl Statement for Job {
    const DOMAIN: &'static str = "orien/job/v1";

    fn write(&self, out: &mut Layout) {
        out.fixed(self.session.as_bytes());
        out.fixed(self.execution.as_bytes());
        out.text(&self.tool);
        out.list(&self.arguments, |out, argument| {
            out.text(&argument.name);
            match &argument.value {
                ArgumentValue::Text(text) => {
                    out.u8(0);
                    out.text(text);
                }
                ArgumentValue::Integer(number) => {
                    out.u8(1);
                    out.i64(*number);
                }
                ArgumentValue::Number(text) => {
                    out.u8(2);
                    out.text(text);
                }
                ArgumentValue::Boolean(value) => {
                    out.u8(3);
                    out.u8(u8::from(*value));
                }
            }
        });
        out.u64(self.max_cost.micros());
        out.u64(self.max_duration.0);
        out.u64(self.issued_at.0);
        out.u8(self.stdin.number());
    }
}
