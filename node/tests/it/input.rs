//! Input on its way to a tool: over streams that break, to tools that read, wait, stop reading or end.

use std::time::Duration;

use orien_node::shop::{Purpose, Shop};
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{INPUT_AHEAD_LIMIT, INPUT_CHUNK_LIMIT, InputAnswer, InputFrame, InputRequest};
use orien_protocol::id::ExecutionId;
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::AgentKeys;
use tokio::time::timeout;

use crate::agent::{Agent, Wire, stream_to};
use crate::kit::{Kit, agent_keys};

/// An input stream to a run, which has said where the input stands.
struct Stream {
    wire: Wire,
    total: u64,
}

impl Stream {
    async fn open(shop: &Shop, agent: &Agent<'_>, execution: ExecutionId) -> Self {
        let mut wire = ask(shop, &agent.keys, agent, execution).await;
        match wire.recv::<InputAnswer>().await.unwrap().unwrap() {
            InputAnswer::Taken { total, .. } => Self { wire, total },
            other => panic!("{other:?}"),
        }
    }

    /// Sends one frame and hears what came of it.
    async fn say(&mut self, frame: InputFrame) -> InputAnswer {
        // A stream that has said its last word in this moment takes no frame any more; the word is still to be read.
        let _ = self.wire.send(&frame).await;
        self.wire.recv::<InputAnswer>().await.unwrap().unwrap()
    }

    async fn put(&mut self, bytes: &[u8]) -> InputAnswer {
        let answer = self.say(InputFrame::Bytes { offset: self.total, bytes: bytes.to_vec() }).await;
        if let InputAnswer::Taken { total, .. } = answer {
            self.total = total;
        }
        answer
    }

    async fn end(&mut self) -> InputAnswer {
        self.say(InputFrame::End { offset: self.total }).await
    }

    /// Puts until nothing more is taken for a while.
    async fn fill(&mut self) {
        while timeout(Duration::from_millis(700), self.put(&[b'x'; 16 * 1024])).await.is_ok() {}
    }
}

async fn ask(shop: &Shop, keys: &AgentKeys, agent: &Agent<'_>, execution: ExecutionId) -> Wire {
    let mut wire = stream_to(shop, keys, Purpose::Input);
    wire.send(&InputRequest { session: agent.session.id(), execution }).await.unwrap();
    wire
}

fn refused(answer: &InputAnswer) -> Option<FaultCode> {
    if let InputAnswer::Refused(fault) = answer { Some(fault.code) } else { None }
}

