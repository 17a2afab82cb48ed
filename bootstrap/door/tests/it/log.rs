//! The log of the whole test program. One for all tests: a log per test would miss lines, because whether a place in
//! the code logs at all is remembered for the process.

use std::io::{self, Write};
use std::sync::{LazyLock, Mutex};

use tracing_subscriber::filter::LevelFilter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static BEGUN: LazyLock<bool> =
    LazyLock::new(|| tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false).with_writer(|| Log).try_init().is_ok());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes sure that whatever is logged from now on is kept.
pub(crate) fn begin() {
    assert!(*BEGUN);
}

/// All that was logged so far, by all tests.
pub(crate) fn text() -> String {
    String::from_utf8(LINES.lock().unwrap().clone()).unwrap()
}
