//! Standard input of a run, on its way from a caller to the provider, over a stream of its own.
//!
//! Always true: no more than [`WINDOW_BYTES`] and one piece are here that the provider has not taken; a stream that breaks is opened again and goes on where the provider says, so that
//! every byte is taken once and in order; a caller whose run does not read waits, and nobody else.
//!
//! It does not know HTTP, nor what a run costs.

mod cargo;
mod seats;

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use orien_bootstrap::{FrameReader, FrameStream, FrameWriter};
use orien_net::{NetError, NetStream, StreamKind};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{InputAnswer, InputFrame, InputRequest, STREAM_FRAME_LIMIT};
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::peer::PeerId;
use thiserror::Error;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::body::BodyError;
use crate::context::Context;
use cargo::Cargo;
pub(crate) use seats::Seats;

/// What is kept until the provider has taken it: enough to fill the way to another continent at the speed of a good line.
const WINDOW_BYTES: usize = 1024 * 1024;
/// How long a provider may be out of reach before the caller is told.
const REACH_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take for its first word on a stream.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// First and longest wait before a stream is opened again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often a provider may say that it does not know the run; it may be asked a moment before it has taken the job.
const UNKNOWN_LIMIT: u32 = 6;

/// Where an input stands at its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Bytes taken for the tool; it need not have read them.
    pub(crate) total: u64,
    /// Whether the end was taken too.
    pub(crate) ended: bool,
}

/// Why input was not taken, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum InputError {
    /// The tool has ended or closed its input.
    #[error("the tool has ended or closed its input")]
    Over,
    /// The provider refuses, or the bytes do not go on where the input stands.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// The caller broke off. What it had sent before was taken.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The provider is out of reach.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
}

/// The same with what was taken before, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{error}")]
pub(crate) struct Failed {
    pub(crate) error: InputError,
    pub(crate) received: Option<u64>,
}

/// The input of one run.
#[derive(Debug)]
pub(crate) struct Inlet<'a> {
    pub(crate) context: &'a Context,
    pub(crate) provider: PeerId,
    /// Where it was dialled.
    pub(crate) addresses: &'a [String],
    pub(crate) session: SessionId,
    pub(crate) execution: ExecutionId,
}

/// Why a stream ended before all was taken.
enum Stop {
    /// It broke, or could not be opened.
    Lost(String),
    /// The provider does not know the run, or not yet.
    Unknown(Fault),
    /// Nothing more is taken.
    Over(Standing),
    /// Another stream would bring nothing else.
    For(InputError),
}

/// An open stream, and where the input stood when it was opened.
struct Open {
    reader: FrameReader<ReadHalf<NetStream>>,
    writer: FrameWriter<WriteHalf<NetStream>>,
    standing: Standing,
}

impl Inlet<'_> {
    /// Where the input stands.
    pub(crate) async fn look(&self) -> Result<Standing, Failed> {
        let mut tries = Tries::new();
        loop {
            match self.open().await {
                Ok(open) => return Ok(open.standing),
                Err(Stop::Over(standing)) => return Err(Failed { error: InputError::Over, received: Some(standing.total) }),
                Err(stop) => tries.again(stop).await.map_err(|error| Failed { error, received: None })?,
            }
        }
    }

    /// Sends all of a body, which begins at an offset in the whole input, or where it stands now. Comes back when the provider has taken it, and the end of the input if that is wanted.
    pub(crate) async fn send<B>(&self, from: Option<u64>, body: B, end: bool) -> Result<Standing, Failed>
    where
        B: Stream<Item = Result<Bytes, BodyError>> + Unpin,
    {
        let (mut tries, mut received) = (Tries::new(), None);
        let (mut body, mut cargo) = (Some(body), None);
        loop {
            let stop = match self.open().await {
                Ok(open) => {
                    let (before, opened) = (open.standing, Instant::now());
                    received = Some(before.total);
                    if let Some(body) = body.take() {
                        cargo = Some(Cargo::new(body, begin(from, before.total).map_err(|error| Failed { error, received })?));
                    }
                    let Some(cargo) = &mut cargo else { continue };
                    let (sent, standing) = carry(open, cargo, end).await;
                    received = Some(standing.total);
                    if standing != before || opened.elapsed() >= RETRY.1 {
                        tries = Tries::new();
                    }
                    match (sent, cargo.failure()) {
                        (Ok(()), None) => return Ok(standing),
                        (Ok(()), Some(why)) => return Err(Failed { error: InputError::Body(why.clone()), received }),
                        (Err(stop), _) => stop,
                    }
                }
                Err(stop) => stop,
            };
            if let Stop::Over(standing) = stop {
                // A tool may end as soon as it has what it waits for, before we hear that it was taken.
                let is_done = (standing.ended || !end) && cargo.as_ref().is_some_and(|cargo| cargo.is_all(standing.total));
                let failed = Failed { error: InputError::Over, received: Some(standing.total) };
                return if is_done { Ok(standing) } else { Err(failed) };
            }
            tries.again(stop).await.map_err(|error| Failed { error, received })?;
        }
    }

    async fn open(&self) -> Result<Open, Stop> {
        let addresses = self.context.addresses_of(&self.provider, self.addresses);
        let opening = async {
            self.context.net.connect(self.provider, &addresses).await?;
            self.context.net.open(self.provider, StreamKind::Input).await
        };
        let stream = opening.await.map_err(|error: NetError| Stop::Lost(error.to_string()))?;
        let mut frames: FrameStream<NetStream> = FrameStream::new(stream, STREAM_FRAME_LIMIT);
        let asking = async {
            frames.send(&InputRequest { session: self.session, execution: self.execution }).await?;
            frames.recv::<InputAnswer>().await
        };
        match timeout(ANSWER_LIMIT, asking).await {
            Ok(Ok(Some(InputAnswer::Taken { total, ended }))) => {
                let (reader, writer) = frames.split();
                Ok(Open { reader, writer, standing: Standing { total, ended } })
            }
            Ok(Ok(Some(answer))) => Err(stop_of(answer)),
            Ok(Ok(None)) => Err(Stop::Lost("it hung up".to_owned())),
            Ok(Err(error)) => Err(Stop::Lost(error.to_string())),
            Err(_) => Err(Stop::Lost("it does not answer".to_owned())),
        }
    }
}

