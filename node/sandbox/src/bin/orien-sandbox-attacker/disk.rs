//! Attacks by files: many, large, deep, and hard to delete.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use crate::attack::Attack;
use crate::files::handle;
use crate::raw::{self, Arg};

const PIECE: usize = 1 << 20;
/// Where nothing stops it.
const BYTES_MAX: u64 = 8 << 30;

fn fill_file(path: &Path) -> (u64, Option<io::Error>) {
    let mut file = match File::create(path) {
        Ok(file) => file,
        Err(error) => return (0, Some(error)),
    };
    let piece = vec![1; PIECE];
    let mut had = 0;
    while had < BYTES_MAX {
        match file.write(&piece) {
            Ok(written) => had += written as u64,
            Err(error) => return (had, Some(error)),
        }
    }
    (had, None)
}

pub(crate) fn fill(attack: &mut Attack) {
    // Beyond a single file's limit there is a signal first; the place as a whole is the question here.
    attack.note("control", raw::ignore(libc::SIGXFSZ));
    for folder in ["/workspace", "/tmp", "/dev/shm", "/var/tmp"] {
        let mut had = 0;
        let mut files = 0;
        let end = loop {
            let path = Path::new(folder).join(format!("fill{files}"));
            let (more, end) = fill_file(&path);
            had += more;
            files += 1;
            // At a single file's limit the next one goes on.
            match end {
                Some(error) if error.raw_os_error() == Some(libc::EFBIG) && more > 0 && had < BYTES_MAX => {}
                end => break end,
            }
        };
        attack.counted(format!("bytes in {folder}"), had, end.as_ref());
        // The next place may be the same one by another name.
        for file in 0..files {
            let _ = fs::remove_file(Path::new(folder).join(format!("fill{file}")));
        }
    }
    // And the room is there again.
    attack.note("write again", fs::write("again", "room"));
}

pub(crate) fn many(attack: &mut Attack) {
    let max = attack.number("max", 100_000);
    for folder in ["/tmp", "/workspace"] {
        let mut made = 0;
        let end = loop {
            if made >= max {
                break None;
            }
            match File::create(Path::new(folder).join(format!("small{made}"))) {
                Ok(_) => made += 1,
                Err(error) => break Some(error),
            }
        };
        attack.counted(format!("files in {folder}"), made, end.as_ref());
    }
}

pub(crate) fn deep(attack: &mut Attack) {
    let depth = attack.number("depth", 100_000);
    let mut reached = 0;
    let end = loop {
        if reached >= depth {
            break None;
        }
        // By its relative name each, so that no path gets too long.
        match fs::create_dir("d").and_then(|()| std::env::set_current_dir("d")) {
            Ok(()) => reached += 1,
            Err(error) => break Some(error),
        }
    };
    attack.counted("directories in each other", reached, end.as_ref());
    attack.note("a file at the bottom", fs::write("bottom", ""));
}

pub(crate) fn resisting(attack: &mut Attack) {
    let closed = |name: &str| {
        fs::create_dir_all(format!("{name}/inside/deeper"))?;
        fs::write(format!("{name}/inside/file"), "held")?;
        for path in [format!("{name}/inside/deeper"), format!("{name}/inside"), name.to_owned()] {
            fs::set_permissions(path, Permissions::from_mode(0o000))?;
        }
        Ok(())
    };
    attack.note("directories with mode 0", closed("closed"));
    let long = "n".repeat(255);
    attack.note("a name of 255 bytes", fs::write(&long, ""));
    attack.note("a name of 256 bytes", fs::write(long + "n", ""));
    let odd: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    attack.note("a name of every byte", fs::write(OsStr::from_bytes(&odd), ""));
    for name in [&b"\n"[..], b" ", b"-rf", b"..x", b"\xff\xfe", b"*", b"\x1b[2J", b"a\\b"] {
        attack.note(format!("the name {:?}", OsStr::from_bytes(name)), fs::write(OsStr::from_bytes(name), ""));
    }
    attack.note("a link to itself", symlink("self", "self"));
    attack.note("a link to nowhere", symlink("/nowhere", "nowhere"));
    let fifo = CString::new("fifo").map_err(io::Error::other);
    let fifo = fifo.and_then(|name| {
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        raw::call(libc::SYS_mknodat, &mut [Arg::Number(here), Arg::Text(&name), Arg::Number(0o010_000), Arg::Number(0)])
    });
    attack.note("a fifo", fifo);
    attack.note("a socket", std::os::unix::net::UnixListener::bind("socket"));
    const SET_FLAGS: u64 = 0x4008_6602;
    for (what, flags) in [("immutable", 0x10_u64), ("append only", 0x20)] {
        let set = File::create(what).and_then(|file| {
            raw::call(libc::SYS_ioctl, &mut [Arg::Number(handle(&file)), Arg::Number(SET_FLAGS), Arg::In(&flags.to_le_bytes())])
        });
        attack.note(what, set);
    }
    let attribute = raw::call(
        libc::SYS_setxattr,
        &mut [Arg::Text(c"socket"), Arg::Text(c"security.capability"), Arg::In(&[0; 20]), Arg::Number(20), Arg::Number(0)],
    );
    attack.note("capabilities of a file", attribute);
}

pub(crate) fn huge(attack: &mut Attack) {
    const TEBI: u64 = 1 << 40;
    attack.note("control", raw::ignore(libc::SIGXFSZ));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open("huge");
    let Some(file) = attack.note("a file", file) else { return };
    attack.note("1 TiB without content", file.set_len(TEBI));
    attack.note("a byte at 1 TiB", file.write_at(b"x", TEBI));
    let allocate =
        |bytes: u64| raw::call(libc::SYS_fallocate, &mut [Arg::Number(handle(&file)), Arg::Number(0), Arg::Number(0), Arg::Number(bytes)]);
    attack.note("1 TiB allocated", allocate(TEBI));
    attack.note("1 GiB allocated", allocate(1 << 30));
    // The signal as it comes to a tool that does not expect it.
    attack.apart("1 TiB without content, in a tool that ignores nothing", || {
        raw::call(libc::SYS_rt_sigaction, &mut [Arg::Number(25), Arg::In(&[0; 32]), Arg::Number(0), Arg::Number(8)])?;
        file.set_len(TEBI).map(|()| 0)
    });
    attack.counted("length in the end", file.metadata().map_or(0, |found| found.len()), None);
}
