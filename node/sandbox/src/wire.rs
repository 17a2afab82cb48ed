//! What the node and its helpers say to each other: JSON, in messages on a session's socket and in frames of a length on a run's.
//!
//! Always true: a frame longer than [`FRAME_BYTES_MAX`] is refused before anything is stored for it. Both sides are the same
//! program, so there is no version: the helper is started from the running program's own file.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::RunLimits;
use crate::report::{Cause, Usage};

/// Room for a long argument list and environment. The kernel's own limit for both is not much larger.
pub(crate) const FRAME_BYTES_MAX: usize = 256 * 1024;
const LENGTH_BYTES: usize = 4;

/// One run, ready to be started: nothing is looked up or decided after this.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// `None`: the checks of [`crate::selftest`] instead of a program.
    pub(crate) program: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: String,
    pub(crate) limits: RunLimits,
}

/// Why the node wants a run dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KillWhy {
    Requested(String),
    OutputLimit,
    DiskLimit,
}

impl KillWhy {
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Requested(reason) => Cause::Killed { reason },
            Self::OutputLimit => Cause::OutputLimit,
            Self::DiskLimit => Cause::DiskLimit,
        }
    }
}

/// Node to the stub of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Run(Box<Job>),
    Pause,
    Resume,
    Kill(KillWhy),
}

/// Stub to node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Left out when the end follows at once.
    Started,
    Usage(Usage),
    Paused,
    Resumed,
    Ended(Ending),
}

/// The stub's part of the report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) cause: Cause,
    pub(crate) wall: std::time::Duration,
    pub(crate) paused: std::time::Duration,
    pub(crate) usage: Usage,
    pub(crate) survivors: u32,
}

impl Ending {
    /// Of a run whose program never ran.
    pub(crate) fn never_began(failure: SetupFailure) -> Self {
        let SetupFailure { stage, message } = failure;
        Self::of(Cause::SetupFailed { stage, message })
    }

    /// Without any use.
    pub(crate) fn of(cause: Cause) -> Self {
        Self { cause, wall: std::time::Duration::ZERO, paused: std::time::Duration::ZERO, usage: Usage::default(), survivors: 0 }
    }
}

/// Node to the holder of a session, beside the policy, which is the first message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHolder {
    /// Start the stub of a run of this profile. With it: the run's socket, standard output, standard error, standard input if it
    /// has one, and its control group if it has one. The job itself comes on the run's socket.
    Run { profile: usize, input: bool },
}

/// Holder to node: the answer to the policy.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHolder {
    /// The session can take runs. With it: the directory of its files if that is in memory, then the listening sockets of its ways
    /// out, in order of profile.
    Ready,
    /// It cannot be made, and the helper has ended.
    Failed(SetupFailure),
}

/// A step that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SetupFailure {
    pub(crate) stage: String,
    pub(crate) message: String,
}

/// A frame that cannot be sent or understood.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    #[error("a frame of {0} bytes is above the limit of {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("a frame is not what was expected: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// One frame.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| WireError::TooLong(body.len()))?;
    if body.len() > FRAME_BYTES_MAX {
        return Err(WireError::TooLong(body.len()));
    }
    let mut frame = Vec::with_capacity(LENGTH_BYTES + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Puts frames together again from whatever pieces arrive.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Stores what was read. Callers take all frames out before they push again, so this holds one frame and one read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let Some(head) = self.pending.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(WireError::TooLong(length));
        }
        let end = LENGTH_BYTES + length;
        let Some(body) = self.pending.get(LENGTH_BYTES..end) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.pending.drain(..end);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_being_cut_anywhere() {
        let frame = encode(&Order::Kill(KillWhy::Requested("budget".into()))).unwrap();
        for cut in 0..frame.len() {
            let mut decoder = Decoder::default();
            decoder.push(&frame[..cut]);
            assert!(decoder.next::<Order>().unwrap().is_none());
            decoder.push(&frame[cut..]);
            assert!(matches!(decoder.next().unwrap(), Some(Order::Kill(KillWhy::Requested(r))) if r == "budget"));
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_from_its_length_alone() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.next::<Order>(), Err(WireError::TooLong(_))));
        assert!(matches!(encode(&"x".repeat(FRAME_BYTES_MAX)), Err(WireError::TooLong(_))));
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic() {
        let mut decoder = Decoder::default();
        decoder.push(&3u32.to_be_bytes());
        decoder.push(b"\xff{}");
        assert!(matches!(decoder.next::<Order>(), Err(WireError::Malformed(_))));
    }
}
