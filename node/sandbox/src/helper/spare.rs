//! How stubs come to be: one is always ready before its run is asked for, so that making it is not part of a run's start.
//!
//! Always true: a stub serves one run and then ends; nothing of one run is in another's. A spare one waits on the session's own socket
//! for its order, so the holder is not even woken for it, and it ends with the socket. Where runs have control groups they are
//! started into them, and then stubs are made when the order, which brings the group, is there.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;

use super::holder::Session;
use super::stub;
use crate::limits::Level;
use crate::packet;
use crate::sys;
use crate::wire::{self, Ending, Event, SetupFailure, ToHolder};

/// An order is a word and a number. Little memory is touched for it: each page would have to be copied again after every start.
const ORDER_BYTES_MAX: usize = 256;

/// An order with its descriptors.
pub(super) struct Order {
    pub(super) profile: usize,
    pub(super) control: UnixStream,
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
    /// Of a run that has one.
    pub(super) input: Option<OwnedFd>,
    group: Option<OwnedFd>,
}

/// Serves orders until the node lets go of the session.
pub(super) fn serve(session: &Session<'_>, socket: &OwnedFd) -> io::Result<()> {
    if session.opening.groups { serve_in_groups(session, socket) } else { serve_from_spares(session, socket) }
}

fn serve_in_groups(session: &Session<'_>, socket: &OwnedFd) -> io::Result<()> {
    while let Some(order) = receive(socket)? {
        match sys::clone_into(namespaces(session), order.group.as_ref().map(|group| group.as_fd())) {
            Ok(Some(_)) => {}
            Ok(None) => {
                // So that the group looks like the only one from inside. What a failure would show is a name of ours.
                let _ = sys::unshare(libc::CLONE_NEWCGROUP);
                stub::Ready::prepare(session).run(session, order);
                sys::exit_now(0);
            }
            Err(error) => refuse(order.control, "clone", &error),
        }
    }
    Ok(())
}

fn serve_from_spares(session: &Session<'_>, socket: &OwnedFd) -> io::Result<()> {
    loop {
        // Closes when the spare has its order, or has ended for whatever reason; says more only of nonsense.
        let (taken, waiting) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        match sys::clone_into(namespaces(session), None) {
            Ok(Some(_)) => drop(waiting),
            Ok(None) => {
                drop(taken);
                let ready = stub::Ready::prepare(session);
                match receive(socket) {
                    Ok(Some(order)) => {
                        drop(waiting);
                        ready.run(session, order);
                    }
                    // At the end of the socket there is nobody to serve.
                    Ok(None) => {}
                    // Whoever speaks nonsense is not our node.
                    Err(_) => drop(rustix::io::write(&waiting, NONSENSE)),
                }
                sys::exit_now(0);
            }
            Err(error) => {
                let Some(order) = receive(socket)? else { return Ok(()) };
                refuse(order.control, "clone", &error);
                continue;
            }
        }
        if !wait(socket.as_fd(), taken.as_fd())? {
            return Ok(());
        }
    }
}

/// What a spare says of an order that is none.
const NONSENSE: &[u8] = b"?";

/// True when a new spare is wanted, false when the node has let go or is not one.
fn wait(socket: BorrowedFd<'_>, taken: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        // Of the socket only its end is of interest here; what arrives on it is for the spare.
        let mut watched = [PollFd::from_borrowed_fd(socket, PollFlags::empty()), PollFd::from_borrowed_fd(taken, PollFlags::IN)];
        match rustix::event::poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) if !watched[0].revents().is_empty() => return Ok(false),
            Ok(_) if !watched[1].revents().is_empty() => return Ok(rustix::io::read(taken, &mut [0])? == 0),
            Ok(_) => {}
        }
    }
}

fn namespaces(session: &Session<'_>) -> i32 {
    if session.opening.level >= Level::S2 { sys::RUN_NAMESPACES } else { 0 }
}

/// The next order; `None` at the end of the socket. One without its descriptors is nobody's.
fn receive(socket: &OwnedFd) -> io::Result<Option<Order>> {
    let mut body = [0; ORDER_BYTES_MAX];
    loop {
        let Some((ToHolder::Run { profile, input }, descriptors)) = packet::receive_into::<ToHolder>(socket, &mut body)? else {
            return Ok(None);
        };
        let mut descriptors = descriptors.into_iter();
        if let (Some(control), Some(output), Some(errors)) = (descriptors.next(), descriptors.next(), descriptors.next()) {
            let given = if input { descriptors.next().map(Some) } else { Some(None) };
            let Some(input) = given else { continue };
            let control = UnixStream::from(control);
            return Ok(Some(Order { profile, control, output, errors, input, group: descriptors.next() }));
        }
    }
}

/// Tells the node on the run's own socket that there will be no run.
fn refuse(mut control: UnixStream, stage: &str, error: &io::Error) {
    use std::io::Write as _;
    let failure = SetupFailure { stage: stage.to_owned(), message: error.to_string() };
    // A node that does not read it will see the end of the socket instead.
    if let Ok(frame) = wire::encode(&Event::Ended(Ending::never_began(failure))) {
        let _ = control.write_all(&frame);
    }
}
