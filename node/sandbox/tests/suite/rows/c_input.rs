//! What a tool can do with the input that it is given: read it to its end.

use orien_sandbox::{Cause, Execution};

use crate::verdict::{Is, Told};
use crate::world::{PATIENCE, finish, row, run, sh};

/// Writes all of it, then ends the input.
async fn feed(execution: &mut Execution, mut bytes: &[u8]) {
    let mut input = execution.input().unwrap();
    while !bytes.is_empty() {
        let count = tokio::time::timeout(PATIENCE, input.write(bytes)).await.unwrap().unwrap();
        bytes = &bytes[count..];
    }
}

#[test]
fn c09_input_is_a_pipe_that_can_be_read_and_nothing_else() {
    row(async |world| {
        let session = world.session().await;
        let mut spec = world.spec(&["C09"]);
        spec.input = true;
        let mut execution = session.start(spec).await.unwrap();
        feed(&mut execution, b"all that was sent").await;
        let done = finish(execution).await;
        assert!(done.report.success(), "{done:?}");
        let told = Told::read(&done.stdout);
        told.judge(&[
            ("descriptor 0", Is::Done),
            ("write to it", Is::Refused(&[libc::EBADF])),
            ("open /proc/self/fd/0 for ", Is::Refused(&[libc::EACCES])),
            ("open /dev/stdin for ", Is::Refused(&[libc::EACCES])),
            ("open /dev/fd/0 for ", Is::Refused(&[libc::EACCES])),
            ("make it huge", Is::Refused(&[libc::EPERM])),
            ("type into it", Is::Refused(&[libc::EPERM, libc::ENOTTY])),
            ("send to it", Is::Refused(&[libc::ENOTSOCK])),
            ("go there", Is::Refused(&[libc::ENOTDIR])),
            ("open from there", Is::Refused(&[libc::ENOTDIR])),
            ("seek in it", Is::Refused(&[libc::ESPIPE])),
            ("open it for reading", Is::Done),
            ("what is left", Is::Done),
        ]);
        assert!(told.of("descriptor 0").text.starts_with("pipe:["), "{told:?}");
        assert_eq!((told.of("open it for reading").text.as_str(), told.of("what is left").text.as_str()), ("all that was sent", ""));
        world.close(session).await;
    });
}

#[test]
fn c10_input_is_of_one_run_and_no_other_finds_it() {
    row(async |world| {
        let session = world.session().await;
        let mut with = sh("head -c 3; sleep 1000");
        with.input = true;
        let mut first = session.start(with).await.unwrap();
        assert!(first.started().await);
        let mut input = first.input().unwrap();
        let look = "readlink /proc/self/fd/0; cat; for fd in /proc/[0-9]*/fd/0; do readlink $fd; done > list; grep -c pipe: list";
        let other = run(&session, sh(look)).await;
        assert_eq!(other.text(), "/dev/null\n0\n");
        assert_eq!(input.write(b"abc").await.unwrap(), 3);
        let mut output = first.output().unwrap();
        assert_eq!(output.recv().await.unwrap().bytes, "abc");
        first.kill("done").await;
        assert!(matches!(finish_killed(first, output).await, Cause::Killed { .. }));
        assert!(tokio::time::timeout(PATIENCE, input.write(b"x")).await.unwrap().is_err(), "nobody reads any more");
        world.close(session).await;
    });
}

async fn finish_killed(mut execution: Execution, output: tokio::sync::mpsc::Receiver<orien_sandbox::Chunk>) -> Cause {
    drop(output);
    tokio::time::timeout(PATIENCE, execution.wait()).await.unwrap().cause
}
