//! The door itself: opened once, then served until it is told to stop.
//!
//! Always true: nothing listens beyond loopback unless the operator said so; when [`Door::serve`] returns, no
//! connection and no task of it is left.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::auth::Auth;
use crate::config::{DoorConfig, DoorLimits};
use crate::connection::{self, Serving};
use crate::guard::Guard;
use crate::host::Hosts;
use crate::login::Logins;
use crate::own::{self, Own};
use crate::places::{Offered, Places};
use crate::reentry::WayIn;
use crate::request::RequestIds;
use crate::tls::{self, TlsError};
use crate::token::{Token, TokenFileError};
use crate::tokens::{self, Tokens, TokensFileError};

/// Connections beyond the limit that are being told so at once; any more are dropped without a word.
const REFUSALS_MAX: usize = 32;

/// The least wait for somebody to leave: less is spinning.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// How long accepting rests after a failure: long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Failures in a row after which the listener is given up: a minute of them, longer than a shortage of descriptors lasts.
const ACCEPT_FAILURES_MAX: u32 = 300;

/// A door that listens but lets nobody in yet.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
    auth: Auth,
    hosts: Hosts,
    ids: RequestIds,
    tls: Option<TlsAcceptor>,
    limits: DoorLimits,
}

impl fmt::Debug for Door {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Door").field("address", &self.address).field("has_tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Door {
    /// Reads or makes the token, and listens.
    ///
    /// # Errors
    /// The address is not loopback and that was not allowed, it is in use or unusable, the token file is unusable, or
    /// an extra host is not a host.
    pub async fn bind(config: DoorConfig) -> Result<Self, OpenDoorError> {
        let DoorConfig { address, token_file, extra_hosts, allow_remote, tls, limits } = config;
        if !address.ip().to_canonical().is_loopback() && !allow_remote && tls.is_none() {
            return Err(OpenDoorError::RemoteNotAllowed { address });
        }
        let tls = tls.map(|files| tls::acceptor(&files)).transpose()?;
        let token = Token::read_or_create(&token_file)?;
        let listener = listen(address, limits.waiting).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => OpenDoorError::AddressInUse { address },
            _ => OpenDoorError::Listen { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| OpenDoorError::Listen { address, source })?;
        let hosts = Hosts::new(address, &extra_hosts).map_err(|host| OpenDoorError::BadExtraHost { host })?;
        let ids = RequestIds::new().map_err(|_| OpenDoorError::Random)?;
        let tokens = Tokens::load(tokens::file_beside(&token_file), limits.requests_per_second)?;
        let logins = Logins::new(address.port(), limits.login_code, limits.login);
        let auth = Auth::new(token, token_file, tokens, logins, &limits);
        Ok(Self { listener, address, auth, hosts, ids, tls, limits })
    }

    /// What each route takes; see [`Access`] for what is not named.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.auth.access = access;
        self
    }

    /// Lets anyone on an allowed host read (GET and HEAD) the route with this path, as it was given to the router.
    #[must_use]
    pub fn open_route(mut self, path: impl Into<String>) -> Self {
        self.auth.access = std::mem::take(&mut self.auth.access).open(path);
        self
    }

    /// The tokens that were made for others.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.auth.tokens
    }

    /// The address it listens on, with the port it got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file a caller finds the token in.
    #[must_use]
    pub fn token_file(&self) -> &Path {
        &self.auth.token_file
    }

    /// The token itself.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.auth.token
    }

    /// Serves `router`, and the door's own routes beside it (tokens, login), until `cancel`; then stops accepting, ends event streams, lets requests in flight finish within
    /// the grace, and closes what is left.
    ///
    /// # Errors
    /// The listener failed for good.
    pub async fn serve(self, router: Router, cancel: CancellationToken) -> Result<(), ServeError> {
        let Self { listener, address, mut auth, hosts, ids, tls, limits } = self;
        auth.access = own::access(auth.access);
        let tokens = auth.tokens.clone();
        let router = router.merge(own::routes(Own { tokens: tokens.clone(), logins: Arc::clone(&auth.logins) }));
        // Cancelled also when the listener fails, so that streams end in either case.
        let stop = cancel.child_token();
        let way_in = WayIn::default();
        let guard = Guard { auth, hosts, ids, way_in: way_in.clone(), stop: stop.clone(), keep_alive: limits.keep_alive };
        let router = guard.around(router, limits.body_bytes);
        way_in.open(router.clone());
        let mut connections = Connections {
            tasks: JoinSet::new(),
            places: Places::new(limits.connections),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            serving: Serving { router, limits, tls, stop: stop.clone() },
        };
        let served = connections.accept(&listener).await;
        drop(listener);
        stop.cancel();
        connections.finish().await;
        way_in.close();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || tokens.save()).await {
            tracing::warn!(%error, "when tokens were last used is not kept");
        }
        served.map_err(|source| ServeError::Listener { address, source })
    }
}

