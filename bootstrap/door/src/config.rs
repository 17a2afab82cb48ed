//! What a door is told when it is opened: where, for whom, and how much of everything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::TlsFiles;

/// Where a door opens and who may come in.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// The address to listen on. Port 0 takes a free one.
    pub address: SocketAddr,
    /// The file that holds the bearer token. Made (0600) if absent; its directory must exist.
    pub token_file: PathBuf,
    /// Names beside the loopback ones that a caller may put into `Host`, as `name` or `name:port`.
    pub extra_hosts: Vec<String>,
    /// Whether an address other than loopback may be used without TLS (`--allow-remote-http`).
    pub allow_remote: bool,
    /// What to encrypt with; needed for any other address without `allow_remote`.
    pub tls: Option<TlsFiles>,
    /// How much of everything.
    pub limits: DoorLimits,
}

impl DoorConfig {
    /// A door for callers on this machine only, with the usual limits.
    #[must_use]
    pub fn local(address: SocketAddr, token_file: PathBuf) -> Self {
        Self { address, token_file, extra_hosts: Vec::new(), allow_remote: false, tls: None, limits: DoorLimits::default() }
    }
}

/// The bounds of a door. Every one closes or refuses; none waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorLimits {
    /// Connections at once. One more takes the place of the one that has been idle for longest; it is answered 503 if a request is in flight on each.
    pub connections: usize,
    /// Connections that wait with the system to be taken in, if it allows as many.
    pub waiting: u32,
    /// Bytes of a request body read by an extractor; a route may set its own with `DefaultBodyLimit`.
    pub body_bytes: usize,
    /// Bytes of a request's line and headers together; less than 8192 counts as that.
    pub header_bytes: usize,
    /// How long a client may take to send a whole request head, idle keep-alive included.
    pub header_timeout: Duration,
    /// How long a request body may bring no byte while it is being read.
    pub body_stall: Duration,
    /// How long a client may take no byte of a response.
    pub write_stall: Duration,
    /// How long an event stream may be silent before a keep-alive is sent.
    pub keep_alive: Duration,
    /// How long requests in flight may take after the door was told to stop.
    pub grace: Duration,
    /// Requests per second of one token; twice as many at once after a pause. More are answered 429.
    pub requests_per_second: u32,
    /// The same for all requests together that come without a good token; they never use up what good ones have.
    pub failures_per_second: u32,
    /// How long a login link works.
    pub login_code: Duration,
    /// How long a browser stays logged in.
    pub login: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            // A console, many agents and their event streams. With the time for which a newcomer is spared it also says how fast a flood is let through: 8,192 a second.
            connections: 2048,
            // Half a second of a flood, so that an honest caller among it waits for that long and not for the second after which the system asks again. It is what Linux allows.
            waiting: 4096,
            // The largest JSON anybody sends is a catalogue-sized config; files go through streaming routes.
            body_bytes: 1024 * 1024,
            // Twice what browsers send at their worst.
            header_bytes: 64 * 1024,
            // A request head is one packet; this is only for the stalled and the idle.
            header_timeout: Duration::from_secs(15),
            body_stall: Duration::from_secs(30),
            // A suspended reader is let go; an event stream can be resumed by id.
            write_stall: Duration::from_secs(60),
            // Below the 30 s after which common proxies cut a silent response.
            keep_alive: Duration::from_secs(15),
            grace: Duration::from_secs(5),
            // Ten times what fifty agents at work need; a loop gone wild is slowed down before it fills the disk with answers.
            requests_per_second: 2000,
            // A client with an old token tries a few times per second; a secret cannot be guessed at any rate.
            failures_per_second: 100,
            // From the terminal to the browser.
            login_code: Duration::from_secs(120),
            // A working day.
            login: Duration::from_secs(12 * 3600),
        }
    }
}
