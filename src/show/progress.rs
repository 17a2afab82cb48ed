//! What goes on, on standard error: a bar on a terminal, one line at the end elsewhere, nothing when asked to be quiet.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::interrupt::Interrupt;

/// How often a bar is drawn again although nothing happened.
const TICK: Duration = Duration::from_millis(120);

/// Tells a person how far something is.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl Progress {
    /// For something of unknown length.
    pub(crate) fn spinner(quiet: bool) -> Self {
        let bar = if is_drawn(quiet) { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.enable_steady_tick(TICK);
        Self { bar: bar.with_finish(ProgressFinish::AndClear), interrupt: Interrupt::default() }
    }

    /// For bytes that are moved until somebody wants to stop.
    pub(crate) fn bytes(total: u64, quiet: bool, interrupt: Interrupt) -> Self {
        let bar = if is_drawn(quiet) { ProgressBar::new(total) } else { ProgressBar::hidden() };
        let template = "{msg:20!} {bar:20} {bytes:>10}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar: bar.with_finish(ProgressFinish::AndClear), interrupt }
    }

    /// What is being done; on a terminal only while it is.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// So many more bytes are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Nothing more is drawn.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// A reader whose bytes are counted.
    pub(crate) fn reading<R: Read>(&self, inner: R) -> Counted<R> {
        Counted { inner, progress: self.clone() }
    }
}

fn is_drawn(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
}

/// A stream whose bytes are counted.
pub(crate) struct Counted<T> {
    inner: T,
    progress: Progress,
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.progress.interrupt.is_hit() {
            return Err(std::io::Error::other("interrupted"));
        }
        let count = self.inner.read(buffer)?;
        self.progress.add(u64::try_from(count).unwrap_or(0));
        Ok(count)
    }
}