/// Until the run has begun or waits, which the agent hears.
async fn taken(agent: &mut Agent<'_>, execution: ExecutionId) {
    use orien_protocol::session::agent::AgentEvent;
    agent.until("taken", |agent| agent.has(|event| matches!(event, AgentEvent::Waiting(id) if *id == execution))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_reaches_the_tool_once_although_streams_break() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let bytes: Vec<u8> = (0..250_000_u32).flat_map(u32::to_le_bytes).collect();
    let execution = agent.run_with_input("cat", 60).await;
    taken(&mut agent, execution).await;
    let mut streams = 0;
    loop {
        let mut stream = Stream::open(&shop, &agent, execution).await;
        let from = usize::try_from(stream.total).unwrap();
        if from == bytes.len() {
            assert_eq!(agent.while_doing(stream.end()).await, InputAnswer::Taken { total: bytes.len() as u64, ended: true });
            break;
        }
        streams += 1;
        for (count, piece) in bytes[from..].chunks(30_000).enumerate() {
            if count == 7 {
                // Sent, and broken off before anything can be heard of it.
                stream.wire.send(&InputFrame::Bytes { offset: stream.total, bytes: piece.to_vec() }).await.unwrap();
                break;
            }
            assert!(matches!(agent.while_doing(stream.put(piece)).await, InputAnswer::Taken { ended: false, .. }));
        }
    }
    assert!(streams > 3, "{streams}");
    let work = agent.ended(execution).await;
    assert!(work.outcome.unwrap().succeeded());
    assert_eq!((work.usage.bytes_in, work.usage.bytes_out), (bytes.len() as u64, bytes.len() as u64));
    assert!(agent.log(&shop, execution).await.unwrap() == bytes);
    assert_eq!(work.usage.output_hash, crate::agent::hash(&bytes));
    agent.end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_is_for_the_agent_of_a_job_that_asked_for_it() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    let deaf = agent.run("sleep", &[("seconds", "1")]).await;
    taken(&mut agent, deaf).await;
    let never = ExecutionId::from_parts(1, 1);
    let fed = agent.run_with_input("cat", 60).await;
    taken(&mut agent, fed).await;
    let stranger = agent_keys(2);
    for (keys, execution, code) in [
        (&agent.keys, deaf, FaultCode::STDIN_NOT_WANTED),
        (&agent.keys, never, FaultCode::NOT_FOUND),
        (&stranger, fed, FaultCode::NOT_FOUND),
    ] {
        let answer = ask(&shop, keys, &agent, execution).await.recv::<InputAnswer>().await.unwrap().unwrap();
        assert_eq!(refused(&answer), Some(code));
    }
    assert!(agent.outcome(deaf).await.succeeded(), "it found the end of its input at once");
    let mut stream = Stream::open(&shop, &agent, fed).await;
    assert_eq!(stream.end().await, InputAnswer::Taken { total: 0, ended: true });
    assert!(agent.outcome(fed).await.succeeded());
    agent.end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_turn_has_not_come_takes_a_little_and_the_rest_when_it_reads() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    // As many as run at once.
    let first = [agent.run("sleep", &[("seconds", "50")]).await, agent.run("sleep", &[("seconds", "50")]).await];
    let waiting = agent.run_with_input("cat", 60).await;
    taken(&mut agent, waiting).await;
    let mut stream = Stream::open(&shop, &agent, waiting).await;
    agent.while_doing(stream.fill()).await;
    assert_eq!(stream.total, INPUT_AHEAD_LIMIT as u64);
    for execution in first {
        agent.input(orien_protocol::session::agent::AgentInput::Cancel(execution)).await;
        agent.ended(execution).await;
    }
    // The frame that was on its way when nothing more was taken.
    let InputAnswer::Taken { total, .. } = agent.while_doing(stream.wire.recv::<InputAnswer>()).await.unwrap().unwrap() else {
        panic!("the rest is taken")
    };
    stream.total = total;
    assert_eq!(total, INPUT_AHEAD_LIMIT as u64 + 16 * 1024);
    assert!(matches!(agent.while_doing(stream.end()).await, InputAnswer::Taken { ended: true, .. }));
    let work = agent.ended(waiting).await;
    assert_eq!((work.usage.bytes_in, work.usage.bytes_out), (total, total));
    agent.end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_stream_takes_the_place_of_an_older_one() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    let execution = agent.run_with_input("cat", 60).await;
    taken(&mut agent, execution).await;
    let mut older = Stream::open(&shop, &agent, execution).await;
    older.put(b"one ").await;
    let mut newer = Stream::open(&shop, &agent, execution).await;
    assert_eq!(newer.total, 4);
    // Opened, it only looks.
    assert_eq!(older.put(b"two ").await, InputAnswer::Taken { total: 8, ended: false });
    // What it was told before is not what stands now: the same bytes again are none.
    assert_eq!(newer.put(b"two three").await, InputAnswer::Taken { total: 13, ended: false });
    assert_eq!(refused(&older.wire.recv::<InputAnswer>().await.unwrap().unwrap()), Some(FaultCode::CONFLICT));
    newer.end().await;
    assert!(agent.outcome(execution).await.succeeded());
    assert_eq!(agent.log(&shop, execution).await.unwrap(), b"one two three");
    agent.end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_do_not_fit_are_refused_and_the_input_goes_on_over_another_stream() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    let execution = agent.run_with_input("cat", 60).await;
    taken(&mut agent, execution).await;
    let bytes = |offset, length| InputFrame::Bytes { offset, bytes: vec![b'x'; length] };
    assert_eq!(Stream::open(&shop, &agent, execution).await.put(b"abc").await, InputAnswer::Taken { total: 3, ended: false });
    for (frame, code) in [
        (bytes(4, 1), FaultCode::CONFLICT),
        (bytes(u64::MAX, 1), FaultCode::CONFLICT),
        (bytes(3, INPUT_CHUNK_LIMIT + 1), FaultCode::TOO_LARGE),
        (InputFrame::End { offset: 2 }, FaultCode::CONFLICT),
        (InputFrame::End { offset: 4 }, FaultCode::CONFLICT),
    ] {
        let mut stream = Stream::open(&shop, &agent, execution).await;
        assert_eq!(stream.total, 3);
        assert_eq!(refused(&stream.say(frame.clone()).await), Some(code), "{frame:?}");
    }
    let mut stream = Stream::open(&shop, &agent, execution).await;
    assert_eq!(stream.say(bytes(3, INPUT_CHUNK_LIMIT)).await, InputAnswer::Taken { total: 3 + INPUT_CHUNK_LIMIT as u64, ended: false });
    let end = InputFrame::End { offset: 3 + INPUT_CHUNK_LIMIT as u64 };
    assert!(matches!(stream.say(end).await, InputAnswer::Taken { ended: true, .. }));
    assert!(agent.outcome(execution).await.succeeded());
    agent.end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_ends_without_reading_or_is_cancelled_lets_go_of_a_stream_that_waits() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    // It reads three bytes, and most of what is sent is never read.
    let execution = agent.run_with_input("first", 60).await;
    taken(&mut agent, execution).await;
    let mut stream = Stream::open(&shop, &agent, execution).await;
    let over = agent.while_doing(async {
        loop {
            match stream.put(&[b'x'; 16 * 1024]).await {
                InputAnswer::Taken { .. } => {}
                other => break other,
            }
        }
    });
    assert!(matches!(over.await, InputAnswer::Over { total, ended: false } if total >= 3));
    assert!(agent.outcome(execution).await.succeeded());
    assert_eq!(agent.log(&shop, execution).await.unwrap(), b"xxx");
    // Two sleepers are in the way of a third run, whose input fills up and waits; then it is taken back.
    let first = [agent.run("sleep", &[("seconds", "50")]).await, agent.run("sleep", &[("seconds", "50")]).await];
    let waiting = agent.run_with_input("cat", 60).await;
    taken(&mut agent, waiting).await;
    let mut stream = Stream::open(&shop, &agent, waiting).await;
    agent.while_doing(stream.fill()).await;
    for execution in [waiting, first[0], first[1]] {
        agent.input(orien_protocol::session::agent::AgentInput::Cancel(execution)).await;
    }
    let over = agent.while_doing(stream.wire.recv::<InputAnswer>()).await.unwrap().unwrap();
    assert_eq!(over, InputAnswer::Over { total: INPUT_AHEAD_LIMIT as u64, ended: false });
    // Whoever comes later is told the same.
    let late = ask(&shop, &agent.keys, &agent, waiting).await.recv::<InputAnswer>().await.unwrap().unwrap();
    assert_eq!(late, over);
    agent.end().await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_whose_input_never_ends_ends_with_its_time() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 5_000_000).await;
    let execution = agent.run_with_input("cat", 1).await;
    taken(&mut agent, execution).await;
    let mut stream = Stream::open(&shop, &agent, execution).await;
    stream.put(b"and then").await;
    let work = agent.ended(execution).await;
    assert_eq!(work.outcome.unwrap().end, EndReason::TimedOut);
    assert_eq!(work.usage.bytes_in, 8);
    assert_eq!(agent.while_doing(stream.wire.recv::<InputAnswer>()).await.unwrap(), Some(InputAnswer::Over { total: 8, ended: false }));
    assert_eq!(agent.log(&shop, execution).await.unwrap(), b"and then");
    agent.end().await;
    shop.close().await;
}