/// Listens with room for so many that are not taken in yet.
fn listen(address: SocketAddr, waiting: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A door that is opened again does not wait for the connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(waiting)
}

/// The connections of a door that is being served.
struct Connections {
    tasks: JoinSet<()>,
    places: Arc<Places>,
    refusals: Arc<Semaphore>,
    serving: Serving,
}

impl Connections {
    /// Takes in connections until told to stop, or until the listener is of no more use.
    async fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        let mut failures = 0_u32;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.serving.stop.cancelled() => return Ok(()),
                Some(ended) = self.tasks.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    failures = 0;
                    self.take_in(stream, peer).await;
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(%error, "cannot accept a connection; trying on");
                    }
                    if failures >= ACCEPT_FAILURES_MAX {
                        return Err(error);
                    }
                    self.pause(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = self.serving.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Gives a newcomer a place. Those behind it wait with the system for as long as somebody is about to leave.
    async fn take_in(&mut self, stream: TcpStream, peer: SocketAddr) {
        while !self.serving.stop.is_cancelled() {
            match self.places.offer() {
                Offered::Place(place) => {
                    self.tasks.spawn(connection::serve(stream, peer, place, self.serving.clone()));
                    return;
                }
                Offered::Later(wait) => self.pause(wait.max(WAIT_MIN)).await,
                Offered::Nothing => return self.refuse(stream),
            }
        }
    }

    fn refuse(&mut self, stream: TcpStream) {
        let limits = self.serving.limits;
        if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
            tracing::warn!(limit = limits.connections, "a request is in flight on every connection there can be; one more is refused");
            self.tasks.spawn(async move {
                connection::refuse(stream, limits).await;
                drop(place);
            });
        }
    }

    /// Waits for connections to end, but not for ever.
    async fn finish(mut self) {
        let ended = tokio::time::timeout(self.serving.limits.grace, async {
            while let Some(ended) = self.tasks.join_next().await {
                report(ended);
            }
        });
        if ended.await.is_err() {
            tracing::warn!(open = self.tasks.len(), "closing connections that did not end within the grace");
            self.tasks.shutdown().await;
        }
    }
}

/// Whether an accept failed because of the one client that had called.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended with a panic");
    }
}

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDoorError {
    /// The address can be reached from other machines, and nobody allowed that.
    #[error(
        "{address} can be reached from other machines and this door has no TLS; use a loopback address, give it a certificate with --tls-cert and \
         --tls-key, or allow it with --allow-remote-http if something in front of it speaks TLS"
    )]
    RemoteNotAllowed {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Somebody else listens there.
    #[error("{address} is already in use; stop the other program or choose another port")]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// An extra host is not a host name, with or without a port.
    #[error("the extra host '{host}' is not a host name or name:port")]
    BadExtraHost {
        /// What was given.
        host: String,
    },
    /// The token file is unusable.
    #[error(transparent)]
    Token(#[from] TokenFileError),
    /// The certificate or its key is unusable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of the other tokens is unusable.
    #[error(transparent)]
    Tokens(#[from] TokensFileError),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for request ids")]
    Random,
}

/// Why a door stopped without having been told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed for longer than a shortage lasts.
    #[error("the listener on {address} failed for good: {source}")]
    Listener {
        /// Where it listened.
        address: SocketAddr,
        /// The last failure.
        source: io::Error,
    },
}
