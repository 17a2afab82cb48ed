//! The door as a client meets it: real sockets, bytes written by hand, one bound door per test.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is the test failing")]

mod admission;
mod answers;
mod bodies;
mod encrypted;
mod events;
mod house;
mod lifecycle;
mod log;
mod login;
mod opening;
mod tokens;
