//! Every documented limit at the last value that is taken and the first that is refused: offers, digests, jobs, encoded values, texts of faults.

use orien_protocol::codec::{CodecError, decode, encode};
use orien_protocol::fault::{FAULT_TEXT_LIMIT, Fault, FaultCode};
use orien_protocol::frame::{FileAnswer, STREAM_FRAME_LIMIT, TREE_PROBLEMS_LIMIT, TREE_SMALL_LIMIT, TreeFrame, TreeProblem};
use orien_protocol::hash::Hash;
use orien_protocol::id::ExecutionId;
use orien_protocol::job::{ARGUMENT_LIMIT_BYTES, ARGUMENTS_LIMIT_BYTES, Argument, ArgumentValue, Job, JobError, Stdin};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::offer::{
    Capacity, Confinement, FUTURE_TOLERANCE, Hardware, LIST_LIMIT, NAME_LIMIT, OFFER_LIFE, Offer, OfferError, PARAMETERS_LIMIT, Parameter,
    ParameterKind, Record, TEXT_LIMIT, TOOLS_LIMIT, Tool, capability_key,
};
use orien_protocol::time::{Millis, Timestamp};

use crate::kit::{Kit, START, usdc};

fn tool(id: &str, per_minute: u64, capabilities: &[&str]) -> Tool {
    Tool {
        id: id.to_owned(),
        name: "Build".to_owned(),
        description: "Builds".to_owned(),
        command: "make".to_owned(),
        parameters: vec![Parameter {
            name: "mode".to_owned(),
            description: "how".to_owned(),
            required: true,
            kind: ParameterKind::Choice(vec!["fast".to_owned()]),
        }],
        max_duration: Millis(60_000),
        cpu_millis: 2_000,
        memory_bytes: 1 << 30,
        price: Price { per_minute: usdc(per_minute), call_fee: usdc(7) },
        workspace_required: true,
        capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
    }
}

pub(crate) fn offer() -> Offer {
    let kit = Kit::new();
    Offer {
        provider: kit.provider.peer.id(),
        version: 3,
        issued_at: START,
        expires_at: START.plus(OFFER_LIFE),
        label: "label".to_owned(),
        name: "name".to_owned(),
        description: "description".to_owned(),
        ens_name: Some("a.eth".to_owned()),
        region: Some("eu".to_owned()),
        binding: kit.terms().provider,
        price: Price { per_minute: usdc(60_000), call_fee: Usdc::ZERO },
        minimum_charge: usdc(5_000),
        metering_interval: Millis(5_000),
        tools: vec![tool("render", 90_000, &["gpu", "blender"]), tool("build", 30_000, &["gpu"])],
        confinement: Confinement::S1,
        hardware: Hardware { cpus: 8, memory_bytes: 1 << 34, system: "linux-x86_64".to_owned() },
        capacity: Capacity { sessions: 4, free: 2, runs_per_session: 1 },
        record: Record { up_since: START, uptime_permyriad: 9_999, sessions_total: 12, sessions_completed: 11 },
        addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
    }
}

