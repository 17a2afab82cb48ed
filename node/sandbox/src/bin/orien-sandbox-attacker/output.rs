//! Attacks by output. The row's own line comes first wherever there is an output to carry it.

use std::io::{self, Write as _};

use crate::attack::Attack;
use crate::bombs::sleep_long;
use crate::raw::{self, Arg};

const PIECE: usize = 64 * 1024;

/// Writes until so many bytes are out, or nobody takes more.
fn pour(mut to: impl io::Write, piece: &[u8], bytes: u64) -> io::Result<u64> {
    let mut out = 0;
    while out < bytes {
        let rest = usize::try_from(bytes - out).unwrap_or(usize::MAX).min(piece.len());
        to.write_all(&piece[..rest])?;
        out += rest as u64;
    }
    to.flush()?;
    Ok(out)
}

pub(crate) fn flood(attack: &mut Attack) {
    let bytes = attack.number("bytes", u64::MAX);
    let line: &[u8] = if attack.number("line", 1) == 1 { b"y\n" } else { b"y" };
    let piece = line.repeat(PIECE / line.len());
    attack.says("flood", true, "follows");
    attack.tell();
    // Whatever ends it is seen by whoever reads.
    let _ = pour(io::stdout().lock(), &piece, bytes);
}

pub(crate) fn errors(attack: &mut Attack) {
    let bytes = attack.number("bytes", u64::MAX);
    let piece = b"e\n".repeat(PIECE / 2);
    attack.says("flood of errors", true, "follows");
    attack.tell();
    if attack.value("mode", "errors") == "both" {
        let other = piece.clone();
        let beside = std::thread::spawn(move || pour(io::stdout().lock(), &other, bytes).is_ok());
        let _ = pour(io::stderr().lock(), &piece, bytes);
        let _ = beside.join();
    } else {
        let _ = raw::call(libc::SYS_close, &mut [Arg::Number(1)]);
        let _ = pour(io::stderr().lock(), &piece, bytes);
    }
}

/// After the line: bytes that are no text, one that ends strings, and orders to a terminal; then a single line without end.
pub(crate) fn bytes(attack: &mut Attack) {
    let bytes = attack.number("bytes", 0);
    attack.says("bytes", true, "follow");
    attack.tell();
    let mut out = io::stdout().lock();
    let odd: Vec<u8> =
        [&b"\xff\xfe\xc3\x28\xed\xa0\x80\0\x1b[2J\x1b]0;title\x07\x1b[31m\r\x08\x7f"[..], &(0..=255).collect::<Vec<u8>>(), b"\n"].concat();
    let _ = out.write_all(&odd).and_then(|()| out.flush());
    let _ = pour(out, &[b'x'; PIECE], bytes);
}

pub(crate) fn hold(attack: &mut Attack) {
    let child = raw::fork();
    if let Ok(None) = child {
        let _ = raw::call(libc::SYS_setsid, &mut []);
        sleep_long();
    }
    attack.note("a process that holds the output", child);
}
