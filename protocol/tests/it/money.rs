//! Exact sums, for every amount.

use orien_protocol::money::{Meter, ParseUsdcError, Price, Split, Usdc};
use proptest::prelude::*;

use crate::kit::usdc;

proptest! {
    #[test]
    fn shares_add_up_and_never_fall(a in any::<u64>(), b in any::<u64>()) {
        let (low, high) = (Split::of(usdc(a.min(b))), Split::of(usdc(a.max(b))));
        prop_assert_eq!(high.total().unwrap().micros(), a.max(b));
        let step = high.minus(low).unwrap();
        prop_assert_eq!(step.total().unwrap().micros(), a.abs_diff(b));
    }

    #[test]
    fn an_amount_comes_back_from_its_text(micros in any::<u64>()) {
        prop_assert_eq!(usdc(micros).to_string().parse::<Usdc>(), Ok(usdc(micros)));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,40}") {
        let _ = text.parse::<Usdc>();
    }

    #[test]
    fn the_affordable_time_is_the_last_that_fits(
        before in 0..10_000_000_u64, per_minute in 1..10_000_000_u64, fee in 0..5_000_u64, minimum in 0..5_000_u64, ceiling in 0..50_000_000_u64,
    ) {
        let price = Price { per_minute: usdc(per_minute), call_fee: usdc(fee) };
        let mut meter = Meter::default();
        meter.add(Price { per_minute: usdc(777), call_fee: usdc(3) }, before).unwrap();
        let charge = |ms| {
            let mut meter = meter;
            meter.add(price, ms).unwrap();
            meter.charge(usdc(minimum)).unwrap()
        };
        match meter.affordable_ms(price, usdc(minimum), usdc(ceiling)) {
            Some(ms) => {
                prop_assert!(charge(ms) <= usdc(ceiling));
                prop_assert!(charge(ms + 1) > usdc(ceiling));
            }
            None => prop_assert!(charge(0) > usdc(ceiling)),
        }
    }
}

#[test]
fn split_vectors_are_the_ones_that_the_contract_uses() {
    for (total, provider, platform, reserve) in
        [(0, 0, 0, 0), (9, 9, 0, 0), (10, 9, 0, 1), (19, 18, 0, 1), (100, 90, 7, 3), (1_000_000, 900_000, 70_000, 30_000)]
    {
        let split = Split::of(usdc(total));
        assert_eq!((split.provider.micros(), split.platform.micros(), split.reserve.micros()), (provider, platform, reserve), "of {total}");
    }
}

#[test]
fn amounts_are_plain_decimals() {
    for (text, micros) in
        [("0", 0), ("0.25", 250_000), ("3", 3_000_000), ("3.000000", 3_000_000), ("007.5", 7_500_000), ("1.0000000", 1_000_000)]
    {
        assert_eq!(text.parse::<Usdc>().map(Usdc::micros), Ok(micros), "{text}");
    }
    for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1_000", "1,5", " 1", "0x10", "1.5.0"] {
        assert_eq!(text.parse::<Usdc>(), Err(ParseUsdcError::NotDecimal), "{text}");
    }
    assert_eq!("0.0000001".parse::<Usdc>(), Err(ParseUsdcError::TooFine));
    assert_eq!("18446744073709.551616".parse::<Usdc>(), Err(ParseUsdcError::TooLarge));
    assert_eq!(usdc(u64::MAX).to_string(), "18446744073709.551615");
}

#[test]
fn a_minimum_that_fills_the_ceiling_leaves_its_time_and_one_above_it_leaves_none() {
    let (price, meter) = (Price { per_minute: usdc(60_000), call_fee: usdc(0) }, Meter::default());
    assert_eq!(meter.affordable_ms(price, usdc(5_000), usdc(5_000)), Some(5_000));
    assert_eq!(meter.affordable_ms(price, usdc(4_999), usdc(5_000)), Some(5_000));
    assert_eq!(meter.affordable_ms(price, usdc(5_002), usdc(5_000)), None);
}

#[test]
fn sums_beyond_the_range_are_errors() {
    let mut meter = Meter::default();
    let dear = Price { per_minute: usdc(u64::MAX), call_fee: usdc(0) };
    meter.add(dear, 60_000).unwrap();
    assert_eq!(meter.charge(usdc(0)), Ok(usdc(u64::MAX)));
    meter.add(dear, 1).unwrap();
    assert!(meter.charge(usdc(0)).is_err());
    assert!(meter.add(Price { per_minute: usdc(0), call_fee: usdc(u64::MAX) }, 0).is_ok());
    assert!(meter.add(Price { per_minute: usdc(0), call_fee: usdc(1) }, 0).is_err());
}
