//! Evidence of real sessions is clean, and nothing in it can be changed unseen.

use std::sync::OnceLock;

use orien_protocol::evidence::audit::{SessionReport, audit};
use orien_protocol::evidence::{Documents, Facts, SessionBundle, WriteBundleError};
use orien_protocol::frame::ProviderFrame;
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::AgentInput;
use orien_protocol::signing::Verified;
use orien_protocol::voucher::{Close, MoneyVerified};
use proptest::prelude::*;
use serde_json::Value;

use crate::kit::{Kit, usdc};
use crate::pair::Pair;

fn bundle(pair: &Pair) -> SessionBundle {
    Documents::of(pair.agent_log.clone(), &pair.kit.network).unwrap().bundle().unwrap()
}

fn facts(kit: &Kit) -> Facts {
    Facts { network: kit.network.clone(), domain: kit.domain, signer: kit.settlement.address() }
}

/// Two tools, interim receipts, a run that never started, a failed one, a top-up, and the close.
fn worked() -> Pair {
    let mut pair = Pair::open(20_000);
    let first = pair.run(1, "work", None);
    pair.pass(12_345);
    pair.finish(first, EndReason::Exited, Some(0));
    pair.top_up(90_000);
    pair.talk();
    let (second, third) = (pair.run(2, "call", Some(8_000)), pair.run(3, "work", None));
    pair.pass(6_000);
    pair.finish(third, EndReason::Exited, Some(3));
    pair.pass(4_000);
    assert!(pair.outcome(second).is_some_and(|(end, _)| end == EndReason::CostReached), "{:?}", pair.outcome(second));
    let never = pair.run(4, "call", None);
    pair.tools.get_mut(&never).unwrap().ms = 0;
    pair.finish(never, EndReason::SetupFailed, None);
    pair
}

fn ended() -> Pair {
    let mut pair = worked();
    pair.agent_input(AgentInput::End);
    pair.talk();
    pair
}

fn json() -> &'static Value {
    static JSON: OnceLock<Value> = OnceLock::new();
    JSON.get_or_init(|| serde_json::to_value(bundle(&ended())).unwrap())
}

fn judge(value: &Value) -> Option<SessionReport> {
    serde_json::from_value::<SessionBundle>(value.clone()).ok().map(|bundle| audit(&bundle, None))
}

#[test]
fn an_ended_session_is_recomputed_to_the_last_share() {
    let pair = ended();
    let report = audit(&bundle(&pair), Some(&facts(&pair.kit)));
    assert!(report.clean() && report.network_compared, "{:#?}", report.findings);
    assert_eq!((report.executions, report.ended, report.disputed), (4, 4, 0));
    let total = usdc(pair.charged());
    let split = orien_protocol::money::Split::of(total);
    assert_eq!((report.charged, report.total_cost, report.closed_at), (total.to_string(), total.to_string(), Some(total.to_string())));
    assert_eq!((report.provider_payout, report.platform_fee), (split.provider.to_string(), split.platform.to_string()));
    assert_eq!((report.reserve, report.ceiling), (split.reserve.to_string(), Some("0.09".to_owned())));
    assert!(report.receipts > 8 && report.notes.is_empty(), "{} {:?}", report.receipts, report.notes);
}

#[test]
fn a_session_under_way_is_clean_too_and_says_what_has_not_ended() {
    let mut pair = worked();
    pair.run(5, "work", None);
    pair.pass(5_000);
    let report = audit(&bundle(&pair), None);
    assert!(report.clean() && !report.network_compared, "{:#?}", report.findings);
    assert_eq!((report.closed_at, report.executions - report.ended), (None, 1));
    assert!(report.notes[0].contains("1 executions"), "{:?}", report.notes);
}

#[test]
fn before_the_provider_has_signed_there_is_nothing_to_prove() {
    let pair = Pair::propose(20_000);
    let refused = Documents::of(pair.agent_log.clone(), &pair.kit.network);
    assert!(matches!(refused, Err(WriteBundleError::NotAgreed)), "{refused:?}");
}

#[test]
fn evidence_from_another_network_is_told() {
    let pair = ended();
    let other = Facts { network: "other-0011223344556677".parse().unwrap(), ..facts(&pair.kit) };
    let report = audit(&bundle(&pair), Some(&other));
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    assert_eq!(report.findings[0].about, "network");
}

#[test]
fn a_receipt_that_charges_too_much_is_shown_as_what_the_provider_signed_and_the_agent_refused() {
    let mut pair = worked();
    let mut receipt = pair.agent_log.iter().rev().find_map(|record| match record {
        orien_protocol::session::agent::AgentRecord::Answered { receipt, .. } => Some(receipt.unverified().clone()),
        _ => None,
    });
    let receipt = receipt.as_mut().unwrap();
    let head = receipt.clone();
    (receipt.number, receipt.previous) = (head.number + 1, Verified::sign(head, &pair.kit.network, &pair.kit.provider.peer).hash());
    receipt.charged = usdc(receipt.charged.micros() + 1);
    let signed = Verified::sign(receipt.clone(), &pair.kit.network, &pair.kit.provider.peer).into_signed();
    pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(signed))));
    assert!(pair.was_disputed());
    let report = audit(&bundle(&pair), None);
    assert!(report.clean(), "{:#?}", report.findings);
    assert_eq!(report.disputed, 1);
    assert!(report.notes[0].contains("disputed"), "{:?}", report.notes);
}

