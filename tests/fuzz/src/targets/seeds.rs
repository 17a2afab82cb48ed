//! Well-formed inputs to begin with: documents as honest peers make them, one of each kind.

use orien_protocol::codec;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{
    AgentFrame, Answer, Claim, CloseReason, FileAction, FileAnswer, FileEntry, FileRequest, InputAnswer, InputFrame, InputRequest,
    LogFrame, LogRequest, OutputStream, ProviderFrame, Question, TreeFrame,
};
use orien_protocol::hash::Hash;
use orien_protocol::id::RequestId;
use orien_protocol::job::{Argument, ArgumentValue, Job, Stdin};
use orien_protocol::offer::{Confinement, Offer, Parameter, ParameterKind};
use orien_protocol::receipt::{EndReason, Outcome, Receipt, Usage, Work};
use orien_protocol::session::agent::AgentRecord;
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::signing::{Signed, Statement, Verified};
use orien_protocol::time::Millis;
use orien_protocol::voucher::{Close, MoneyVerified, SignedClose, SignedVoucher, Voucher};
use serde::Serialize;

use super::catalogue::sound_offer;
use super::world::{START, WORLD, execution, usdc};

/// The target, a name, and the bytes.
pub(crate) type Seed = (&'static str, String, Vec<u8>);

pub(crate) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (index, (kind, bytes)) in frames().into_iter().enumerate() {
        seeds.push(("frames", format!("seed-{index}"), [vec![kind], bytes].concat()));
    }
    let (offer, job, receipt) = (offer(), job(), receipt());
    let terms = WORLD.agreed(0).to_signed();
    seeds.push(("offer", "seed".to_owned(), encoded(&offer)));
    let digest = offer.unverified().digest(offer.unverified().hash(&WORLD.network));
    let digest = encoded(Verified::sign(digest, &WORLD.network, &WORLD.provider.peer).signed());
    seeds.push(("catalogue", "seed-gossip".to_owned(), [vec![0], digest.clone()].concat()));
    seeds.push(("digest", "seed".to_owned(), digest));
    seeds.push(("catalogue", "seed-page".to_owned(), [vec![1], encoded(&Answer::Offers { offers: vec![offer], more: true })].concat()));
    seeds.push(("receipt", "seed-receipt".to_owned(), [vec![0], encoded(&receipt)].concat()));
    seeds.push(("receipt", "seed-job".to_owned(), [vec![1], encoded(&job)].concat()));
    seeds.push(("money_statement", "seed-voucher".to_owned(), [vec![0], encoded(&voucher())].concat()));
    let allowance = WORLD.allowance(&terms, usdc(9_000));
    seeds.push(("money_statement", "seed-allowance".to_owned(), [vec![1], encoded(&allowance)].concat()));
    seeds.push(("money_statement", "seed-close".to_owned(), [vec![2], encoded(&close())].concat()));
    seeds.push(("terms", "seed-agreed".to_owned(), [vec![0], encoded(&terms)].concat()));
    seeds.push(("terms", "seed-proposed".to_owned(), [vec![1], encoded(&terms.by_agent)].concat()));
    seeds.push(("claim", "seed".to_owned(), [vec![0], encoded(&claim())].concat()));
    seeds.push(("job_arguments", "seed".to_owned(), [vec![0], encoded(&arguments())].concat()));
    let mut option = arguments();
    option.push(Argument { name: "note".to_owned(), value: ArgumentValue::Text("-y".to_owned()) });
    seeds.push(("job_arguments", "seed-option".to_owned(), [vec![0], encoded(&option)].concat()));
    let log = encoded(&LogFrame::Gap { next: 7 });
    let length = u32::try_from(log.len()).unwrap().to_be_bytes();
    seeds.push(("frame_stream", "seed".to_owned(), [&[3][..], &length, &log, &length, &log].concat()));
    seeds
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    codec::encode(value).unwrap()
}

fn arguments() -> Vec<Argument> {
    let argument = |name: &str, value| Argument { name: name.to_owned(), value };
    vec![
        argument("level", ArgumentValue::Text("2".to_owned())),
        argument("out", ArgumentValue::Text("-a".to_owned())),
        argument("scene", ArgumentValue::Text("/workspace/a/b".to_owned())),
        argument("count", ArgumentValue::Integer(-3)),
        argument("ratio", ArgumentValue::Number("1.50".to_owned())),
        argument("fast", ArgumentValue::Boolean(false)),
    ]
}

fn offer() -> Signed<Offer> {
    let mut offer = sound_offer(&WORLD.provider.peer, 3, START, 9);
    let parameter = |name: &str, kind| Parameter { name: name.to_owned(), description: "d".to_owned(), required: true, kind };
    offer.tools[0].parameters = vec![
        parameter("a", ParameterKind::Text { max_bytes: 9 }),
        parameter("b", ParameterKind::Integer { min: -1, max: 1 }),
        parameter("c", ParameterKind::Choice(vec!["x".to_owned(), "y".to_owned()])),
        parameter("d", ParameterKind::File),
    ];
    offer.ens_name = Some("a.eth".to_owned());
    offer.region = Some("eu".to_owned());
    offer.addresses = vec!["/ip4/127.0.0.1/tcp/1".to_owned()];
    Verified::sign(offer, &WORLD.network, &WORLD.provider.peer).into_signed()
}

