//! The control stream to a provider, as its courier uses it: dialled again and again while it is wanted, read by a task of its own, written with a time limit.
//!
//! Always true: when a link is dropped its reading task ends; a provider that stops reading or sends too fast slows or loses the link, and nothing else.

use std::time::Duration;

use orien_bootstrap::{FrameStream, FrameWriter};
use orien_net::{Net, NetError, NetStream, StreamKind};
use orien_protocol::frame::{AgentFrame, CONTROL_FRAME_LIMIT, ProviderFrame};
use orien_protocol::peer::PeerId;
use tokio::io::WriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Frames read ahead of the courier; the provider's window of unanswered receipts is larger than that and waits on its side.
const FRAMES_AHEAD: usize = 64;
/// How long a frame may take to be written: a provider that reads nothing for so long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// An open control stream.
#[derive(Debug)]
pub(crate) struct Link {
    writer: FrameWriter<WriteHalf<NetStream>>,
    frames: mpsc::Receiver<ProviderFrame>,
    /// The reading task; ends with the link.
    _reader: JoinSet<()>,
}

impl Link {
    /// Connects to a provider and opens a control stream.
    pub(crate) async fn open(net: &Net, provider: PeerId, addresses: &[String]) -> Result<Self, NetError> {
        net.connect(provider, addresses).await?;
        let stream = net.open(provider, StreamKind::Control).await?;
        let (mut reader, writer) = FrameStream::new(stream, CONTROL_FRAME_LIMIT).split();
        let (queue, frames) = mpsc::channel(FRAMES_AHEAD);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            loop {
                match reader.recv::<ProviderFrame>().await {
                    Ok(Some(frame)) => {
                        if queue.send(frame).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => return tracing::info!(%provider, %error, "a control stream was lost"),
                }
            }
        });
        Ok(Self { writer, frames, _reader: reading })
    }

    /// The next frame; none when the stream is gone.
    pub(crate) async fn next(&mut self) -> Option<ProviderFrame> {
        self.frames.recv().await
    }

    /// A frame that is here already.
    pub(crate) fn try_next(&mut self) -> Option<ProviderFrame> {
        self.frames.try_recv().ok()
    }

    /// Sends a frame; false when the stream is gone.
    pub(crate) async fn send(&mut self, frame: &AgentFrame) -> bool {
        match tokio::time::timeout(WRITE_LIMIT, self.writer.send(frame)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::info!(%error, "a control stream could not be written");
                false
            }
            Err(_) => {
                tracing::info!("the provider reads nothing from its control stream");
                false
            }
        }
    }

    /// Ends our direction, so that what was sent last arrives.
    pub(crate) async fn finish(mut self) {
        if tokio::time::timeout(WRITE_LIMIT, self.writer.finish()).await.is_err() {
            tracing::debug!("a control stream was not closed in time");
        }
    }
}
