//! Input as the scripted provider takes it: kept for the test to look at, with streams that break when the script says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orien_bootstrap::FrameStream;
use orien_net::NetStream;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{InputAnswer, InputFrame, InputRequest, STREAM_FRAME_LIMIT};
use orien_protocol::id::ExecutionId;
use orien_protocol::job::Stdin;

use super::Seen;

/// What came for the tools, and how it is taken.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) taken: BTreeMap<ExecutionId, Taken>,
    /// Streams that were opened.
    pub(crate) streams: usize,
    /// Each stream breaks after so many frames, the last of which is not answered.
    pub(crate) frames_per_stream: Option<usize>,
    /// No more is taken than this; the rest waits.
    pub(crate) room: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
}

enum Is {
    At(u64, bool),
    Full,
    Over(u64, bool),
    Refused(Fault),
}

pub(super) async fn serve(seen: Arc<Mutex<Seen>>, stream: NetStream) {
    let mut frames = FrameStream::new(stream, STREAM_FRAME_LIMIT);
    let Ok(Some(InputRequest { execution, .. })) = frames.recv().await else { return };
    let per_stream = {
        let mut seen = seen.lock().unwrap();
        seen.inputs.streams += 1;
        seen.inputs.frames_per_stream
    };
    let mut count = 0;
    let mut is = look(&seen, execution);
    loop {
        let answer = match is {
            Is::At(total, ended) => InputAnswer::Taken { total, ended },
            Is::Over(total, ended) => InputAnswer::Over { total, ended },
            Is::Refused(fault) => InputAnswer::Refused(fault),
            Is::Full => unreachable!("waited out below"),
        };
        if frames.send(&answer).await.is_err() || !matches!(answer, InputAnswer::Taken { .. }) {
            let _ = frames.finish().await;
            // Until the other side has read it.
            let _ = frames.recv::<InputFrame>().await;
            return;
        }
        let frame = tokio::select! {
            frame = frames.recv::<InputFrame>() => frame,
            () = over(&seen, execution) => {
                is = look(&seen, execution);
                continue;
            }
        };
        let Ok(Some(frame)) = frame else { return };
        is = loop {
            match take(&seen, execution, &frame) {
                Is::Full => tokio::time::sleep(Duration::from_millis(10)).await,
                taken => break taken,
            }
        };
        count += 1;
        if per_stream.is_some_and(|most| count >= most) {
            return;
        }
    }
}

fn look(seen: &Mutex<Seen>, execution: ExecutionId) -> Is {
    let mut seen = seen.lock().unwrap();
    let Some(job) = seen.jobs.iter().find(|job| job.execution == execution) else {
        return Is::Refused(Fault::new(FaultCode::NOT_FOUND, "no such job"));
    };
    if job.stdin == Stdin::Empty {
        return Is::Refused(Fault::new(FaultCode::STDIN_NOT_WANTED, "it did not ask"));
    }
    let is_over = seen.is_over(execution);
    let taken = seen.inputs.taken.entry(execution).or_default();
    let total = taken.bytes.len() as u64;
    if is_over { Is::Over(total, taken.ended) } else { Is::At(total, taken.ended) }
}

fn take(seen: &Mutex<Seen>, execution: ExecutionId, frame: &InputFrame) -> Is {
    let mut seen = seen.lock().unwrap();
    if seen.is_over(execution) {
        let taken = &seen.inputs.taken[&execution];
        return Is::Over(taken.bytes.len() as u64, taken.ended);
    }
    let room = seen.inputs.room;
    let taken = seen.inputs.taken.get_mut(&execution).unwrap();
    let conflict = || Is::Refused(Fault::new(FaultCode::CONFLICT, "it does not go on there"));
    match frame {
        InputFrame::Bytes { offset, bytes } => {
            let Some(known) = taken.bytes.len().checked_sub(usize::try_from(*offset).unwrap()) else { return conflict() };
            let new = bytes.get(known..).unwrap_or_default();
            if taken.ended && !new.is_empty() {
                return conflict();
            }
            if room.is_some_and(|room| taken.bytes.len() + new.len() > room) {
                return Is::Full;
            }
            taken.bytes.extend_from_slice(new);
        }
        InputFrame::End { offset } if *offset == taken.bytes.len() as u64 => taken.ended = true,
        InputFrame::End { .. } => return conflict(),
    }
    Is::At(taken.bytes.len() as u64, taken.ended)
}

async fn over(seen: &Mutex<Seen>, execution: ExecutionId) {
    while !seen.lock().unwrap().is_over(execution) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
