//! The machine of one transaction: nonces, fees, what follows from what is seen.

use orien_chain::fees::FORMS_MAX;
use orien_chain::{FeeQuote, Fees, Wei};
use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::time::Millis;
use orien_settlement::paying::{Effect, FlightClaim, Inclusion, Input, Look, Machine, Rules, Sender, Stage, Told};

use crate::kit::{START, address, after};

const GWEI: u128 = 1_000_000_000;

fn quote(base: u128, tip: u128) -> FeeQuote {
    FeeQuote { base_fee: Wei(base * GWEI), tip: Wei(tip * GWEI) }
}

fn hash(n: u8) -> Hash {
    Hash::from_bytes([n; 32])
}

fn rules() -> Rules {
    Rules { fee_cap: Wei(100 * GWEI), ..Rules::default() }
}

fn plan(nonce: u64) -> Input {
    let claim = FlightClaim { channel: ChannelId::from_hash(hash(9)), payee: address(1), total: Usdc::from_micros(5), closes: false };
    Input::Plan { claims: vec![claim], amount: Usdc::from_micros(5), gas_limit: 500_000, quote: quote(10, 1), nonce }
}

fn look(latest: u64, last: u64) -> Look {
    Look { folded: 100, nonce_latest: latest, nonce_final: last, quote: quote(10, 1), included: None }
}

fn sign_of(effects: &[Effect]) -> Option<(Fees, bool)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Sign { fees, is_no_op } => Some((*fees, *is_no_op)),
        _ => None,
    })
}

/// A machine whose first transaction was signed as `hash(1)` and taken by a node.
fn flying() -> Machine {
    let mut machine = Machine::new(rules(), Sender::default(), None);
    let effects = machine.turn(plan(7), START);
    let (fees, is_no_op) = sign_of(&effects).unwrap();
    machine.turn(Input::Signed { hash: hash(1), fees, is_no_op }, START);
    machine.turn(Input::Told(hash(1), Told::Taken), START);
    machine
}

/// Lets `count` stalls pass, signing whatever is asked for; what was signed.
fn stall(machine: &mut Machine, count: u64) -> Vec<(Fees, bool)> {
    let mut signed = Vec::new();
    for n in 1..=count * 6 {
        let now = after(Millis(n * 20_000));
        for effect in machine.turn(Input::Looked(look(7, 7)), now) {
            match effect {
                Effect::Sign { fees, is_no_op } => {
                    signed.push((fees, is_no_op));
                    let hash = hash(u8::try_from(signed.len() + 1).unwrap());
                    machine.turn(Input::Signed { hash, fees, is_no_op }, now);
                    machine.turn(Input::Told(hash, Told::Taken), now);
                }
                Effect::Broadcast(hash) => drop(machine.turn(Input::Told(hash, Told::Taken), now)),
                _ => {}
            }
        }
    }
    signed
}

#[test]
fn bytes_are_stored_before_a_node_sees_them_and_the_plan_before_they_are_made() {
    let mut machine = Machine::new(rules(), Sender::default(), None);
    let planned = machine.turn(plan(7), START);
    assert!(matches!(planned[..], [Effect::Persist, Effect::Sign { is_no_op: false, .. }]));
    assert_eq!(machine.sender().next_nonce, Some(8));
    let (fees, is_no_op) = sign_of(&planned).unwrap();
    assert_eq!(fees, Fees { max_fee: Wei(21 * GWEI), tip: Wei(GWEI) });
    let signed = machine.turn(Input::Signed { hash: hash(1), fees, is_no_op }, START);
    assert_eq!(signed, [Effect::Persist, Effect::Broadcast(hash(1))]);
}

#[test]
fn a_nonce_belongs_to_one_flight_and_the_next_takes_the_next() {
    let mut machine = flying();
    assert_eq!(machine.turn(plan(8), START), [], "one at a time");
    let found = Inclusion { hash: hash(1), block: 50, block_hash: hash(50), success: true };
    machine.turn(Input::Looked(Look { included: Some(found), ..look(8, 8) }), START);
    assert!(machine.flight().unwrap().is_over());
    assert_eq!(machine.turn(plan(7), START), [], "a node that is behind does not make us use a nonce twice");
    machine.turn(plan(8), START);
    assert_eq!(machine.flight().unwrap().nonce, 8);
}

#[test]
fn a_chain_that_counts_more_of_our_transactions_than_we_made_halts() {
    let mut machine = Machine::new(rules(), Sender { next_nonce: Some(3) }, None);
    let effects = machine.turn(plan(4), START);
    assert!(matches!(&effects[..], [Effect::Halt("strangers_nonce", _)]), "{effects:?}");
    assert!(machine.flight().is_none());
}

#[test]
fn a_receipt_is_not_final_before_its_block_is_and_its_logs_are_in_the_books() {
    let mut machine = flying();
    let found = Inclusion { hash: hash(1), block: 120, block_hash: hash(50), success: true };
    // Preconfirmed: a node shows a receipt, and its block is beyond what is final.
    machine.turn(Input::Looked(Look { included: Some(found), ..look(8, 7) }), START);
    assert!(matches!(machine.flight().unwrap().stage, Stage::Included { block: 120, .. }));
    // Final for the node, and not yet folded.
    machine.turn(Input::Looked(Look { included: Some(found), folded: 119, ..look(8, 8) }), START);
    assert!(!machine.flight().unwrap().is_over());
    machine.turn(Input::Looked(Look { included: Some(found), folded: 120, ..look(8, 8) }), START);
    assert_eq!(machine.flight().unwrap().stage, Stage::Final { hash: hash(1), block: 120, success: true });
}

