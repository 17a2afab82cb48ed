//! The fuzz targets without a fuzzer: every input that was ever worth keeping, the first inputs, and a seeded batch of changed ones. How to fuzz: `tests/fuzz/README.md`.
//!
//! `ORIEN_SEED=n` takes other changes, `ORIEN_EXECUTIONS=n` more of them; `ORIEN_INPUT=target/file` runs one file of the corpora alone.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is the test failing")]

#[path = "fuzz/src/targets/mod.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use targets::{TARGETS, seeds};

/// Changed inputs per target: enough to meet most of what the corpora meet, in seconds.
const EXECUTIONS: u64 = 2_000;
/// The same for targets that sign and verify at every step.
const STORIES: u64 = 200;
/// And for both machines together.
const PAIRS: u64 = 50;
/// Longest changed input.
const LENGTH_MAX: usize = 4_096;

/// SplitMix64: small, seeded, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// The kept inputs of a target and its first ones, by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(target)).unwrap_or_else(|error| panic!("no corpus of {target}: {error}"));
    let mut inputs: Vec<(String, Vec<u8>)> =
        entries.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())).collect();
    inputs.sort();
    inputs.extend(seeds().into_iter().filter(|(of, ..)| *of == target).map(|(_, name, bytes)| (name, bytes)));
    inputs
}

/// Runs a target on one input; a failure names the input, and holds it if it is in no file.
fn run(target: &str, act: fn(&[u8]), name: &str, bytes: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| act(bytes)));
    let shown: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(outcome.is_ok(), "{target} fails on {name}, which is {shown}");
}

fn changed(inputs: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    let mut bytes = inputs[random.below(inputs.len())].1.clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => bytes.insert(at, random.next().to_le_bytes()[0]),
            3 => drop(bytes.drain(at..(at + random.below(8)).min(bytes.len()))),
            4 => {
                let other = &inputs[random.below(inputs.len())].1;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            _ => bytes.extend_from_slice(&random.next().to_le_bytes()),
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Everything that is known of one target, and a batch that is not.
fn replay(wanted: &str) {
    let (target, act) = TARGETS.iter().find(|(name, _)| *name == wanted).unwrap();
    let inputs = inputs(target);
    if let Ok(one) = std::env::var("ORIEN_INPUT") {
        let of_this = inputs.iter().filter(|(name, _)| format!("{target}/{name}") == one);
        // With its panic uncaught, so that a backtrace leads to it.
        return of_this.for_each(|(_, bytes)| act(bytes));
    }
    for (name, bytes) in &inputs {
        run(target, *act, name, bytes);
    }
    let usual = match *target {
        "session_pair" => PAIRS,
        "session_agent" | "session_provider" | "catalogue" => STORIES,
        _ => EXECUTIONS,
    };
    let executions = number("ORIEN_EXECUTIONS").unwrap_or(usual);
    let mut random = Random(number("ORIEN_SEED").unwrap_or(1));
    for execution in 0..executions {
        let bytes = changed(&inputs, &mut random);
        run(target, *act, &format!("change {execution}"), &bytes);
    }
}

macro_rules! replays {
    ($($target:ident;)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target));
        }
    )*

        #[test]
        fn every_target_is_replayed_and_has_a_corpus() {
            let replayed = [$(stringify!($target)),*];
            let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(replayed[..], targets[..]);
            let mut folders: Vec<String> = std::fs::read_dir(folder("")).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            folders.sort();
            assert_eq!(folders, targets, "folders of inputs and targets");
            assert!(targets.iter().all(|target| inputs(target).len() > 1));
        }
    };
}

replays! {
    catalogue;
    claim;
    credit_book;
    digest;
    frame_stream;
    frames;
    http_body;
    job_arguments;
    money;
    money_statement;
    names;
    network_file;
    offer;
    provider_config;
    receipt;
    session_agent;
    session_pair;
    session_provider;
    terms;
}

#[test]
fn first_inputs_are_the_bytes_that_honest_peers_send_today() {
    for (target, name, bytes) in seeds() {
        assert!(!bytes.is_empty(), "{target}/{name}");
        let kept = std::fs::read(folder(target).join(&name)).unwrap_or_else(|_| panic!("{target}/{name} is not in the corpus"));
        assert_eq!(kept, bytes, "{target}/{name}: a layout has changed; write the seeds anew");
    }
}