/// Where a body begins in the whole input.
fn begin(from: Option<u64>, total: u64) -> Result<u64, InputError> {
    match from {
        Some(from) if from > total => {
            let text = format!("{total} bytes of the input are taken, so it does not go on at {from}");
            Err(InputError::Refused(Fault::new(FaultCode::CONFLICT, text)))
        }
        from => Ok(from.unwrap_or(total)),
    }
}

/// What an answer that is no progress means.
fn stop_of(answer: InputAnswer) -> Stop {
    match answer {
        InputAnswer::Over { total, ended } => Stop::Over(Standing { total, ended }),
        InputAnswer::Refused(fault) if fault.code == FaultCode::NOT_FOUND => Stop::Unknown(fault.tamed()),
        InputAnswer::Refused(fault) => Stop::For(InputError::Refused(fault.tamed())),
        InputAnswer::Taken { .. } => Stop::Lost("it says where the input stands when it was not asked".to_owned()),
    }
}

/// Sends what there is over one stream. Answers where the input stood last.
async fn carry<B>(open: Open, cargo: &mut Cargo<B>, end: bool) -> (Result<(), Stop>, Standing)
where
    B: Stream<Item = Result<Bytes, BodyError>> + Unpin,
{
    let Open { mut reader, mut writer, standing } = open;
    let (told, heard) = watch::channel(standing);
    let hearing = async {
        loop {
            match reader.recv::<InputAnswer>().await {
                Ok(Some(InputAnswer::Taken { total, ended })) => drop(told.send_replace(Standing { total, ended })),
                Ok(Some(answer)) => {
                    if let InputAnswer::Over { total, ended } = answer {
                        told.send_replace(Standing { total, ended });
                    }
                    return stop_of(answer);
                }
                Ok(None) => return Stop::Lost("it hung up".to_owned()),
                Err(error) => return Stop::Lost(error.to_string()),
            }
        }
    };
    let sent = tokio::select! {
        biased;
        stop = hearing => Err(stop),
        sent = say_all(&mut writer, heard, cargo, end) => sent,
    };
    let standing = *told.borrow();
    cargo.taken(standing.total);
    (sent, standing)
}

async fn say_all<B>(
    writer: &mut FrameWriter<WriteHalf<NetStream>>,
    mut heard: watch::Receiver<Standing>,
    cargo: &mut Cargo<B>,
    end: bool,
) -> Result<(), Stop>
where
    B: Stream<Item = Result<Bytes, BodyError>> + Unpin,
{
    let lost = |error: orien_bootstrap::FrameError| Stop::Lost(error.to_string());
    let (mut sent, mut end_is_sent) = (heard.borrow().total, false);
    loop {
        let now = *heard.borrow_and_update();
        cargo.taken(now.total);
        sent = sent.max(now.total);
        if let Some(bytes) = cargo.from(sent) {
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            writer.send(&InputFrame::Bytes { offset: sent, bytes }).await.map_err(lost)?;
            sent = sent.saturating_add(count);
            continue;
        }
        if cargo.is_whole() {
            let end = end && cargo.failure().is_none();
            if end && now.ended && now.total != cargo.length() {
                let text = format!("the input has ended after {} bytes, and not after {}", now.total, cargo.length());
                return Err(Stop::For(InputError::Refused(Fault::new(FaultCode::CONFLICT, text))));
            }
            if now.total >= cargo.length() && (now.ended || !end) {
                return Ok(());
            }
            if end && !std::mem::replace(&mut end_is_sent, true) {
                writer.send(&InputFrame::End { offset: cargo.length() }).await.map_err(lost)?;
                continue;
            }
        }
        let has_room = !cargo.is_whole() && cargo.held() < WINDOW_BYTES;
        tokio::select! {
            biased;
            changed = heard.changed() => changed.map_err(|_| Stop::Lost("it hung up".to_owned()))?,
            () = cargo.load(), if has_room => {}
        }
    }
}

/// Attempts in a row, none of which got a stream that lasted or brought anything.
struct Tries {
    since: Instant,
    wait: Duration,
    unknown: u32,
}

impl Tries {
    fn new() -> Self {
        Self { since: Instant::now(), wait: RETRY.0, unknown: 0 }
    }

    /// Waits before the next attempt, if there is to be one.
    async fn again(&mut self, stop: Stop) -> Result<(), InputError> {
        match stop {
            Stop::For(error) => return Err(error),
            Stop::Over(_) => return Err(InputError::Over),
            Stop::Unknown(fault) => {
                self.unknown = self.unknown.saturating_add(1);
                if self.unknown >= UNKNOWN_LIMIT {
                    return Err(InputError::Refused(fault));
                }
            }
            Stop::Lost(why) => {
                tracing::debug!(why, "an input stream was lost, or not opened");
                if self.since.elapsed() >= REACH_LIMIT {
                    return Err(InputError::Unreachable(why));
                }
            }
        }
        sleep(self.wait).await;
        self.wait = self.wait.saturating_mul(2).min(RETRY.1);
        Ok(())
    }
}
