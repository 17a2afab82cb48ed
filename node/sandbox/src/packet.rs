//! Messages with descriptors between the node and the helper of a session.
//!
//! Always true: a message is whole or it is an error (the socket keeps boundaries); descriptors arrive closed-on-exec, and more than
//! [`DESCRIPTORS_MAX`] of them are refused by the kernel's own truncation mark.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A policy with all its profiles is a few kilobytes.
pub(crate) const PACKET_BYTES_MAX: usize = 64 * 1024;
/// A run has four; a session one for its files and one per way out.
pub(crate) const DESCRIPTORS_MAX: usize = 64;

/// Both ends, closed on exec, the first one non-blocking for the node's runtime.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (node, helper) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&node, true)?;
    Ok((node, helper))
}

/// Sends one message.
pub(crate) fn send<T: Serialize>(socket: impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > PACKET_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&body)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == body.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one message of any length. `None` at the end of the socket.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    receive_into(socket, &mut vec![0; PACKET_BYTES_MAX])
}

/// Receives one message of at most the length of `body`.
pub(crate) fn receive_into<T: DeserializeOwned>(socket: impl AsFd, body: &mut [u8]) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(body)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was cut off"));
    }
    let message = serde_json::from_slice(body.get(..received.bytes).unwrap_or_default())?;
    Ok(Some((message, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_boundaries_and_its_descriptors() {
        let (node, helper) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&node, &"one", &[file.as_fd(), file.as_fd()]).unwrap();
        send(&node, &"two", &[]).unwrap();
        let (first, descriptors) = receive::<String>(&helper).unwrap().unwrap();
        assert_eq!((first.as_str(), descriptors.len()), ("one", 2));
        assert_eq!(receive::<String>(&helper).unwrap().unwrap().0, "two");
        drop(node);
        assert!(receive::<String>(&helper).unwrap().is_none());
    }

    #[test]
    fn nonsense_and_too_long_messages_are_errors() {
        let (node, helper) = pair().unwrap();
        rustix::net::send(&node, b"\xff{", SendFlags::empty()).unwrap();
        assert!(receive::<String>(&helper).is_err());
        assert!(send(&node, &"x".repeat(PACKET_BYTES_MAX), &[]).is_err());
        rustix::net::send(&node, &vec![b' '; PACKET_BYTES_MAX + 1], SendFlags::empty()).unwrap();
        assert!(receive::<String>(&helper).is_err());
    }
}
