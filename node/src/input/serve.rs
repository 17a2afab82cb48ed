//! One input stream: from its opening to its end, or to the end of the input, or until another stream takes its place.

use std::time::Duration;

use orien_bootstrap::{FrameError, FrameReader, FrameWriter};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{INPUT_CHUNK_LIMIT, InputAnswer, InputFrame};
use orien_protocol::id::ExecutionId;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Inputs, Piece, Put, Standing};
use crate::line::{Io, PeerStream};

/// An agent that takes no answer for so long is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);

/// Why a stream ends.
enum Stop {
    /// Nothing more is taken.
    Over,
    /// Refused.
    Refused(Fault),
    /// The agent has ended its direction, or is gone.
    Gone,
}

/// One stream.
struct Visit<'a> {
    inputs: &'a Inputs,
    execution: ExecutionId,
    news: watch::Receiver<()>,
    reader: FrameReader<ReadHalf<Box<dyn Io>>>,
    writer: FrameWriter<WriteHalf<Box<dyn Io>>>,
    /// Its number, once it has sent something.
    own: Option<u64>,
}

/// Takes what a stream brings. The run has to have an input.
pub(crate) async fn serve(stream: PeerStream, execution: ExecutionId, inputs: &Inputs) {
    let Some(news) = inputs.news(execution) else { return };
    let (reader, writer) = stream.split();
    let mut visit = Visit { inputs, execution, news, reader, writer, own: None };
    let last = match visit.take_all().await {
        Stop::Over => {
            let (total, ended) = inputs.standing(execution).map_or((0, false), |standing| (standing.total, standing.ended));
            InputAnswer::Over { total, ended }
        }
        Stop::Refused(fault) => InputAnswer::Refused(fault),
        Stop::Gone => return,
    };
    if visit.say(&last).await.is_ok() {
        let _ = timeout(WRITE_TIME_MAX, visit.writer.finish()).await;
    }
}

impl Visit<'_> {
    async fn take_all(&mut self) -> Stop {
        loop {
            let standing = match self.look() {
                Ok(standing) => standing,
                Err(stop) => return stop,
            };
            if let Err(stop) = self.say(&InputAnswer::Taken { total: standing.total, ended: standing.ended }).await {
                return stop;
            }
            let taken = match self.hear().await {
                Ok(frame) => self.take(frame).await,
                Err(stop) => Err(stop),
            };
            if let Err(stop) = taken {
                return stop;
            }
        }
    }

    /// Where the input stands, if this stream still counts.
    fn look(&mut self) -> Result<Standing, Stop> {
        // Marked as seen before looking, so that nothing that comes in between is missed.
        self.news.borrow_and_update();
        let standing = self.inputs.standing(self.execution).filter(|standing| !standing.over).ok_or(Stop::Over)?;
        match self.own {
            Some(own) if own != standing.stream => Err(Stop::Refused(Fault::new(FaultCode::CONFLICT, "a newer stream brings this input"))),
            _ => Ok(standing),
        }
    }

    /// The next frame; what ends the stream meanwhile is noticed.
    async fn hear(&mut self) -> Result<InputFrame, Stop> {
        loop {
            self.look()?;
            tokio::select! {
                frame = self.reader.recv::<InputFrame>() => return match frame {
                    Ok(Some(frame)) => Ok(frame),
                    Ok(None) | Err(FrameError::Io(_) | FrameError::Truncated) => Err(Stop::Gone),
                    Err(error) => Err(Stop::Refused(Fault::new(FaultCode::MALFORMED, error))),
                },
                changed = self.news.changed() => if changed.is_err() { return Err(Stop::Over) },
            }
        }
    }

    async fn take(&mut self, frame: InputFrame) -> Result<(), Stop> {
        let own = *self.own.get_or_insert_with(|| self.inputs.claim(self.execution));
        match frame {
            InputFrame::Bytes { bytes, .. } if bytes.len() > INPUT_CHUNK_LIMIT => {
                let text = format!("a frame brings at most {INPUT_CHUNK_LIMIT} bytes of input");
                Err(Stop::Refused(Fault::new(FaultCode::TOO_LARGE, text)))
            }
            InputFrame::Bytes { offset, bytes } => self.take_bytes(own, Piece { offset, bytes: &bytes }).await,
            InputFrame::End { offset } => match self.inputs.end(self.execution, own, offset) {
                Ok(Put::Over) => Err(Stop::Over),
                Ok(_) => Ok(()),
                Err(fault) => Err(Stop::Refused(fault)),
            },
        }
    }

    async fn take_bytes(&mut self, own: u64, mut piece: Piece<'_>) -> Result<(), Stop> {
        loop {
            self.news.borrow_and_update();
            match self.inputs.put(self.execution, own, &mut piece).map_err(Stop::Refused)? {
                Put::Whole => return Ok(()),
                Put::Over => return Err(Stop::Over),
                // The tool reads, or the input is over, or another stream takes its place.
                Put::Full => self.news.changed().await.map_err(|_| Stop::Over)?,
            }
        }
    }

    async fn say(&mut self, answer: &InputAnswer) -> Result<(), Stop> {
        match timeout(WRITE_TIME_MAX, self.writer.send(answer)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::Gone),
        }
    }
}
