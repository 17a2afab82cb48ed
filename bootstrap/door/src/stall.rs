//! Patience with a limit: a socket whose writes, and a body whose reads, give up when nothing moves.
//!
//! Always true: a client that sends half a body or stops reading holds its connection for no longer than the limit.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A deadline that exists only while something is being waited for.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, waiting: None }
    }

    /// Passes on what happened; `Err` once nothing has for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, happened: Poll<T>) -> Poll<Result<T, Stalled>> {
        match happened {
            Poll::Ready(value) => {
                self.waiting = None;
                Poll::Ready(Ok(value))
            }
            Poll::Pending => {
                let limit = self.limit;
                let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                sleep.as_mut().poll(context).map(|()| Err(Stalled))
            }
        }
    }
}

/// The other side has not moved for longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("the client stalled")]
pub(crate) struct Stalled;

/// Whether a body ended in an error because nothing of it came in for too long.
#[must_use]
pub fn is_stall(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<Stalled>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct PatientStream<S> {
    inner: S,
    writing: Patience,
}

impl<S> PatientStream<S> {
    pub(crate) fn new(inner: S, write_stall: Duration) -> Self {
        Self { inner, writing: Patience::new(write_stall) }
    }

    fn judge_write<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.writing
            .judge(context, wrote)
            .map(|judged| judged.unwrap_or_else(|stalled| Err(io::Error::new(io::ErrorKind::TimedOut, stalled))))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge_write(context, wrote)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.judge_write(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A request's body. Notes when it is dropped before its end, so that the connection is closed with care.
#[derive(Debug)]
pub(crate) struct PatientBody {
    inner: Incoming,
    reading: Patience,
    unread: Arc<AtomicBool>,
}

impl PatientBody {
    pub(crate) fn new(inner: Incoming, body_stall: Duration, unread: Arc<AtomicBool>) -> Self {
        Self { inner, reading: Patience::new(body_stall), unread }
    }
}

impl Body for PatientBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        self.reading.judge(context, frame).map(|judged| match judged {
            Ok(frame) => frame.map(|frame| frame.map_err(Into::into)),
            Err(stalled) => Some(Err(stalled.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for PatientBody {
    fn drop(&mut self) {
        if !self.inner.is_end_stream() {
            self.unread.store(true, Ordering::Relaxed);
        }
    }
}
