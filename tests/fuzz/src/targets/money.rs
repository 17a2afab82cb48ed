//! Sums, prices and shares against arithmetic of 128 bits that is written out here.

use orien_protocol::credit::{CreditBook, CreditPolicy};
use orien_protocol::id::SessionId;
use orien_protocol::money::{Meter, Price, Split, Usdc};
use orien_protocol::signing::Address;

use super::bytes::Bytes;
use super::world::usdc;

/// Most executions of one story.
const EXECUTIONS: usize = 32;
/// Most steps of one story.
const STEPS: usize = 64;

/// A meter, what it charges, and what a ceiling still affords; then a split.
pub(crate) fn money(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let (minimum, ceiling) = (bytes.amount(), bytes.amount());
    let mut meter = Meter::default();
    let (mut time, mut fees) = (Some(0_u128), 0_u128);
    for _ in 0..EXECUTIONS {
        if bytes.is_empty() {
            break;
        }
        let price = Price { per_minute: usdc(bytes.amount()), call_fee: usdc(bytes.amount()) };
        let ms = bytes.amount();
        affordable(&meter, price, minimum, ceiling);
        let before = meter;
        if meter.add(price, ms).is_err() {
            // A meter that refused is not used any more by anybody.
            meter = before;
            continue;
        }
        time = time.and_then(|time| time.checked_add(u128::from(price.per_minute.micros()) * u128::from(ms)));
        fees += u128::from(price.call_fee.micros());
        let expected = time.map(|time| (time / 60_000 + fees).max(u128::from(minimum)));
        match meter.charge(usdc(minimum)) {
            Ok(charge) => assert_eq!(Some(u128::from(charge.micros())), expected),
            Err(_) => assert!(expected.is_none_or(|sum| sum > u128::from(u64::MAX))),
        }
    }
    split(minimum, ceiling);
}

/// The answer keeps within the ceiling, and one more millisecond does not.
fn affordable(meter: &Meter, price: Price, minimum: u64, ceiling: u64) {
    let charge_at = |ms: u64| {
        let mut meter = *meter;
        meter.add(price, ms).ok()?;
        meter.charge(usdc(minimum)).ok()
    };
    match meter.affordable_ms(price, usdc(minimum), usdc(ceiling)) {
        Some(ms) => {
            assert!(charge_at(ms).is_some_and(|charge| charge <= usdc(ceiling)), "what is affordable is within the ceiling");
            let more = ms.checked_add(1).and_then(charge_at);
            assert!(ms == u64::MAX || more.is_none_or(|charge| charge > usdc(ceiling)), "and not less than could be afforded");
        }
        None => assert!(charge_at(0).is_none_or(|charge| charge > usdc(ceiling)), "nothing is affordable only if nothing is"),
    }
}

fn split(one: u64, other: u64) {
    let (low, high) = (one.min(other), one.max(other));
    let (before, after) = (Split::of(usdc(low)), Split::of(usdc(high)));
    assert_eq!(after.total(), Ok(usdc(high)), "nothing is lost in a split");
    let step = after.minus(before).expect("each share only grows");
    assert_eq!(step.total().map(Usdc::micros), Ok(high - low));
    assert_eq!(after.platform.micros(), high / 10 / 10 * 7 + high / 10 % 10 * 7 / 10, "seven tenths of the fees");
    assert!(u128::from(after.provider.micros()) * 10 >= u128::from(high) * 9);
}

/// The provider's book of risks: the credit of an account is never above its cap, and what all its sessions use together never above its limit.
pub(crate) fn credit_book(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let policy = CreditPolicy { cap: usdc(bytes.amount()), unredeemed_cap: usdc(bytes.amount()) };
    let interval = usdc(bytes.amount());
    let mut book = CreditBook::new(policy);
    let accounts = [Address::from_bytes([1; 20]), Address::from_bytes([2; 20])];
    let mut redeemed = [[0_u64; 4]; 2];
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        let (who, number, what) = (usize::from(bytes.below(2)), bytes.below(4), bytes.below(4));
        let (account, session) = (accounts[who], SessionId::from_parts(1, u128::from(number)));
        match what {
            0 | 1 => book.note(account, session, usdc(bytes.amount()), usdc(bytes.amount()), what == 1),
            2 => {
                let total = bytes.amount();
                book.redeemed(account, session, usdc(total));
                let most = &mut redeemed[who][usize::from(number)];
                *most = (*most).max(total);
            }
            _ => {}
        }
        let credit = book.credit(account, session, interval);
        let earned = redeemed[who].iter().map(|total| u128::from(*total)).sum::<u128>() / 3;
        assert!(credit <= policy.cap && u128::from(credit.micros()) <= u128::from(interval.micros()) + earned);
        let most = u128::from(policy.unredeemed_cap.micros()) + u128::from(redeemed[who][usize::from(number)]);
        assert!(u128::from(book.unredeemed_ceiling(account, session).micros()) <= most);
    }
}
