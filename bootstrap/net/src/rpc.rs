//! Small questions: one frame there, one frame back, on a stream of their own.
//!
//! A frame is a 32-bit big-endian length and that many bytes. A length above the limit is refused before anything is allocated, and memory
//! grows only with bytes that have really arrived.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;

/// Largest request in bytes: a page of questions or a bundle of receipts, not a file.
pub const REQUEST_LIMIT: usize = 256 * 1024;

/// Largest answer in bytes: a page of the catalogue.
pub const RESPONSE_LIMIT: usize = 1024 * 1024;

/// Reads and writes the frames of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing;

impl Codec for Framing {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, REQUEST_LIMIT).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io, RESPONSE_LIMIT).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &request, REQUEST_LIMIT).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &response, RESPONSE_LIMIT).await
    }
}

async fn read_frame<T: AsyncRead + Unpin + Send>(io: &mut T, limit: usize) -> io::Result<Vec<u8>> {
    let mut length = [0_u8; 4];
    io.read_exact(&mut length).await?;
    let announced = u32::from_be_bytes(length);
    if usize::try_from(announced).map_or(true, |announced| announced > limit) {
        return Err(too_large(limit));
    }
    let mut frame = Vec::new();
    io.take(u64::from(announced)).read_to_end(&mut frame).await?;
    if u32::try_from(frame.len()) == Ok(announced) { Ok(frame) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn write_frame<T: AsyncWrite + Unpin + Send>(io: &mut T, frame: &[u8], limit: usize) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= limit).ok_or_else(|| too_large(limit))?;
    io.write_all(&length.to_be_bytes()).await?;
    io.write_all(frame).await?;
    io.flush().await
}

fn too_large(limit: usize) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("frame above the limit of {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    #[tokio::test]
    async fn a_frame_comes_back_as_it_was_written() {
        let mut wire = Cursor::new(Vec::new());
        write_frame(&mut wire, b"hello", 5).await.unwrap();
        wire.set_position(0);
        assert_eq!(read_frame(&mut wire, 5).await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_length_above_the_limit_is_refused_by_both_sides() {
        assert_eq!(write_frame(&mut Cursor::new(Vec::new()), b"hello", 4).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let mut wire = Cursor::new(u32::MAX.to_be_bytes().to_vec());
        assert_eq!(read_frame(&mut wire, REQUEST_LIMIT).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn a_cut_frame_is_an_end_of_file() {
        let mut wire = Cursor::new([0, 0, 0, 9, 1, 2].to_vec());
        assert_eq!(read_frame(&mut wire, 100).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
