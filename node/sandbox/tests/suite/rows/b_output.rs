//! Output and input: floods, nobody who reads, bytes that are no text, an end that is held open.

use std::time::Duration;

use orien_sandbox::{Cause, OnOutputLimit, Stream};

use crate::verdict::{Is, Told};
use crate::world::{PATIENCE, finish, python, row, run};

const MEBI: u64 = 1 << 20;

#[test]
fn b11_a_flood_is_cut_off_or_thrown_away() {
    row(async |world| {
        let session = world.session().await;
        for line in ["line=0", "line=1"] {
            let mut spec = world.spec(&["B11", line]);
            spec.limits.output_bytes = MEBI;
            let done = run(&session, spec.clone()).await;
            assert_eq!(done.report.cause, Cause::OutputLimit);
            assert!(done.report.output_truncated && done.stdout.len() as u64 == MEBI, "{:?}", done.report);
            assert!(done.report.stdout_bytes > MEBI);
            Told::read(&done.stdout).judge(&[("flood", Is::Done)]);
            spec.args.push("bytes=20000000".to_owned());
            spec.limits.on_output_limit = OnOutputLimit::Drain;
            let done = run(&session, spec).await;
            assert!(done.report.success() && done.report.output_truncated, "{:?}", done.report);
            assert!(done.stdout.len() as u64 == MEBI && done.report.stdout_bytes > 20_000_000);
        }
        world.close(session).await;
    });
}

#[test]
fn b12_errors_without_output_and_both_at_once_end() {
    row(async |world| {
        let session = world.session().await;
        let done = run(&session, world.spec(&["B12", "mode=errors", "bytes=3000000"])).await;
        assert!(done.report.success() && done.stderr.len() == 3_000_000, "{:?}", done.report);
        let done = run(&session, world.spec(&["B12", "mode=both", "bytes=3000000"])).await;
        assert!(done.report.success() && done.stderr.len() == 3_000_000 && done.stdout.len() > 3_000_000, "{:?}", done.report);
        // A reader that takes its time.
        let mut execution = session.start(world.spec(&["B12", "mode=both", "bytes=1000000"])).await.unwrap();
        let mut output = execution.output().unwrap();
        let mut had = 0;
        while let Some(chunk) = tokio::time::timeout(PATIENCE, output.recv()).await.unwrap() {
            had += chunk.bytes.len();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(execution.wait().await.success() && had > 2_000_000, "{had}");
        // And one that never reads: the tool waits, and can be killed.
        let mut spec = world.spec(&["B12", "mode=both", "bytes=50000000"]);
        spec.limits.wall = Duration::from_millis(500);
        let mut execution = session.start(spec).await.unwrap();
        let _kept = execution.output();
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(_kept);
        assert_eq!(tokio::time::timeout(PATIENCE, execution.wait()).await.unwrap().cause, Cause::TimedOut);
        world.close(session).await;
    });
}

#[test]
fn b13_bytes_arrive_as_they_are() {
    row(async |world| {
        let session = world.session().await;
        let mut spec = world.spec(&["B13", "bytes=10000000"]);
        spec.limits.output_bytes = 16 * MEBI;
        let done = run(&session, spec).await;
        assert!(done.report.success() && !done.report.output_truncated);
        let begins = done.stdout.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let odd = &b"\xff\xfe\xc3\x28\xed\xa0\x80\0\x1b[2J\x1b]0;title\x07\x1b[31m\r\x08\x7f"[..];
        let all: Vec<u8> = (0..=255).collect();
        let expected = [odd, &all, b"\n", &[b'x'; 10_000_000]].concat();
        assert!(done.stdout[begins..] == expected[..], "changed on its way");
        world.close(session).await;
    });
}

#[test]
fn b14_the_report_comes_though_somebody_holds_the_output() {
    row(async |world| {
        let session = world.session().await;
        let told = world.attack(&session, &["B14"]).await;
        told.judge(&[("a process that holds the output", Is::Done)]);
        world.close(session).await;
    });
}

/// Gives its output to another run of its session, and ends. The other writes to it for as long as it may.
const HANDS_OVER: &str = "
import socket
with socket.socket(socket.AF_UNIX) as s:
    s.bind('door'); s.listen(); other, _ = s.accept()
    print('own', flush=True)
    socket.send_fds(other, [b'x'], [1]); other.recv(1)
";
const TAKES_OVER: &str = "
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
while True:
    try: s.connect('door'); break
    except OSError: time.sleep(0.01)
_, (taken,), _, _ = socket.recv_fds(s, 1, 1)
os.write(taken, b'y'); s.send(b'x')
while True:
    os.write(taken, b'y' * int(sys.argv[1])); time.sleep(float(sys.argv[2]))
";

#[test]
fn b14_the_report_comes_though_another_run_goes_on_writing_to_the_output() {
    for (bytes, pause) in [("1", "0.1"), ("65536", "0")] {
        row(async |world| {
            let session = world.session().await;
            let mut other = python(TAKES_OVER);
            other.args.extend([bytes.to_owned(), pause.to_owned()]);
            other.limits.wall = PATIENCE;
            let mut other = session.start(other).await.unwrap();
            let done = tokio::time::timeout(PATIENCE / 6, run(&session, python(HANDS_OVER))).await.expect("it is held up");
            assert!(done.report.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert!(done.stdout.starts_with(b"own\ny"), "what came before its end is there");
            other.kill("done").await;
            other.wait().await;
            world.close(session).await;
        });
    }
}

#[test]
fn b15_input_is_at_its_end() {
    row(async |world| {
        let session = world.session().await;
        let look = "
import os, sys, stat
print(os.read(0, 100), stat.S_ISCHR(os.fstat(0).st_mode), os.fstat(0).st_rdev == os.makedev(1, 3))
try: os.write(0, b'x'); print('written')
except OSError as e: print(e.errno)
";
        let done = finish(session.start(python(look)).await.unwrap()).await;
        let text = done.text().to_owned();
        assert!(text.starts_with("b'' True True\n"), "{text} {}", String::from_utf8_lossy(&done.stderr));
        let told = world.attack(&session, &["C06"]).await;
        assert_eq!(told.of("descriptor 0").text, "/dev/null");
        let mut execution = session.start(python("import sys; sys.stdout.close(); sys.stderr.write('only')")).await.unwrap();
        let chunk = execution.output().unwrap().recv().await.unwrap();
        assert_eq!((chunk.stream, &chunk.bytes[..]), (Stream::Stderr, &b"only"[..]));
        world.close(session).await;
    });
}
