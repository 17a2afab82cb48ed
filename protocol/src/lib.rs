//! What is said between the peers of ORIEN, and what it means: ids, money, signed statements, frames, and the two sides of a session as pure state machines.
//!
//! Nothing here reads a clock, a socket, a disk or a random source: bytes, commands and the time come in, ordered effects go out. A statement that
//! was not checked has another type than one that was, and only the latter reaches a ledger. Signed bytes are laid out by hand and never depend on the wire codec.
//!
//! This crate does not know how peers reach each other, how tools run, or how money is paid out.

#![deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

pub mod binding;
pub mod channel;
pub mod codec;
pub mod credit;
pub mod digest;
pub mod evidence;
pub mod fault;
pub mod frame;
pub mod hash;
pub mod id;
pub mod job;
pub mod ledger;
pub mod merkle;
pub mod money;
pub mod network;
pub mod offer;
pub mod peer;
pub mod receipt;
pub mod session;
pub mod signing;
#[cfg(feature = "sim")]
pub mod sim;
pub mod terms;
pub mod time;
pub mod voucher;
