//! Exact signed bytes. A change here breaks every signature ever made: it needs a new domain string, not a new vector.

use orien_protocol::binding::Binding;
use orien_protocol::digest::Digest;
use orien_protocol::fault::FaultCode;
use orien_protocol::hash::Hash;
use orien_protocol::id::ExecutionId;
use orien_protocol::job::{Argument, ArgumentValue, Job, Stdin};
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::{EndReason, Outcome, Receipt, Usage, Work};
use orien_protocol::signing::{Address, MoneyDomain, MoneyStatement, Statement};
use orien_protocol::time::{Millis, UnixSeconds};
use orien_protocol::voucher::{Allowance, Close, MoneyVerified, Voucher};

use crate::kit::{Kit, START, usdc};

pub(crate) fn receipt() -> Receipt {
    Receipt {
        session: Kit::new().terms().session,
        terms: Hash::of(b"terms"),
        number: 2,
        previous: Hash::of(b"before"),
        at: START,
        confinement: Confinement::S2,
        work: Some(Work {
            execution: ExecutionId::from_parts(START.0, 5),
            job: Hash::of(b"job"),
            tool: "run_build".to_owned(),
            usage: Usage { effective_ms: 1, cpu_ms: 2, peak_memory_bytes: 3, bytes_in: 4, bytes_out: 5, output_hash: Hash::of(b"out") },
            charge: usdc(6),
            outcome: Some(Outcome::of(EndReason::Exited, Some(-1))),
        }),
        charged: usdc(7),
    }
}

#[test]
fn the_receipt_layout_is_written_out_by_hand() {
    let kit = Kit::new();
    let body = receipt();
    let work = body.work.clone().unwrap();
    let mut expected = Vec::new();
    for text in ["orien/receipt/v1", "test-0011223344556677"] {
        expected.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        expected.extend(text.bytes());
    }
    expected.extend(body.session.as_bytes());
    expected.extend(body.terms.as_bytes());
    expected.extend(2_u64.to_be_bytes());
    expected.extend(body.previous.as_bytes());
    expected.extend(START.0.to_be_bytes());
    expected.extend([2, 1]);
    expected.extend(work.execution.as_bytes());
    expected.extend(work.job.as_bytes());
    expected.extend(9_u32.to_be_bytes());
    expected.extend(b"run_build");
    for number in 1..=5_u64 {
        expected.extend(number.to_be_bytes());
    }
    expected.extend(work.usage.output_hash.as_bytes());
    expected.extend(6_u64.to_be_bytes());
    expected.extend([1, 0, 0, 1]);
    expected.extend((-1_i64).to_be_bytes());
    expected.extend(7_u64.to_be_bytes());
    assert_eq!(hex(&body.message(&kit.network)), hex(&expected));
}

#[test]
fn the_job_layout_is_written_out_by_hand() {
    let kit = Kit::new();
    let mut job = Job {
        session: kit.terms().session,
        execution: ExecutionId::from_parts(START.0, 5),
        tool: "run_build".to_owned(),
        arguments: vec![Argument { name: "b".to_owned(), value: ArgumentValue::Integer(-5) }],
        max_cost: usdc(9),
        max_duration: Millis(10),
        issued_at: START,
        stdin: Stdin::Empty,
    };
    let mut expected = Vec::new();
    for text in ["orien/job/v1", "test-0011223344556677"] {
        expected.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        expected.extend(text.bytes());
    }
    expected.extend(job.session.as_bytes());
    expected.extend(job.execution.as_bytes());
    expected.extend(9_u32.to_be_bytes());
    expected.extend(b"run_build");
    expected.extend([0, 0, 0, 1, 0, 0, 0, 1, b'b', 1]);
    expected.extend((-5_i64).to_be_bytes());
    for number in [9, 10, START.0] {
        expected.extend(number.to_be_bytes());
    }
    assert_eq!(hex(&job.message(&kit.network)), hex(&[expected.clone(), vec![0]].concat()));
    job.stdin = Stdin::Streamed;
    assert_eq!(hex(&job.message(&kit.network)), hex(&[expected, vec![1]].concat()));
}

#[test]
fn content_ids_are_frozen() {
    let kit = Kit::new();
    let network = &kit.network;
    let job = Job {
        session: kit.terms().session,
        execution: ExecutionId::from_parts(START.0, 5),
        tool: "run_build".to_owned(),
        arguments: vec![
            Argument { name: "a".to_owned(), value: ArgumentValue::Text("x".to_owned()) },
            Argument { name: "b".to_owned(), value: ArgumentValue::Integer(-5) },
            Argument { name: "c".to_owned(), value: ArgumentValue::Number("1.5".to_owned()) },
            Argument { name: "d".to_owned(), value: ArgumentValue::Boolean(true) },
        ],
        max_cost: usdc(9),
        max_duration: Millis(10),
        issued_at: START,
        stdin: Stdin::Streamed,
    };
    let digest = Digest {
        provider: kit.provider.peer.id(),
        version: 1,
        offer: Hash::of(b"offer"),
        issued_at: START,
        expires_at: START.plus(Millis(1000)),
        floor_per_minute: usdc(60_000),
        capabilities_total: 1,
        capabilities: vec!["run_build".to_owned()],
    };
    let binding: Binding = kit.terms().agent.unverified().clone();
    let found = [
        ("receipt", receipt().hash(network)),
        ("job", job.hash(network)),
        ("digest", digest.hash(network)),
        ("binding", Statement::hash(&binding, network)),
        ("terms", kit.terms().hash(network)),
    ];
    let found: Vec<String> = found.iter().map(|(name, hash)| format!("{name} {hash}")).collect();
    assert_eq!(found.join("\n"), include_str!("golden/content-ids.txt").trim_end());
}

#[test]
fn money_digests_and_signatures_are_frozen_and_made_by_eip712() {
    let kit = Kit::new();
    let domain = MoneyDomain { chain_id: 8453, escrow: Address::from_bytes([0x11; 20]) };
    let channel = kit.terms().channel().id();
    let voucher = Voucher { channel, total: usdc(1), receipt_number: 2, receipt_hash: Hash::of(b"r") };
    let allowance = Allowance {
        channel,
        ceiling: usdc(3),
        work_until: UnixSeconds(4),
        redeem_until: UnixSeconds(5),
        terms: Hash::of(b"t"),
        claim_key: kit.provider.claim.address(),
    };
    let close = Close { channel, total: usdc(6) };
    let binding = kit.terms().agent.unverified().clone();
    let signature = *MoneyVerified::sign(voucher, &domain, &kit.agent.spending).signed().signature();
    let found = [
        format!("channel {channel}"),
        format!("voucher {}", voucher.digest(&domain)),
        format!("voucher-signature {signature:?}"),
        format!("allowance {}", allowance.digest(&domain)),
        format!("close {}", close.digest(&domain)),
        format!("binding {}", binding.digest(&domain)),
        format!("ledger-escrow {}", kit.domain.escrow),
    ];
    assert_eq!(found.join("\n"), include_str!("golden/money-digests.txt").trim_end());
}

#[test]
fn fault_numbers_and_names_are_each_used_once() {
    let mut names: Vec<_> = FaultCode::ALL.iter().map(|code| code.name()).collect();
    let mut numbers: Vec<_> = FaultCode::ALL.iter().map(|code| code.0).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((names.len(), numbers.len()), (count, count));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
