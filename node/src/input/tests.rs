//! Inputs without streams or tools: what is taken, what is not, and how much is kept.

use super::*;

fn run() -> ExecutionId {
    ExecutionId::from_parts(1, 1)
}

fn inputs() -> Inputs {
    let inputs = Inputs::default();
    inputs.begin(run());
    inputs
}

fn put(inputs: &Inputs, stream: u64, offset: u64, bytes: &[u8]) -> Result<Put, FaultCode> {
    inputs.put(run(), stream, &mut Piece { offset, bytes }).map_err(|fault| fault.code)
}

fn total(inputs: &Inputs) -> u64 {
    inputs.standing(run()).unwrap().total
}

/// Reads as a tool does.
fn read(inputs: &Inputs) -> Vec<u8> {
    let mut read = Vec::new();
    while let Next::Bytes(bytes) = inputs.next(run()) {
        assert!(bytes.len() <= INPUT_CHUNK_LIMIT);
        inputs.pass(run(), bytes.len());
        read.extend(bytes);
    }
    read
}

#[test]
fn bytes_that_come_again_are_skipped_and_bytes_that_are_missing_are_noticed() {
    let inputs = inputs();
    let one = inputs.claim(run());
    assert_eq!(put(&inputs, one, 0, b"abc"), Ok(Put::Whole));
    assert_eq!(put(&inputs, one, 0, b"abc"), Ok(Put::Whole));
    assert_eq!(put(&inputs, one, 1, b"bcde"), Ok(Put::Whole));
    assert_eq!(put(&inputs, one, 6, b"x"), Err(FaultCode::CONFLICT));
    assert_eq!(total(&inputs), 5);
    assert_eq!((read(&inputs), inputs.passed(run())), (b"abcde".to_vec(), 5));
}

#[test]
fn the_end_comes_after_the_last_byte_and_nothing_after_the_end() {
    let inputs = inputs();
    let one = inputs.claim(run());
    assert_eq!(put(&inputs, one, 0, b"abc"), Ok(Put::Whole));
    for wrong in [2, 4] {
        assert_eq!(inputs.end(run(), one, wrong).map_err(|fault| fault.code), Err(FaultCode::CONFLICT));
    }
    assert_eq!(inputs.end(run(), one, 3), Ok(Put::Whole));
    assert_eq!(inputs.end(run(), one, 3), Ok(Put::Whole), "told again it is the same end");
    assert_eq!(put(&inputs, one, 0, b"abc"), Ok(Put::Whole));
    assert_eq!(put(&inputs, one, 3, b"d"), Err(FaultCode::CONFLICT));
    assert!(matches!(inputs.next(run()), Next::Bytes(_)), "the end waits for the bytes before it");
    assert_eq!(read(&inputs), b"abc");
    assert_eq!(inputs.next(run()), Next::End);
}

#[test]
fn no_more_is_kept_than_the_limit_and_what_is_read_makes_room() {
    let inputs = inputs();
    let one = inputs.claim(run());
    let bytes = vec![7; INPUT_AHEAD_LIMIT + 10];
    let mut piece = Piece { offset: 0, bytes: &bytes };
    assert_eq!(inputs.put(run(), one, &mut piece).unwrap(), Put::Full);
    assert_eq!((piece.bytes.len(), total(&inputs)), (10, INPUT_AHEAD_LIMIT as u64));
    assert_eq!(inputs.put(run(), one, &mut piece).unwrap(), Put::Full);
    inputs.pass(run(), 4);
    assert_eq!(inputs.put(run(), one, &mut piece).unwrap(), Put::Full);
    assert_eq!(piece.bytes.len(), 6);
    inputs.pass(run(), 6);
    assert_eq!(inputs.put(run(), one, &mut piece).unwrap(), Put::Whole);
    assert_eq!(read(&inputs).len(), INPUT_AHEAD_LIMIT);
    assert_eq!(inputs.passed(run()), INPUT_AHEAD_LIMIT as u64 + 10);
}

#[test]
fn a_newer_stream_takes_the_place_of_an_older_one() {
    let inputs = inputs();
    let (one, two) = (inputs.claim(run()), inputs.claim(run()));
    assert_eq!(put(&inputs, one, 0, b"old"), Err(FaultCode::CONFLICT));
    assert_eq!(put(&inputs, two, 0, b"new"), Ok(Put::Whole));
    assert!(inputs.end(run(), one, 3).is_err());
    assert_eq!(read(&inputs), b"new");
}

#[test]
fn an_input_that_is_over_takes_nothing_and_keeps_nothing() {
    let inputs = inputs();
    let one = inputs.claim(run());
    put(&inputs, one, 0, b"abc").unwrap();
    inputs.close(run());
    assert_eq!(put(&inputs, one, 3, b"d"), Ok(Put::Over));
    assert_eq!(inputs.end(run(), one, 3), Ok(Put::Over));
    assert_eq!((inputs.next(run()), total(&inputs), inputs.passed(run())), (Next::End, 3, 0));
    assert_eq!(inputs.lock().get(&run()).map(|input| input.waiting.capacity()), Some(0));
    let other = ExecutionId::from_parts(1, 2);
    assert_eq!(inputs.standing(other), None);
}

#[test]
fn whatever_streams_bring_in_whatever_pieces_the_tool_reads_every_byte_once() {
    let whole: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
    for seed in 1..=50_u64 {
        let mut state = seed;
        // Small and seeded; its quality is of no importance here.
        let mut below = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % bound.max(1)
        };
        let (inputs, mut read) = (inputs(), Vec::new());
        let mut stream = inputs.claim(run());
        while total(&inputs) < whole.len() as u64 {
            if below(10) == 0 {
                stream = inputs.claim(run());
            }
            // From somewhere before what is missing, as a sender does that has heard less than was taken.
            let taken = usize::try_from(total(&inputs)).unwrap();
            let from = taken.saturating_sub(below(3_000));
            let to = (taken + below(30_000)).min(whole.len());
            let mut piece = Piece { offset: from as u64, bytes: &whole[from..to.max(from)] };
            let put = inputs.put(run(), stream, &mut piece).unwrap();
            assert_eq!(put == Put::Whole, piece.bytes.is_empty());
            assert!(inputs.lock()[&run()].waiting.len() <= INPUT_AHEAD_LIMIT);
            if let (true, Next::Bytes(bytes)) = (below(3) > 0, inputs.next(run())) {
                let count = 1 + below(bytes.len());
                inputs.pass(run(), count);
                read.extend_from_slice(&bytes[..count]);
            }
        }
        inputs.end(run(), stream, whole.len() as u64).unwrap();
        while let Next::Bytes(bytes) = inputs.next(run()) {
            inputs.pass(run(), bytes.len());
            read.extend(bytes);
        }
        assert!(read == whole, "seed {seed}");
    }
}
