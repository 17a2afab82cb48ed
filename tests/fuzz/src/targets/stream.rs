//! Frames on a stream of bytes that arrives in pieces of any size.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use orien_bootstrap::{FrameError, FrameStream};
use orien_protocol::codec;
use orien_protocol::frame::LogFrame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bytes::Bytes;

/// Small, so that both sides of it are reached.
const LIMIT: usize = 64;

/// Hands its bytes out in pieces; every other time it says that nothing is there yet.
#[derive(Debug)]
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
    waits: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.waits = !self.waits;
        if self.waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = self.piece.min(into.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        into.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Byte 0 is the size of the pieces; the rest is what arrives. The stream and a plain reading of the same bytes see the same frames.
pub(crate) fn frame_stream(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let piece = usize::from(bytes.u8() % 9) + 1;
    let mut rest = bytes.rest();
    let mut stream = FrameStream::new(Pieces { bytes: rest, piece, waits: false }, LIMIT);
    loop {
        let (arrived, expected) = (receive(&mut stream), plainly(&mut rest));
        match (&arrived, &expected) {
            (Ok(Some(frame)), Ok(Some(other))) => assert_eq!(frame, other),
            (Ok(None), Ok(None)) => return,
            (Err(_), Err(())) => break,
            _ => panic!("the stream says {arrived:?}, the bytes {expected:?}"),
        }
        // Not one byte after a frame was read ahead.
        assert_eq!(stream.raw().bytes, rest);
    }
    assert!(matches!(receive(&mut stream), Err(FrameError::Broken)), "a stream without frame boundaries is never read again");
}

fn receive(stream: &mut FrameStream<Pieces<'_>>) -> Result<Option<LogFrame>, FrameError> {
    let mut context = Context::from_waker(Waker::noop());
    loop {
        // Given up after every piece and called again: nothing is lost by that.
        let mut receiving = std::pin::pin!(stream.recv());
        if let Poll::Ready(received) = receiving.as_mut().poll(&mut context) {
            return received;
        }
    }
}

fn plainly(rest: &mut &[u8]) -> Result<Option<LogFrame>, ()> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (head, after) = rest.split_first_chunk::<4>().ok_or(())?;
    let length = u32::from_be_bytes(*head) as usize;
    if length > LIMIT || after.len() < length {
        return Err(());
    }
    let (frame, after) = after.split_at(length);
    *rest = after;
    codec::decode(frame, LIMIT).map(Some).map_err(|_| ())
}
