//! The node's side of a session's helper: starts it, hands it its policy, and asks it for runs.
//!
//! Always true: the node forks nothing and runs no code between fork and exec; it starts its own program again, by `posix_spawn`, with
//! an empty environment and one socket. When this handle is dropped, for whatever reason, the socket closes, and the helper and
//! everything below it ends.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::groups::SessionGroup;
use crate::helper::INIT;
use crate::packet;
use crate::policy::Opening;
use crate::sys;
use crate::wire::{FromHolder, SetupFailure, ToHolder};

/// Building a session takes milliseconds; a host under heavy load may need a second.
const OPEN_TIME_MAX: Duration = Duration::from_secs(20);
/// A helper that does not read for this long is stuck in the kernel.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);
/// The kernel's own clearing of a session's namespaces.
const END_TIME_MAX: Duration = Duration::from_secs(20);

/// A session's helper.
#[derive(Debug)]
pub(crate) struct Holding {
    socket: AsyncFd<OwnedFd>,
    child: Child,
}

impl Holding {
    /// Starts a helper and waits until its session is built. Answers what it gave: see [`FromHolder::Ready`].
    pub(crate) async fn open(helper: &Path, opening: &Opening, group: Option<&SessionGroup>) -> Result<(Self, Vec<OwnedFd>), SetupFailure> {
        let failed = |stage: &str, error: io::Error| SetupFailure { stage: stage.to_owned(), message: error.to_string() };
        let mut holding = Self::start(helper).map_err(|error| failed("helper", error))?;
        // Before it is told anything: it waits for its policy, so all that it starts will be in the group too.
        if let (Some(group), Some(process)) = (group, holding.process()) {
            group.admit(process).map_err(|error| failed("control groups", error))?;
        }
        let answered = timeout(OPEN_TIME_MAX, holding.exchange(opening)).await;
        let answered = answered.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
        match answered.map_err(|error| failed("helper", error))? {
            Some((FromHolder::Ready, given)) => Ok((holding, given)),
            Some((FromHolder::Failed(failure), _)) => Err(failure),
            None => {
                let ended = timeout(END_TIME_MAX, holding.child.wait()).await;
                let how =
                    ended.map_or_else(|_| "went silent".to_owned(), |status| status.map_or_else(|e| e.to_string(), |s| s.to_string()));
                Err(SetupFailure { stage: "helper".to_owned(), message: format!("it ended without a word: {how}") })
            }
        }
    }

    fn start(helper: &Path) -> io::Result<Self> {
        let (ours, theirs) = packet::pair()?;
        let socket = sys::watched(ours)?;
        let mut command = Command::new(helper);
        // Other processes can read the name it was called by; the path of the program is the host's business.
        command.arg0("orien").arg(INIT).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        Ok(Self { socket, child })
    }

    async fn exchange(&self, opening: &Opening) -> io::Result<Option<(FromHolder, Vec<OwnedFd>)>> {
        self.socket.async_io(Interest::WRITABLE, |socket| packet::send(socket, opening, &[])).await?;
        self.socket.async_io(Interest::READABLE, |socket| packet::receive(socket)).await
    }

    /// Asks for the stub of a run, with the run's descriptors.
    pub(crate) async fn run(&self, profile: usize, input: bool, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let order = ToHolder::Run { profile, input };
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| packet::send(socket, &order, descriptors));
        timeout(SEND_TIME_MAX, sent).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Its process number.
    pub(crate) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Tells the helper to end without waiting for it.
    pub(crate) fn let_go(&self) {
        // Refused only when the other side is gone already.
        let _ = rustix::net::shutdown(self.socket.get_ref().as_fd(), rustix::net::Shutdown::Both);
    }

    /// Back when the helper has ended, or is ending.
    pub(crate) async fn gone(&self) {
        loop {
            match self.socket.async_io(Interest::READABLE, |socket| packet::receive::<FromHolder>(socket)).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Ends the helper and waits until nothing of the session is left.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        self.let_go();
        if let Ok(ended) = timeout(END_TIME_MAX, self.child.wait()).await {
            return ended.map(drop);
        }
        self.child.start_kill()?;
        timeout(END_TIME_MAX, self.child.wait()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(drop)
    }
}
