//! The audit's own way to meter, to split and to print: other formulas than the product's, for the same results.

#![deny(clippy::arithmetic_side_effects)]

/// Micro-USDC, in more bits than any session can fill.
pub(super) type Micros = u128;

/// The charge of everything that ran, from sums that only grow; none when they leave their range.
///
/// Time is charged in 60 000ths of a micro-USDC. The larger of that, rounded down once and with the fees on top, and of the minimum.
pub(super) fn charge(time: u128, fees: u128, minimum: Micros) -> Option<Micros> {
    let remainder = time.checked_rem(60_000)?;
    let whole = time.checked_sub(remainder)?.checked_div(60_000)?;
    let used = whole.checked_add(fees)?;
    Some(if used < minimum { minimum } else { used })
}

/// Price per minute times milliseconds.
pub(super) fn time(per_minute: u64, ms: u64) -> Option<u128> {
    u128::from(ms).checked_mul(u128::from(per_minute))
}

/// Shares of a total: the provider gets nine tenths rounded up, the platform seven tenths of the whole tenths rounded down, the reserve what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) provider: Micros,
    pub(super) platform: Micros,
    pub(super) reserve: Micros,
}

impl Shares {
    pub(super) fn of(total: Micros) -> Option<Self> {
        let provider = total.checked_mul(9)?.checked_next_multiple_of(10)?.checked_div(10)?;
        let tens = total.checked_sub(total.checked_rem(10)?)?;
        let platform = tens.checked_mul(7)?.checked_div(100)?;
        Some(Self { provider, platform, reserve: total.checked_sub(provider)?.checked_sub(platform)? })
    }
}

/// An amount as the file writes it.
pub(super) fn decimal(micros: Micros) -> String {
    let digits = format!("{micros:07}");
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(6));
    let text = format!("{whole}.{fraction}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{Meter, Price, Split, Usdc};

    #[test]
    fn both_ways_to_charge_to_split_and_to_print_agree() {
        let totals = (0..1_000_u64).flat_map(|step| [step, u64::MAX - step, 1 << (step % 64), 123_456_789 * step]);
        for total in totals {
            let (own, product) = (Shares::of(u128::from(total)).unwrap(), Split::of(Usdc::from_micros(total)));
            assert_eq!(own.provider, u128::from(product.provider.micros()), "{total}");
            assert_eq!(own.platform, u128::from(product.platform.micros()), "{total}");
            assert_eq!(own.reserve, u128::from(product.reserve.micros()), "{total}");
            assert_eq!(decimal(u128::from(total)), Usdc::from_micros(total).to_string());
        }
        for (per_minute, ms, fee, minimum) in [(60_000, 12_340, 500, 0), (1, 59_999, 0, 0), (7, 1_000_003, 3, 117), (0, 5, 0, 9)] {
            let price = Price { per_minute: Usdc::from_micros(per_minute), call_fee: Usdc::from_micros(fee) };
            let mut meter = Meter::default();
            meter.add(price, ms).unwrap();
            meter.add(price, ms / 3).unwrap();
            let sum = time(per_minute, ms).unwrap() + time(per_minute, ms / 3).unwrap();
            let product = meter.charge(Usdc::from_micros(minimum)).unwrap();
            assert_eq!(charge(sum, u128::from(2 * fee), u128::from(minimum)), Some(u128::from(product.micros())));
        }
    }
}
