//! Small questions to other peers, and their typed answers.

use orien_net::{Net, NetError};
use orien_protocol::codec::{self, CodecError};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{ANSWER_LIMIT, Answer, Question};
use orien_protocol::peer::PeerId;
use thiserror::Error;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// The question cannot be sent: a bug, or far too large a document in it.
    #[error("the question cannot be encoded: {0}")]
    Question(CodecError),
    /// The peer was not reached or did not answer.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The peer answered with something that is not an answer.
    #[error("peer {peer} gave an answer that cannot be read: {reason}")]
    Malformed {
        /// Who.
        peer: PeerId,
        /// Why it cannot be read.
        reason: CodecError,
    },
    /// The peer answered a question that was not asked.
    #[error("peer {peer} answered something else than was asked")]
    Unexpected {
        /// Who.
        peer: PeerId,
    },
    /// The peer refused.
    #[error("peer {peer} refused: {fault}")]
    Refused {
        /// Who.
        peer: PeerId,
        /// Why, safe to show.
        fault: Fault,
    },
}

impl AskError {
    /// Whether the same question may be answered later, or it is not known if it was acted on: ask again.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Net(error) => !matches!(
                error,
                NetError::TooLarge { .. }
                    | NetError::UnsupportedByPeer { .. }
                    | NetError::OwnPeer
                    | NetError::Stopped
                    | NetError::InvalidPeer { .. }
            ),
            Self::Refused { fault, .. } => fault.code == FaultCode::BUSY,
            Self::Question(_) | Self::Malformed { .. } | Self::Unexpected { .. } => false,
        }
    }

    /// The peer's refusal, if that is what it is.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Refused { fault, .. } => Some(fault),
            _ => None,
        }
    }
}

/// Asks a peer, connecting first if need be. A refusal is an error; at most about 20 s.
pub async fn ask(net: &Net, peer: PeerId, question: &Question) -> Result<Answer, AskError> {
    let request = codec::encode(question).map_err(AskError::Question)?;
    let response = net.call(peer, request).await?;
    match codec::decode(&response, ANSWER_LIMIT) {
        Ok(Answer::Refused(fault)) => Err(AskError::Refused { peer, fault: fault.tamed() }),
        Ok(answer) => Ok(answer),
        Err(reason) => Err(AskError::Malformed { peer, reason }),
    }
}