#[test]
fn a_block_that_is_taken_back_sends_the_same_bytes_again() {
    let mut machine = flying();
    let found = Inclusion { hash: hash(1), block: 120, block_hash: hash(50), success: true };
    machine.turn(Input::Looked(Look { included: Some(found), ..look(8, 7) }), START);
    let effects = machine.turn(Input::Looked(look(7, 7)), START);
    assert_eq!(effects[..2], [Effect::Persist, Effect::Broadcast(hash(1))]);
    assert_eq!(machine.flight().unwrap().stage, Stage::Submitted);
}

#[test]
fn a_stall_raises_both_fees_by_an_eighth_up_to_the_cap_and_then_uses_the_nonce_up_with_nothing() {
    let mut machine = flying();
    let signed = stall(&mut machine, 30);
    let mut before = Fees { max_fee: Wei(21 * GWEI), tip: Wei(GWEI) };
    for (fees, is_no_op) in &signed {
        assert!(fees.max_fee.0 * 8 >= before.max_fee.0 * 9 && fees.tip.0 * 8 >= before.tip.0 * 9, "{before:?} to {fees:?}");
        assert!(*is_no_op || fees.max_fee <= rules().fee_cap);
        before = *fees;
    }
    let empty: Vec<bool> = signed.iter().map(|(_, is_no_op)| *is_no_op).collect();
    assert_eq!(empty.iter().filter(|empty| **empty).count(), 1, "{empty:?}");
    assert_eq!(empty.last(), Some(&true), "and nothing is raised after it");
    assert_eq!(machine.flight().unwrap().attempts.len(), signed.len() + 1, "every one of them is watched");
}

#[test]
fn a_nonce_whose_attempts_run_out_below_the_cap_is_used_up_with_nothing_by_the_last_of_them() {
    // A cap that eighteen steps of an eighth do not reach.
    let mut machine = Machine::new(Rules { fee_cap: Wei(10_000 * GWEI), ..Rules::default() }, Sender::default(), None);
    let (fees, is_no_op) = sign_of(&machine.turn(plan(7), START)).unwrap();
    machine.turn(Input::Signed { hash: hash(1), fees, is_no_op }, START);
    machine.turn(Input::Told(hash(1), Told::Taken), START);
    let signed = stall(&mut machine, 60);
    assert_eq!(machine.flight().unwrap().attempts.len(), FORMS_MAX);
    let empty: Vec<usize> = signed.iter().enumerate().filter(|(_, (_, is_no_op))| *is_no_op).map(|(at, _)| at).collect();
    assert_eq!(empty, [FORMS_MAX - 2], "the last, and no other");
    let (last, before) = (signed[FORMS_MAX - 2].0, signed[FORMS_MAX - 3].0);
    assert!(last.max_fee.0 * 8 >= before.max_fee.0 * 9, "{before:?} to {last:?}");
}

#[test]
fn an_early_attempt_that_wins_after_all_ends_the_flight() {
    let mut machine = flying();
    let signed = stall(&mut machine, 30);
    assert!(signed.last().unwrap().1);
    let found = Inclusion { hash: hash(2), block: 60, block_hash: hash(60), success: true };
    machine.turn(Input::Looked(Look { included: Some(found), ..look(8, 8) }), after(Millis(9_000_000)));
    assert_eq!(machine.flight().unwrap().stage, Stage::Final { hash: hash(2), block: 60, success: true });
}

#[test]
fn no_answer_and_no_receipt_never_end_a_flight_but_a_final_nonce_without_one_of_ours_does() {
    let mut machine = flying();
    for told in [Told::Unknown, Told::NonceTooLow, Told::Underpriced, Told::NoGasMoney, Told::FeeTooLow, Told::Rejected("no".to_owned())] {
        machine.turn(Input::Told(hash(1), told), START);
        assert!(!machine.flight().unwrap().is_over());
    }
    for n in 0..100 {
        machine.turn(Input::Looked(look(8, 7)), after(Millis(n * 60_000)));
    }
    assert!(!machine.flight().unwrap().is_over(), "the newest block can be taken back");
    assert_eq!(machine.turn(Input::Looked(look(8, 8)), after(Millis(7_000_000))), [], "a node may be behind with receipts");
    let effects = machine.turn(Input::Looked(look(8, 8)), after(Millis(7_120_000)));
    assert!(matches!(&effects[..], [Effect::Persist, Effect::Halt("strangers_nonce", _)]), "{effects:?}");
    assert_eq!(machine.flight().unwrap().stage, Stage::Lost);
}

#[test]
fn what_was_planned_or_signed_before_a_crash_goes_on_after_it() {
    let mut machine = Machine::new(rules(), Sender::default(), None);
    machine.turn(plan(7), START);
    let mut again = Machine::new(rules(), machine.sender(), machine.flight().cloned());
    let (fees, is_no_op) = sign_of(&again.turn(Input::Looked(look(7, 7)), START)).expect("a planned one is signed");
    again.turn(Input::Signed { hash: hash(1), fees, is_no_op }, START);
    let mut later = Machine::new(rules(), again.sender(), again.flight().cloned());
    assert_eq!(later.turn(Input::Looked(look(7, 7)), after(Millis(999_999))), [Effect::Broadcast(hash(1))], "the same bytes first");
}

#[test]
fn gas_above_the_cap_takes_no_nonce() {
    let mut machine = Machine::new(rules(), Sender::default(), None);
    let Input::Plan { claims, amount, gas_limit, nonce, .. } = plan(7) else { unreachable!() };
    let effects = machine.turn(Input::Plan { claims, amount, gas_limit, nonce, quote: quote(101, 1) }, START);
    assert!(matches!(&effects[..], [Effect::Warn("gas_above_cap", _)]), "{effects:?}");
    assert_eq!(machine.sender().next_nonce, None);
}
