//! Facts about the protocol: exact bytes, exact sums, and two machines talking to each other.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is the test failing")]

mod answering;
mod answers;
mod corners;
mod crossing;
mod decoding;
mod ending;
mod evidence;
mod golden;
mod jobs;
mod kit;
mod ledger;
mod letting_go;
mod limits;
mod metering;
mod money;
mod opening;
mod pair;
mod reserving;
mod restart;
mod schedules;
mod sealing;
mod signatures;
mod working;
