//! A tool's standard input, where its run has one: the writing end of a pipe.
//!
//! Always true: nothing is kept here; a tool that does not read makes the writer wait and nobody else. Whoever drops it ends the input.
//! The pipe itself may be opened again by its reader, for reading only, as tools do that are told to read `/dev/stdin`.

use std::io::{self, PipeReader};

use rustix::fs::Mode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;

/// The writing end of a tool's standard input.
#[derive(Debug)]
pub struct Input(Sender);

impl Input {
    /// Makes a pipe: the tool's end and ours.
    pub(super) fn open() -> io::Result<(PipeReader, Self)> {
        let (reader, writer) = std::io::pipe()?;
        // A tool is another user than the one who made the pipe, so by its name it could not be opened at all.
        rustix::fs::fchmod(&reader, Mode::RUSR | Mode::RGRP | Mode::ROTH)?;
        Ok((reader, Self(Sender::from_owned_fd(writer.into())?)))
    }

    /// Writes what the pipe takes now, or waits until it takes something. Answers how much; an error means that nobody reads any
    /// more. May be given up: then nothing was written.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).await
    }
}
