//! Frames on a stream of bytes: a 32-bit big-endian length, then that many encoded bytes.
//!
//! Always true: a length beyond the limit is refused before anything is allocated, not one byte after a frame is read ahead (raw file contents may follow
//! it), and a stream that lost its frame boundaries is never read or written again.
//!
//! It works on any stream and does not know what the frames mean.

use std::io;

use orien_protocol::codec::{self, CodecError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// Bytes of the length before each frame.
const HEAD: usize = 4;

/// Why a frame was not sent or received. None of them can be repaired on this stream.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The stream failed.
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
    /// The frame is longer than allowed on this stream.
    #[error("a frame of {length} bytes is more than the {limit} allowed on this stream")]
    TooLarge {
        /// Announced or encoded length in bytes.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The other side sent something else than the expected frame, or ours cannot be encoded.
    #[error(transparent)]
    Malformed(#[from] CodecError),
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Truncated,
    /// An earlier failure, or a send that was given up halfway, left the stream without frame boundaries.
    #[error("the stream is unusable since an earlier failure")]
    Broken,
}

/// What was read of a frame so far.
#[derive(Debug)]
struct Incoming {
    limit: usize,
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    head_filled: usize,
    /// As long as the head says, once the head is complete.
    body: Vec<u8>,
    /// Bytes of the body that are there.
    body_filled: usize,
    broken: bool,
}

impl Incoming {
    const fn new(limit: usize) -> Self {
        Self { limit, head: [0; HEAD], head_filled: 0, body: Vec::new(), body_filled: 0, broken: false }
    }

    async fn recv<T: DeserializeOwned>(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<Option<T>, FrameError> {
        if self.broken {
            return Err(FrameError::Broken);
        }
        let received = match self.fill(io).await {
            Ok(true) => codec::decode(&self.body, self.limit).map(Some).map_err(FrameError::from),
            Ok(false) => return Ok(None),
            Err(error) => Err(error),
        };
        self.broken = received.is_err();
        self.head_filled = 0;
        self.body_filled = 0;
        self.body = Vec::new();
        received
    }

    /// Reads until the frame is whole; false if the stream ended before it began. May be dropped and called again.
    async fn fill(&mut self, io: &mut (impl AsyncRead + Unpin)) -> Result<bool, FrameError> {
        while self.head_filled < HEAD {
            let count = io.read(&mut self.head[self.head_filled..]).await?;
            if count == 0 && self.head_filled == 0 {
                return Ok(false);
            }
            if count == 0 {
                return Err(FrameError::Truncated);
            }
            self.head_filled += count;
            if self.head_filled == HEAD {
                let length = usize::try_from(u32::from_be_bytes(self.head)).unwrap_or(usize::MAX);
                if length > self.limit {
                    return Err(FrameError::TooLarge { length, limit: self.limit });
                }
                self.body = vec![0; length];
            }
        }
        while self.body_filled < self.body.len() {
            let count = io.read(&mut self.body[self.body_filled..]).await?;
            if count == 0 {
                return Err(FrameError::Truncated);
            }
            self.body_filled += count;
        }
        Ok(true)
    }
}

#[derive(Debug)]
struct Outgoing {
    limit: usize,
    broken: bool,
}

impl Outgoing {
    async fn send<T: Serialize>(&mut self, io: &mut (impl AsyncWrite + Unpin), frame: &T) -> Result<(), FrameError> {
        if self.broken {
            return Err(FrameError::Broken);
        }
        let body = codec::encode(frame)?;
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= self.limit);
        let Some(length) = length else { return Err(FrameError::TooLarge { length: body.len(), limit: self.limit }) };
        let mut bytes = Vec::with_capacity(body.len().saturating_add(HEAD));
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        // Stays so if this future is dropped halfway.
        self.broken = true;
        io.write_all(&bytes).await?;
        io.flush().await?;
        self.broken = false;
        Ok(())
    }
}

/// A stream of frames in both directions.
#[derive(Debug)]
pub struct FrameStream<S> {
    io: S,
    incoming: Incoming,
    outgoing: Outgoing,
}

impl<S: AsyncRead + AsyncWrite + Unpin> FrameStream<S> {
    /// Frames of at most `limit` bytes over `io`.
    pub const fn new(io: S, limit: usize) -> Self {
        Self { io, incoming: Incoming::new(limit), outgoing: Outgoing { limit, broken: false } }
    }

    /// Sends one frame. Not to be given up halfway: the stream is unusable then.
    pub async fn send<T: Serialize>(&mut self, frame: &T) -> Result<(), FrameError> {
        self.outgoing.send(&mut self.io, frame).await
    }

    /// The next frame; `None` once the other side has ended its direction. May be given up and called again without loss.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        self.incoming.recv(&mut self.io).await
    }

    /// Ends our direction in an orderly way; the other stays open.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        Ok(self.io.shutdown().await?)
    }

    /// The stream below, for raw bytes between two frames.
    pub const fn raw(&mut self) -> &mut S {
        &mut self.io
    }

    /// The stream below. What was read of an unfinished frame is lost.
    pub fn into_inner(self) -> S {
        self.io
    }

    /// One half for each direction, usable from two tasks.
    pub fn split(self) -> (FrameReader<ReadHalf<S>>, FrameWriter<WriteHalf<S>>) {
        let (read, write) = tokio::io::split(self.io);
        (FrameReader { io: read, incoming: self.incoming }, FrameWriter { io: write, outgoing: self.outgoing })
    }
}

