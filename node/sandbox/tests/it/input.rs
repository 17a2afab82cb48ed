//! Standard input of a tool: every byte, its end, and what becomes of a writer whose tool does not read.

use std::io::ErrorKind;
use std::time::Duration;

use orien_sandbox::{Cause, Execution, Input, Level, RunSpec, SessionSandbox, Stream};
use tokio::time::timeout;

use crate::support::{Done, Ground, PATIENCE, sh, spec};

/// What a pipe holds at most before its reader has read anything.
const PIPE_BYTES_MAX: usize = 1 << 20;

fn fed(mut spec: RunSpec) -> RunSpec {
    spec.input = true;
    spec
}

async fn write_all(input: &mut Input, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let count = timeout(PATIENCE, input.write(bytes)).await.unwrap()?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Writes until nothing more is taken for half a second. Answers how much was.
async fn write_until_full(input: &mut Input) -> usize {
    let mut total = 0;
    while let Ok(wrote) = timeout(Duration::from_millis(500), input.write(&[b'x'; 4096])).await {
        total += wrote.unwrap();
    }
    total
}

/// Feeds a tool while its output is taken.
async fn run_with(session: &SessionSandbox, spec: RunSpec, bytes: &[u8]) -> Done {
    let mut execution = session.start(fed(spec)).await.unwrap();
    let (mut input, mut output) = (execution.input().unwrap(), execution.output().unwrap());
    assert!(execution.input().is_none());
    let feed = async {
        write_all(&mut input, bytes).await.unwrap();
        drop(input);
    };
    let collect = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.recv().await {
            if chunk.stream == Stream::Stdout { &mut stdout } else { &mut stderr }.extend_from_slice(&chunk.bytes);
        }
        (stdout, stderr)
    };
    let all = async { tokio::join!(execution.wait(), feed, collect) };
    let (report, (), (stdout, stderr)) = timeout(PATIENCE * 2, all).await.unwrap();
    Done { report, stdout, stderr }
}

async fn is_killed(mut execution: Execution) -> bool {
    execution.kill("asked").await;
    matches!(timeout(PATIENCE, execution.wait()).await.unwrap().cause, Cause::Killed { .. })
}

#[tokio::test]
async fn every_byte_arrives_and_the_end_is_the_end_at_every_level() {
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(3_000_001).collect();
    // Where tools are other users than we are, the levels without mounts of their own need places that are open to them.
    let levels = if rustix::process::geteuid().is_root() { &[Level::S2][..] } else { &[Level::S0, Level::S1, Level::S2] };
    for level in levels.iter().copied() {
        let ground = Ground::with(|config| (config.min_level, config.max_level) = (level, level)).await;
        let session = ground.session().await;
        let done = run_with(&session, spec("/bin/cat", &[]), &bytes).await;
        assert_eq!(done.report.cause, Cause::Exited(0));
        assert!(done.stdout == bytes, "{level}: {} of {} bytes", done.stdout.len(), bytes.len());
        assert_eq!(run_with(&session, spec("/usr/bin/wc", &["-c"]), b"").await.text(), "0\n");
        session.close().await.unwrap();
    }
}

#[tokio::test]
async fn input_and_output_can_be_opened_by_their_names() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let done = run_with(&session, spec("/bin/cat", &["/dev/stdin"]), b"by name").await;
    assert_eq!((done.report.cause.clone(), done.text()), (Cause::Exited(0), "by name"));
    let done = run_with(&session, sh("cat > /dev/stdout; echo more > /dev/fd/1; echo other > /dev/stderr"), b"there\n").await;
    assert_eq!((done.report.cause.clone(), done.text()), (Cause::Exited(0), "there\nmore\n"));
    assert_eq!(done.stderr, b"other\n");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_tool_that_does_not_read_makes_its_writer_wait_and_nobody_else() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(fed(spec("/bin/sleep", &["1000"]))).await.unwrap();
    let mut input = execution.input().unwrap();
    let taken = write_until_full(&mut input).await;
    assert!(taken > 0 && taken <= PIPE_BYTES_MAX, "{taken}");
    // The run obeys while its writer is stuck.
    execution.pause().await.unwrap();
    execution.resume().await.unwrap();
    let stuck = tokio::spawn(async move { input.write(b"more").await });
    assert!(is_killed(execution).await);
    let wrote = timeout(PATIENCE, stuck).await.unwrap().unwrap();
    assert_eq!(wrote.unwrap_err().kind(), ErrorKind::BrokenPipe);
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_paused_tool_reads_nothing_and_goes_on_where_it_was() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(fed(spec("/usr/bin/wc", &["-c"]))).await.unwrap();
    assert!(execution.started().await);
    let (mut input, mut output) = (execution.input().unwrap(), execution.output().unwrap());
    execution.pause().await.unwrap();
    let taken = write_until_full(&mut input).await;
    assert!(taken > 0 && taken <= PIPE_BYTES_MAX, "{taken}");
    execution.resume().await.unwrap();
    write_all(&mut input, &vec![b'y'; 500_000]).await.unwrap();
    drop(input);
    let counted = timeout(PATIENCE, output.recv()).await.unwrap().unwrap();
    assert_eq!(counted.bytes, format!("{}\n", taken + 500_000));
    drop(output);
    assert!(execution.wait().await.success());
    session.close().await.unwrap();
}

#[tokio::test]
async fn who_writes_to_a_tool_that_has_ended_or_closed_its_input_is_told() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut ended = session.start(fed(spec("/bin/true", &[]))).await.unwrap();
    let mut input = ended.input().unwrap();
    assert_eq!(ended.wait().await.cause, Cause::Exited(0));
    assert_eq!(write_all(&mut input, &vec![0; 4 << 20]).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut deaf = session.start(fed(sh("exec <&-; exec sleep 1000"))).await.unwrap();
    let mut input = deaf.input().unwrap();
    assert_eq!(write_all(&mut input, &vec![0; 4 << 20]).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(is_killed(deaf).await);
    session.close().await.unwrap();
}

#[tokio::test]
async fn input_that_nobody_takes_has_ended() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut execution = session.start(fed(spec("/bin/cat", &[]))).await.unwrap();
    assert_eq!(timeout(PATIENCE, execution.wait()).await.unwrap().cause, Cause::Exited(0));
    session.close().await.unwrap();
}