#[test]
fn a_history_that_was_cut_short_contradicts_the_close() {
    let pair = ended();
    let mut short = bundle(&pair);
    short.receipts.pop();
    short.receipts.pop();
    assert!(audit(&short, None).findings.iter().any(|finding| finding.about == "close.evidence"), "the payee closed at more");
    let mut lower = bundle(&pair);
    let terms = pair.agent.terms().unwrap();
    let close = MoneyVerified::sign(Close { channel: terms.channel(), total: usdc(7) }, &pair.kit.domain, &pair.kit.provider.claim);
    lower.close.as_mut().unwrap().total = "0.000007".to_owned();
    lower.close.as_mut().unwrap().evidence = hex::encode(orien_protocol::codec::encode(close.signed()).unwrap());
    let report = audit(&lower, None);
    assert!(report.clean() && report.notes[0].contains("less than"), "{report:#?}");
}

#[test]
fn a_line_that_is_left_out_doubled_or_moved_is_found() {
    for list in ["receipts", "jobs"] {
        let count = json()[list].as_array().unwrap().len();
        for at in 0..count {
            let mut without = json().clone();
            without[list].as_array_mut().unwrap().remove(at);
            assert!(!judge(&without).unwrap().clean(), "{list} without {at}");
            let mut twice = json().clone();
            let line = twice[list][at].clone();
            twice[list].as_array_mut().unwrap().insert(at, line);
            assert!(!judge(&twice).unwrap().clean(), "{list} with {at} twice");
        }
    }
    let mut swapped = json().clone();
    swapped["receipts"].as_array_mut().unwrap().swap(2, 3);
    assert!(!judge(&swapped).unwrap().clean());
}

/// Every value in the file that has no parts, as a path.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, part)| leaves(part, &format!("{path}/{name}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, part)| leaves(part, &format!("{path}/{index}"), found)),
        _ => found.push(path.to_owned()),
    }
}

/// The value with something about it changed.
fn changed(value: &Value, at: usize, by: u8) -> Value {
    match value {
        Value::Null => Value::from("x"),
        Value::Bool(is) => Value::from(!is),
        Value::Number(number) => Value::from(number.as_i64().unwrap() ^ (1 << (by % 30))),
        Value::String(text) if text.is_empty() => Value::from("x"),
        Value::String(text) => {
            let mut bytes = text.clone().into_bytes();
            let at = at % bytes.len();
            let digits = b"0123456789abcdefABCDEF";
            let other = digits.iter().cycle().skip(usize::from(by)).find(|digit| **digit != bytes[at]).unwrap();
            bytes[at] = *other;
            Value::from(String::from_utf8(bytes).unwrap())
        }
        parts => panic!("not a leaf: {parts}"),
    }
}

fn is_found(path: &str, at: usize, by: u8) -> Result<(), String> {
    let mut tampered = json().clone();
    let leaf = tampered.pointer_mut(path).unwrap();
    let before = leaf.clone();
    *leaf = changed(&before, at, by);
    let after = leaf.clone();
    // A file that cannot be read any more is refused as a whole.
    match judge(&tampered) {
        Some(report) if report.clean() => Err(format!("{path} from {before} to {after} went unseen")),
        _ => Ok(()),
    }
}

#[test]
fn every_field_that_is_changed_at_its_ends_is_found() {
    let mut paths = Vec::new();
    leaves(json(), "", &mut paths);
    assert!(paths.len() > 250, "{}", paths.len());
    for (index, path) in paths.iter().enumerate() {
        let (at, by) = [(0, 1), (usize::MAX / 2, 7), (usize::MAX, 3)][index % 3];
        is_found(path, at, by).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_single_character_that_is_changed_is_found(which in 0_usize..10_000, at in any::<usize>(), by in any::<u8>()) {
        let mut paths = Vec::new();
        leaves(json(), "", &mut paths);
        prop_assert_eq!(is_found(&paths[which % paths.len()], at, by), Ok(()));
    }

    #[test]
    fn any_part_that_is_replaced_by_nothing_is_found_but_for_the_close(which in 0_usize..10_000) {
        let mut paths = vec!["/allowance".to_owned()];
        leaves(json(), "", &mut paths);
        let path = &paths[which % paths.len()];
        let mut tampered = json().clone();
        let leaf = tampered.pointer_mut(path).unwrap();
        prop_assume!(!leaf.is_null());
        *leaf = Value::Null;
        prop_assert!(judge(&tampered).is_none_or(|report| !report.clean()), "{} removed", path);
    }
}