/// The receiving half of a [`FrameStream`].
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    incoming: Incoming,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// See [`FrameStream::recv`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        self.incoming.recv(&mut self.io).await
    }

    /// See [`FrameStream::raw`].
    pub const fn raw(&mut self) -> &mut R {
        &mut self.io
    }
}

/// The sending half of a [`FrameStream`].
#[derive(Debug)]
pub struct FrameWriter<W> {
    io: W,
    outgoing: Outgoing,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// See [`FrameStream::send`].
    pub async fn send<T: Serialize>(&mut self, frame: &T) -> Result<(), FrameError> {
        self.outgoing.send(&mut self.io, frame).await
    }

    /// See [`FrameStream::finish`].
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        Ok(self.io.shutdown().await?)
    }

    /// See [`FrameStream::raw`].
    pub const fn raw(&mut self) -> &mut W {
        &mut self.io
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const LIMIT: usize = 100;

    fn pair(capacity: usize) -> (FrameStream<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(capacity);
        (FrameStream::new(ours, LIMIT), theirs)
    }

    fn framed(text: &str) -> Vec<u8> {
        let body = codec::encode(&text).unwrap();
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn frames_cross_in_both_directions_and_an_orderly_end_is_none() {
        let (mut one, theirs) = pair(1000);
        let mut two = FrameStream::new(theirs, LIMIT);
        one.send(&"there").await.unwrap();
        two.send(&7_u32).await.unwrap();
        assert_eq!(two.recv::<String>().await.unwrap().unwrap(), "there");
        assert_eq!(one.recv::<u32>().await.unwrap(), Some(7));
        one.finish().await.unwrap();
        assert_eq!(two.recv::<String>().await.unwrap(), None);
        two.send(&"still open").await.unwrap();
        assert_eq!(one.recv::<String>().await.unwrap().unwrap(), "still open");
    }

    #[tokio::test]
    async fn a_frame_that_arrives_byte_by_byte_survives_given_up_receives() {
        let (mut ours, mut theirs) = pair(1000);
        let bytes = framed("slow");
        for byte in &bytes[..bytes.len() - 1] {
            theirs.write_all(&[*byte]).await.unwrap();
            assert!(poll_once(&mut ours).await.is_none());
        }
        theirs.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        assert_eq!(ours.recv::<String>().await.unwrap().unwrap(), "slow");
    }

    async fn poll_once(stream: &mut FrameStream<DuplexStream>) -> Option<Result<Option<String>, FrameError>> {
        poll_immediate_of(stream.recv::<String>()).await
    }

    async fn poll_immediate_of<F: Future>(future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match future.as_mut().poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn an_oversized_frame_is_refused_by_its_length_alone() {
        let (mut ours, mut theirs) = pair(1000);
        theirs.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(matches!(ours.recv::<String>().await, Err(FrameError::TooLarge { limit: LIMIT, .. })));
        assert!(matches!(ours.recv::<String>().await, Err(FrameError::Broken)));
        assert!(matches!(ours.send(&"x".repeat(LIMIT)).await, Err(FrameError::TooLarge { .. })));
        ours.send(&"nothing was sent, so this still may").await.unwrap();
    }

    #[tokio::test]
    async fn garbage_is_an_error_and_ends_the_reading() {
        let (mut ours, mut theirs) = pair(1000);
        theirs.write_all(&[0, 0, 0, 3, 255, 255, 255]).await.unwrap();
        theirs.write_all(&framed("too late")).await.unwrap();
        assert!(matches!(ours.recv::<String>().await, Err(FrameError::Malformed(_))));
        assert!(matches!(ours.recv::<String>().await, Err(FrameError::Broken)));
    }

    #[tokio::test]
    async fn an_end_in_the_middle_of_a_frame_is_told_from_an_orderly_one() {
        for length in [2, 6] {
            let (mut ours, mut theirs) = pair(1000);
            theirs.write_all(&framed("cut")[..length]).await.unwrap();
            drop(theirs);
            assert!(matches!(ours.recv::<String>().await, Err(FrameError::Truncated)));
        }
    }

    #[tokio::test]
    async fn a_send_given_up_halfway_makes_the_stream_unusable() {
        let (mut ours, _theirs) = pair(8);
        assert!(poll_immediate_of(ours.send(&"longer than the pipe")).await.is_none());
        assert!(matches!(ours.send(&"next").await, Err(FrameError::Broken)));
    }

    #[tokio::test]
    async fn raw_bytes_after_a_frame_are_left_untouched() {
        let (mut ours, mut theirs) = pair(1000);
        theirs.write_all(&framed("header")).await.unwrap();
        theirs.write_all(b"raw body").await.unwrap();
        drop(theirs);
        assert_eq!(ours.recv::<String>().await.unwrap().unwrap(), "header");
        let mut body = String::new();
        ours.raw().read_to_string(&mut body).await.unwrap();
        assert_eq!(body, "raw body");
    }

    #[tokio::test]
    async fn the_halves_of_a_split_stream_keep_what_was_begun() {
        let (mut ours, mut theirs) = pair(1000);
        let bytes = framed("begun");
        theirs.write_all(&bytes[..5]).await.unwrap();
        assert!(poll_once(&mut ours).await.is_none());
        let (mut reader, mut writer) = ours.split();
        theirs.write_all(&bytes[5..]).await.unwrap();
        assert_eq!(reader.recv::<String>().await.unwrap().unwrap(), "begun");
        writer.send(&"back").await.unwrap();
        assert_eq!(FrameStream::new(theirs, LIMIT).recv::<String>().await.unwrap().unwrap(), "back");
    }
}
