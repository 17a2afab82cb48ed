//! A session's control stream to its agent: one task reads, one writes.
//!
//! Always true: what the session says is written in order; an agent that does not read is cut off instead of being waited for; both tasks end when the session lets
//! go of the line, after what was already said has been written.

use std::time::Duration;

use orien_bootstrap::{FrameReader, FrameStream, FrameWriter};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::id::SessionId;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::store::{Store, StoreError};

/// Frames waiting to be written: twice the receipts that may be without a voucher.
const SAID_MAX: usize = 512;
/// Frames read ahead of the session; the agent waits beyond it.
const HEARD_MAX: usize = 32;
/// A frame that the agent does not take for so long is not waited for.
const WRITE_TIME_MAX: Duration = Duration::from_secs(20);

/// Any way to a peer.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A stream to a peer, framed.
pub(crate) type PeerStream = FrameStream<Box<dyn Io>>;

/// What is written.
enum Said {
    Frame(ProviderFrame),
    ReceiptsAfter(u64),
}

/// The session's end of a control stream.
pub(crate) struct Line {
    said: mpsc::Sender<Said>,
    heard: mpsc::Receiver<AgentFrame>,
    /// Ends the reader; the writer ends when `said` is dropped and everything is written.
    _reader: DropGuard,
    /// Ends both at once.
    cut: CancellationToken,
}

impl Line {
    /// Takes a stream over, on tasks of the tracker.
    pub(crate) fn open(stream: PeerStream, session: SessionId, store: Store, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let (reader, writer) = stream.split();
        let (said, to_write) = mpsc::channel(SAID_MAX);
        let (to_session, heard) = mpsc::channel(HEARD_MAX);
        let cut = stop.child_token();
        let reading = cut.child_token();
        let refusals = said.downgrade();
        let until = reading.clone();
        tasks.spawn(async move { until.run_until_cancelled(read(reader, to_session, refusals)).await });
        let until = cut.clone();
        tasks.spawn(async move {
            let ended = until.run_until_cancelled(write(writer, to_write, session, store)).await;
            if let Some(Err(error)) = ended {
                tracing::debug!(%session, %error, "a control stream is given up");
            }
            // Whatever ended the writing ends the reading too.
            until.cancel();
        });
        Self { said, heard, _reader: reading.drop_guard(), cut }
    }

    /// The agent's next frame; none when the stream is gone. May be dropped and called again.
    pub(crate) async fn hear(&mut self) -> Option<AgentFrame> {
        self.heard.recv().await
    }

    /// A frame that is here already.
    pub(crate) fn heard_already(&mut self) -> Option<AgentFrame> {
        self.heard.try_recv().ok()
    }

    /// Says something; false when the agent does not listen and the line is cut.
    pub(crate) fn say(&self, frame: ProviderFrame) -> bool {
        self.put(Said::Frame(frame))
    }

    /// Says every stored receipt after a number.
    pub(crate) fn say_receipts_after(&self, number: u64) -> bool {
        self.put(Said::ReceiptsAfter(number))
    }

    fn put(&self, said: Said) -> bool {
        let taken = self.said.try_send(said).is_ok();
        if !taken {
            self.cut.cancel();
        }
        taken
    }
}

async fn read(mut reader: FrameReader<ReadHalf<Box<dyn Io>>>, to_session: mpsc::Sender<AgentFrame>, refusals: mpsc::WeakSender<Said>) {
    loop {
        match reader.recv::<AgentFrame>().await {
            Ok(Some(frame)) => {
                if to_session.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a control stream is closed for what it carried");
                let refusal = Said::Frame(ProviderFrame::Refused(Fault::new(FaultCode::MALFORMED, error)));
                if let Some(said) = refusals.upgrade() {
                    let _ = said.try_send(refusal);
                }
                return;
            }
        }
    }
}

/// Why writing ended before everything was said.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the agent does not read")]
    Stalled,
    #[error(transparent)]
    Frame(#[from] orien_bootstrap::FrameError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn write(
    mut writer: FrameWriter<WriteHalf<Box<dyn Io>>>,
    mut to_write: mpsc::Receiver<Said>,
    session: SessionId,
    store: Store,
) -> Result<(), WriteError> {
    while let Some(said) = to_write.recv().await {
        match said {
            Said::Frame(frame) => put(&mut writer, &frame).await?,
            Said::ReceiptsAfter(number) => {
                let mut from = Some(0);
                while let Some(position) = from {
                    let page = store.receipts_after(session, number, position).await?;
                    for receipt in page.receipts {
                        put(&mut writer, &ProviderFrame::Receipt(Box::new(receipt))).await?;
                    }
                    from = page.next;
                }
            }
        }
    }
    timeout(WRITE_TIME_MAX, writer.finish()).await.map_err(|_| WriteError::Stalled)??;
    Ok(())
}

async fn put(writer: &mut FrameWriter<WriteHalf<Box<dyn Io>>>, frame: &ProviderFrame) -> Result<(), WriteError> {
    let sent = timeout(WRITE_TIME_MAX, writer.send(frame)).await;
    Ok(sent.map_err(|_| WriteError::Stalled)??)
}