fn job() -> Signed<Job> {
    let job = Job {
        session: WORLD.agreed(0).session,
        execution: execution(1),
        tool: "call".to_owned(),
        arguments: arguments(),
        max_cost: usdc(9_000),
        max_duration: Millis(60_000),
        issued_at: START,
        stdin: Stdin::Streamed,
    };
    Verified::sign(job, &WORLD.network, &WORLD.agent.peer).into_signed()
}

fn receipt() -> Signed<Receipt> {
    let job = job();
    let work = Work {
        execution: execution(1),
        job: job.unverified().hash(&WORLD.network),
        tool: "call".to_owned(),
        usage: Usage { effective_ms: 6_000, bytes_out: 3, ..Usage::default() },
        charge: usdc(6_500),
        outcome: Some(Outcome::of(EndReason::Exited, Some(0))),
    };
    let receipt = Receipt {
        session: WORLD.agreed(0).session,
        terms: WORLD.agreed(0).hash(),
        number: 1,
        previous: Hash::ZERO,
        at: START,
        confinement: Confinement::S1,
        work: Some(work),
        charged: usdc(6_500),
    };
    Verified::sign(receipt, &WORLD.network, &WORLD.provider.peer).into_signed()
}

fn voucher() -> SignedVoucher {
    let receipt_hash = receipt().unverified().hash(&WORLD.network);
    let voucher = Voucher { channel: WORLD.agreed(0).channel(), total: usdc(6_500), receipt_number: 1, receipt_hash };
    *MoneyVerified::sign(voucher, &WORLD.domain, &WORLD.agent.spending).signed()
}

fn close() -> SignedClose {
    let close = Close { channel: WORLD.agreed(0).channel(), total: usdc(6_500) };
    *MoneyVerified::sign(close, &WORLD.domain, &WORLD.provider.claim).signed()
}

fn claim() -> Claim {
    let terms = WORLD.agreed(0).to_signed();
    let allowance = WORLD.allowance(&terms, usdc(9_000));
    Claim { terms, allowance, voucher: voucher(), receipt: receipt(), close: Some(close()) }
}

/// Frames and records with the number of their kind.
fn frames() -> Vec<(u8, Vec<u8>)> {
    let terms = WORLD.agreed(0).to_signed();
    let (session, allowance) = (WORLD.agreed(0).session, WORLD.allowance(&terms, usdc(9_000)));
    let fault = Fault::new(FaultCode::BUSY, "later").missing(usdc(3));
    let path = "a/b".to_owned();
    let entry = FileEntry { path: path.clone(), size: 3, folder: false, executable: true, modified: START };
    let chunk = LogFrame::Chunk { sequence: 1, at: START, stream: OutputStream::Stderr, bytes: b"text".to_vec() };
    vec![
        (0, encoded(&AgentFrame::Propose(Box::new(terms.by_agent.clone())))),
        (0, encoded(&AgentFrame::Run(Box::new(job())))),
        (0, encoded(&AgentFrame::Voucher(voucher()))),
        (0, encoded(&AgentFrame::Resume { session, head: 3, head_hash: Hash::of(b"3") })),
        (1, encoded(&ProviderFrame::Accepted(terms.by_provider))),
        (1, encoded(&ProviderFrame::Receipt(Box::new(receipt())))),
        (1, encoded(&ProviderFrame::JobRefused { execution: execution(1), fault: fault.clone() })),
        (1, encoded(&ProviderFrame::Closed { reason: CloseReason::Ended, close: Some(close()) })),
        (2, encoded(&Question::Reserve { request: RequestId::from_parts(1, 2), terms: Box::new(terms.clone()), ceiling: usdc(9) })),
        (2, encoded(&Question::Claim(Box::new(claim())))),
        (2, encoded(&Question::Catalogue { after: Some(WORLD.stranger.id()) })),
        (3, encoded(&Answer::Offers { offers: vec![offer()], more: true })),
        (3, encoded(&Answer::Refused(fault))),
        (3, encoded(&Answer::Allowance(allowance))),
        (4, encoded(&LogRequest { session, execution: execution(1), from: 3 })),
        (5, encoded(&chunk)),
        (
            6,
            encoded(&FileRequest {
                session,
                action: FileAction::Upload { path: path.clone(), length: 3, executable: true, offset: 5, expected: None },
            }),
        ),
        (6, encoded(&FileRequest { session, action: FileAction::List { path, after: None } })),
        (7, encoded(&FileAnswer::Listing { entries: vec![entry], more: false })),
        (8, encoded(&AgentRecord::Answered { receipt: receipt(), voucher: voucher() })),
        (8, encoded(&AgentRecord::Proposed { terms: terms.by_agent.clone(), budget: usdc(9) })),
        (9, encoded(&ProviderRecord::Opened { terms, allowance })),
        (9, encoded(&ProviderRecord::Closed { reason: CloseReason::NotSigned, close: None })),
        (10, encoded(&InputRequest { session, execution: execution(1) })),
        (11, encoded(&InputFrame::Bytes { offset: 3, bytes: b"text".to_vec() })),
        (11, encoded(&InputFrame::End { offset: 7 })),
        (13, encoded(&TreeFrame::Sum(Hash::of(b"5")))),
        (12, encoded(&InputAnswer::Taken { total: 7, ended: true })),
        (12, encoded(&InputAnswer::Over { total: 7, ended: false })),
    ]
}