/// The offer after a change passes or is refused.
fn checked(change: impl FnOnce(&mut Offer)) -> Result<(), OfferError> {
    let mut offer = offer();
    change(&mut offer);
    offer.check()
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

type Resize = fn(&mut Offer, usize);

#[test]
fn every_text_and_list_of_an_offer_has_a_limit() {
    let rows: &[(&str, usize, Resize)] = &[
        ("label", NAME_LIMIT, |o, n| o.label = text(n)),
        ("name", NAME_LIMIT, |o, n| o.name = text(n)),
        ("description", TEXT_LIMIT, |o, n| o.description = text(n)),
        ("ENS name", NAME_LIMIT, |o, n| o.ens_name = Some(text(n))),
        ("region", NAME_LIMIT, |o, n| o.region = Some(text(n))),
        ("system", NAME_LIMIT, |o, n| o.hardware.system = text(n)),
        ("list of tools", TOOLS_LIMIT, |o, n| o.tools = (0..n).map(|i| tool(&i.to_string(), 1, &[])).collect()),
        ("list of addresses", LIST_LIMIT, |o, n| o.addresses = texts(n)),
        ("address", TEXT_LIMIT, |o, n| o.addresses.push(text(n))),
        ("tool id", NAME_LIMIT, |o, n| o.tools[1].id = text(n)),
        ("tool name", NAME_LIMIT, |o, n| o.tools[1].name = text(n)),
        ("tool description", TEXT_LIMIT, |o, n| o.tools[1].description = text(n)),
        ("tool command", TEXT_LIMIT, |o, n| o.tools[1].command = text(n)),
        ("list of parameters", PARAMETERS_LIMIT, |o, n| {
            let parameter = o.tools[1].parameters[0].clone();
            o.tools[1].parameters = vec![parameter; n];
        }),
        ("list of capabilities", LIST_LIMIT, |o, n| o.tools[1].capabilities = texts(n)),
        ("capability", NAME_LIMIT, |o, n| o.tools[1].capabilities.push(text(n))),
        ("parameter name", NAME_LIMIT, |o, n| o.tools[1].parameters[0].name = text(n)),
        ("parameter description", TEXT_LIMIT, |o, n| o.tools[1].parameters[0].description = text(n)),
        ("list of choices", LIST_LIMIT, |o, n| o.tools[1].parameters[0].kind = ParameterKind::Choice(texts(n))),
        ("choice", NAME_LIMIT, |o, n| o.tools[1].parameters[0].kind = ParameterKind::Choice(vec![text(n)])),
    ];
    assert_eq!(offer().check(), Ok(()));
    for &(field, limit, resize) in rows {
        assert_eq!(checked(|o| resize(o, limit)), Ok(()), "{field}");
        assert_eq!(checked(|o| resize(o, limit + 1)), Err(OfferError::TooLong { field, limit }));
    }
}

#[test]
fn an_offer_that_contradicts_itself_is_refused() {
    let senseless = |result| matches!(result, Err(OfferError::Senseless(_)));
    assert!(senseless(checked(|o| o.tools[1].id = "render".to_owned())));
    assert!(senseless(checked(|o| o.tools[1].id.clear())));
    assert!(senseless(checked(|o| o.metering_interval = Millis(0))));
    assert!(senseless(checked(|o| o.binding = Kit::new().terms().agent)));
    assert!(senseless(checked(|o| o.expires_at = o.issued_at)));
    assert_eq!(checked(|o| o.expires_at = o.issued_at.plus(Millis(1))), Ok(()));
    assert!(senseless(checked(|o| o.expires_at = o.issued_at.plus(Millis(OFFER_LIFE.0 + 1)))));
}

#[test]
fn an_offer_and_its_digest_count_from_the_tolerance_before_their_issue_until_they_end() {
    let offer = offer();
    let digest = offer.digest(Hash::of(b"offer"));
    let at = |now| {
        assert_eq!(offer.freshness(now), digest.freshness(now));
        offer.freshness(now)
    };
    let earliest = Timestamp(START.0 - FUTURE_TOLERANCE.0);
    assert_eq!((at(earliest), at(START)), (Ok(()), Ok(())));
    assert_eq!(at(Timestamp(earliest.0 - 1)), Err(OfferError::FromTheFuture { ahead_ms: FUTURE_TOLERANCE.0 + 1 }));
    assert_eq!((at(Timestamp(offer.expires_at.0 - 1)), at(offer.expires_at)), (Ok(()), Err(OfferError::Expired)));
}

#[test]
fn a_digest_says_of_an_offer_what_one_needs_to_choose_and_is_checked_alike() {
    let offer = offer();
    assert_eq!(offer.capabilities(), ["blender", "build", "gpu", "render"]);
    let digest = offer.digest(Hash::of(b"offer"));
    assert_eq!((digest.floor_per_minute, digest.capabilities_total), (usdc(30_000), 4));
    assert_eq!(digest.capabilities, offer.capabilities());
    assert_eq!(digest.check(), Ok(()));
    let mut long = digest.clone();
    long.capabilities = texts(11);
    assert_eq!(long.check(), Err(OfferError::TooLong { field: "list of capabilities", limit: 10 }));
    long.capabilities = vec![text(NAME_LIMIT + 1)];
    assert_eq!(long.check(), Err(OfferError::TooLong { field: "capability", limit: NAME_LIMIT }));
    long.capabilities = vec![text(NAME_LIMIT); 10];
    assert_eq!(long.check(), Ok(()));
}

#[test]
fn an_offer_names_its_tools_its_payee_and_the_key_of_its_closes() {
    let (kit, offer) = (Kit::new(), offer());
    assert_eq!(offer.tool("build").map(|tool| tool.price.per_minute), Some(usdc(30_000)));
    assert_eq!(offer.tool("gpu"), None);
    assert_eq!(offer.claim_key(), kit.provider.claim.address());
    assert_eq!(offer.payout(), kit.terms().provider.unverified().principal);
    let other = "other-0011223344556677".parse().unwrap();
    let key = capability_key(&kit.network, "gpu");
    assert!(key != capability_key(&kit.network, "cpu") && key != capability_key(&other, "gpu"));
}

#[test]
fn a_job_has_limits_for_names_for_each_value_and_for_all_of_them() {
    let check = |change: &dyn Fn(&mut Job)| {
        let mut job = Job {
            session: Kit::new().terms().session,
            execution: ExecutionId::from_parts(START.0, 5),
            tool: "run_build".to_owned(),
            arguments: Vec::new(),
            max_cost: usdc(9),
            max_duration: Millis(10),
            issued_at: START,
            stdin: Stdin::Empty,
        };
        change(&mut job);
        job.check()
    };
    let argument = |name: usize, value| Argument { name: text(name), value };
    let words = |length| ArgumentValue::Text(text(length));
    assert_eq!(check(&|_| {}), Ok(()));
    assert_eq!(check(&|job| job.tool = text(NAME_LIMIT)), Ok(()));
    assert_eq!(check(&|job| job.tool = text(NAME_LIMIT + 1)), Err(JobError::TooMany));
    assert_eq!(check(&|job| job.arguments = vec![argument(NAME_LIMIT, words(1))]), Ok(()));
    assert_eq!(check(&|job| job.arguments = vec![argument(NAME_LIMIT + 1, words(1))]), Err(JobError::TooMany));
    let many = |count| vec![argument(1, ArgumentValue::Boolean(true)); count];
    assert_eq!(check(&|job| job.arguments = many(PARAMETERS_LIMIT)), Ok(()));
    assert_eq!(check(&|job| job.arguments = many(PARAMETERS_LIMIT + 1)), Err(JobError::TooMany));
    for value in [ArgumentValue::Text, ArgumentValue::Number] {
        assert_eq!(check(&|job| job.arguments = vec![argument(1, value(text(ARGUMENT_LIMIT_BYTES)))]), Ok(()));
        assert_eq!(check(&|job| job.arguments = vec![argument(1, value(text(ARGUMENT_LIMIT_BYTES + 1)))]), Err(JobError::TooLong));
    }
    // Four of the longest values fill the whole; one byte more is too much.
    let mut full = vec![argument(1, words(ARGUMENT_LIMIT_BYTES)); ARGUMENTS_LIMIT_BYTES / ARGUMENT_LIMIT_BYTES];
    assert_eq!(check(&|job| job.arguments.clone_from(&full)), Ok(()));
    full.push(argument(1, words(1)));
    assert_eq!(check(&|job| job.arguments.clone_from(&full)), Err(JobError::TooLong));
}

#[test]
fn as_many_bytes_as_the_limit_are_decoded_and_the_sizes_are_what_they_say() {
    let bytes = encode(&7_u64).unwrap();
    assert_eq!(decode::<u64>(&bytes, 8), Ok(7));
    assert_eq!(decode::<u64>(&bytes, 7), Err(CodecError::TooLarge { length: 8, limit: 7 }));
    let kibi = 1024;
    let bounds = (orien_protocol::codec::VALUE_LIMIT_BYTES, orien_protocol::offer::OFFER_LIMIT_BYTES);
    assert_eq!(bounds, (1_048_576, 64 * kibi));
    assert_eq!((ARGUMENT_LIMIT_BYTES, ARGUMENTS_LIMIT_BYTES), (32_768, 131_072));
}

#[test]
fn a_fault_is_cut_on_a_letter_and_made_safe_to_show() {
    let fault = |text: &str| Fault::new(FaultCode::BUSY, text).text;
    assert_eq!(fault(&text(FAULT_TEXT_LIMIT)).len(), FAULT_TEXT_LIMIT);
    assert_eq!(fault(&text(FAULT_TEXT_LIMIT + 1)).len(), FAULT_TEXT_LIMIT);
    // A letter of two bytes across the limit goes as a whole.
    assert_eq!(fault(&(text(FAULT_TEXT_LIMIT - 1) + "\u{e9}x")), text(FAULT_TEXT_LIMIT - 1));
    let shown = Fault::new(FaultCode::DEBT, "a\nb\u{1b}[31mc").tamed().missing(usdc(1_500_000));
    assert_eq!(shown.to_string(), "debt: a b [31mc (missing 1.5 USDC)");
    assert_eq!(Fault::new(FaultCode::DEBT, "d").to_string(), "debt: d");
    assert_eq!(format!("{:?}", FaultCode::DEBT), "debt(32)");
}

#[test]
fn the_largest_answer_to_a_tree_and_the_largest_small_file_of_one_fit_into_a_frame() {
    let longest = "p".repeat(4096);
    let problem = TreeProblem { path: longest.clone(), fault: Fault::new(FaultCode::BAD_PATH, "t".repeat(2 * FAULT_TEXT_LIMIT)) };
    let problems = vec![problem; TREE_PROBLEMS_LIMIT];
    let answer = FileAnswer::Unpacked { files: u64::MAX, folders: u64::MAX, bytes: u64::MAX, problems, more: u64::MAX };
    assert!(encode(&answer).unwrap().len() <= STREAM_FRAME_LIMIT);
    let (bytes, hash) = (vec![1; TREE_SMALL_LIMIT], Hash::ZERO);
    let small = TreeFrame::Small { path: longest, executable: true, modified: Timestamp(u64::MAX), bytes, hash };
    assert!(encode(&small).unwrap().len() <= STREAM_FRAME_LIMIT);
}
