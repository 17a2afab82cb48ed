//! The process that holds a session: builds what tools see, then makes a stub for each run the node asks for.
//!
//! Always true: it ends when the node's end of its socket closes, whatever the reason, and everything of the session ends with it,
//! because it is the first process of the session's namespaces. What a run needs of rules and filters is made once per kind of run.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet};

use super::monitor::{Failed, step};
use super::{access, root, seccomp, spare};
use crate::limits::Level;
use crate::packet;
use crate::policy::{Layer, Opening, RunProfile};
use crate::session::{TMP, WORK};
use crate::sys;
use crate::wire::{FromHolder, SetupFailure};

/// What a run of a profile is confined by, ready to be applied.
pub(super) struct Kind {
    pub(super) profile: RunProfile,
    pub(super) landlock: Option<OwnedFd>,
    pub(super) filter: Vec<libc::sock_filter>,
}

/// What all runs of a session share.
pub(super) struct Session<'a> {
    pub(super) opening: &'a Opening,
    pub(super) kinds: Vec<Kind>,
    pub(super) null: OwnedFd,
}

/// What the session's user namespace may have at all. No user namespace inside it, whatever else may fail; and of what no resource
/// limit counts, as much as a build that watches its sources needs.
const BOUNDS: [(&str, &str); 3] = [("max_user_namespaces", "0"), ("max_inotify_instances", "128"), ("max_inotify_watches", "16384")];

/// Holds one session until the node lets go of it.
pub(super) fn run(socket: &OwnedFd, opening: &Opening) -> io::Result<()> {
    let (session, given) = match open(opening) {
        Ok(opened) => opened,
        Err((stage, error)) => {
            let failure = SetupFailure { stage: stage.to_owned(), message: error.to_string() };
            return packet::send(socket, &FromHolder::Failed(failure), &[]);
        }
    };
    let descriptors: Vec<BorrowedFd<'_>> = given.iter().map(|descriptor| descriptor.as_fd()).collect();
    packet::send(socket, &FromHolder::Ready, &descriptors)?;
    drop(descriptors);
    drop(given);
    sys::collect_children_automatically(true);
    spare::serve(&session, socket)
}

/// Builds the session. Answers what the node gets of it.
fn open(opening: &Opening) -> Result<(Session<'_>, Vec<OwnedFd>), Failed> {
    let mut given = Vec::new();
    if opening.level >= Level::S2 {
        rustix::system::sethostname(b"orien").map_err(step("host name"))?;
        given.extend(root::build(opening)?);
        for (file, value) in BOUNDS {
            std::fs::write(format!("/proc/sys/user/{file}"), value).map_err(step("namespace limit"))?;
        }
        given.extend(listen(opening)?);
    }
    let null = std::fs::File::open("/dev/null").map_err(step("devices"))?.into();
    let mut kinds = Vec::new();
    for profile in &opening.profiles {
        kinds.push(kind(opening, profile)?);
    }
    shed(opening)?;
    Ok((Session { opening, kinds, null }, given))
}

fn kind(opening: &Opening, profile: &RunProfile) -> Result<Kind, Failed> {
    let mut kind = Kind { profile: profile.clone(), landlock: None, filter: Vec::new() };
    if opening.level >= Level::S1 && opening.has(Layer::Landlock) {
        let (work, temporary) = places(opening);
        let rules = access::ruleset(opening.level, profile, &work, &temporary);
        kind.landlock = Some(rules.map_err(|why| ("landlock", io::Error::other(why)))?);
    }
    if opening.level >= Level::S1 && opening.has(Layer::Seccomp) {
        let sockets = if profile.port.is_some() { seccomp::Sockets::Internet } else { seccomp::Sockets::Local };
        kind.filter = seccomp::filter(sockets).map_err(|error| ("seccomp", io::Error::other(error)))?;
    }
    Ok(kind)
}

/// Where runs see their workspace and their directory for temporary files.
pub(super) fn places(opening: &Opening) -> (PathBuf, PathBuf) {
    match &opening.directory {
        Some(directory) if opening.level < Level::S2 => (directory.join(WORK), directory.join(TMP)),
        _ => {
            let (work, temporary) = access::inner_places();
            (work.to_owned(), temporary.to_owned())
        }
    }
}

/// Whether a connection may be made by sending. The kernel's access rules are asked at `connect` only, so that would lead past them.
const FAST_OPEN: &str = "/proc/sys/net/ipv4/tcp_fastopen";

/// One listening socket per way out, on the session's own loopback. The node takes what arrives there.
fn listen(opening: &Opening) -> Result<Vec<OwnedFd>, Failed> {
    let ports: Vec<u16> = opening.profiles.iter().filter_map(|profile| profile.port).collect();
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let any = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).map_err(step("network"))?;
    sys::loopback_up(any.as_fd()).map_err(step("network"))?;
    std::fs::write(FAST_OPEN, "0").map_err(step("network"))?;
    let listen = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).map(OwnedFd::from);
    ports.iter().map(listen).collect::<io::Result<_>>().map_err(step("network"))
}

/// Gives up what nothing started from here may ever have. The holder itself keeps what it needs to make a run's namespaces.
fn shed(opening: &Opening) -> Result<(), Failed> {
    if opening.level >= Level::S2 && opening.has(Layer::Capabilities) {
        let bits = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        rustix::thread::set_capabilities_secure_bits(bits).map_err(step("capabilities"))?;
        rustix::thread::clear_ambient_capability_set().map_err(step("capabilities"))?;
        for capability in CapabilitySet::all().iter() {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // Newer than this kernel.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => return Err(("capabilities", error.into())),
            }
        }
    }
    // When the host runs out of memory, a session is to go before the node or anything else. Tools cannot take it back.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    rustix::thread::set_no_new_privs(true).map_err(step("privileges"))?;
    // Tools of this session run as the same user; this keeps them out of our memory and descriptors.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("privileges"))
}
