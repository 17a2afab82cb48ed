//! A body on its way into an input: what was read of it and not taken yet, by its offsets in the whole input.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use orien_protocol::frame::INPUT_CHUNK_LIMIT;

use crate::body::BodyError;

/// See the module.
#[derive(Debug)]
pub(super) struct Cargo<B> {
    body: B,
    held: BytesMut,
    /// Offset of the first byte that is held, or that will be.
    first: u64,
    /// Offset of the next byte of the body.
    read: u64,
    is_whole: bool,
    failure: Option<BodyError>,
}

impl<B> Cargo<B>
where
    B: Stream<Item = Result<Bytes, BodyError>> + Unpin,
{
    /// A body whose first byte has this offset.
    pub(super) fn new(body: B, begin: u64) -> Self {
        Self { body, held: BytesMut::new(), first: begin, read: begin, is_whole: false, failure: None }
    }

    /// Reads one more piece of the body. May be given up and called again without loss.
    pub(super) async fn load(&mut self) {
        match self.body.next().await {
            Some(Ok(mut piece)) => {
                let begin = self.read;
                self.read = begin.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                let known = usize::try_from(self.first.saturating_sub(begin)).unwrap_or(usize::MAX);
                piece.advance(known.min(piece.len()));
                self.held.extend_from_slice(&piece);
            }
            Some(Err(error)) => {
                self.failure = Some(error);
                self.is_whole = true;
            }
            None => self.is_whole = true,
        }
    }

    /// The provider has everything before an offset.
    pub(super) fn taken(&mut self, total: u64) {
        let count = usize::try_from(total.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.held.advance(count.min(self.held.len()));
        self.first = self.first.max(total);
    }

    /// What is held from an offset on, as much as fits into a frame; none if nothing is.
    pub(super) fn from(&self, offset: u64) -> Option<Vec<u8>> {
        let skip = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        let rest = self.held.get(skip..).filter(|rest| !rest.is_empty())?;
        Some(rest.get(..rest.len().min(INPUT_CHUNK_LIMIT)).unwrap_or_default().to_vec())
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing more comes of the body.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether the whole body was read, without a failure, and ends at an offset.
    pub(super) fn is_all(&self, total: u64) -> bool {
        self.is_whole && self.failure.is_none() && self.read == total
    }

    /// Why the body broke off, if it did.
    pub(super) const fn failure(&self) -> Option<&BodyError> {
        self.failure.as_ref()
    }

    /// How long the input is with all that was read.
    pub(super) const fn length(&self) -> u64 {
        self.read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cargo(begin: u64, pieces: &[&'static str]) -> Cargo<impl Stream<Item = Result<Bytes, BodyError>> + Unpin> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        Cargo::new(futures::stream::iter(pieces), begin)
    }

    #[tokio::test]
    async fn what_was_taken_goes_and_the_rest_is_found_by_its_offset() {
        let mut cargo = cargo(10, &["abc", "def"]);
        cargo.load().await;
        assert_eq!(cargo.from(10).as_deref(), Some(&b"abc"[..]));
        cargo.taken(12);
        assert_eq!((cargo.from(10), cargo.from(12).as_deref(), cargo.from(13)), (None, Some(&b"c"[..]), None));
        cargo.load().await;
        assert_eq!(cargo.from(13).as_deref(), Some(&b"def"[..]));
        assert_eq!((cargo.held(), cargo.length(), cargo.is_whole()), (4, 16, false));
        cargo.load().await;
        assert!(cargo.is_whole() && cargo.failure().is_none());
    }

    #[tokio::test]
    async fn what_the_provider_has_already_is_read_and_not_held() {
        let mut cargo = cargo(0, &["abc", "def", "ghi"]);
        cargo.taken(4);
        cargo.load().await;
        assert_eq!((cargo.held(), cargo.length()), (0, 3));
        cargo.load().await;
        assert_eq!(cargo.from(4).as_deref(), Some(&b"ef"[..]));
        cargo.taken(8);
        cargo.load().await;
        assert_eq!(cargo.from(8).as_deref(), Some(&b"i"[..]));
    }

    #[tokio::test]
    async fn a_long_body_goes_in_frames_of_the_allowed_length() {
        let long = vec![7; INPUT_CHUNK_LIMIT + 1];
        let mut cargo = Cargo::new(futures::stream::iter([Ok::<_, BodyError>(Bytes::from(long))]), 0);
        cargo.load().await;
        let lengths = [0, INPUT_CHUNK_LIMIT as u64].map(|offset| cargo.from(offset).map(|bytes| bytes.len()));
        assert_eq!(lengths, [Some(INPUT_CHUNK_LIMIT), Some(1)]);
    }
}
