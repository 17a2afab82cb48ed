//! Amounts of USDC, prices, the charge of a session and how it is split.
//!
//! Amounts are whole micro-USDC and every sum is checked; there is no float anywhere. The charge of a session is rounded down once, over the
//! sum of all its executions, so that both sides compute the same integer. The split is taken of cumulative totals and each share only ever grows with the total.

#![deny(clippy::arithmetic_side_effects)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Decimal places of USDC.
pub const USDC_DECIMALS: usize = 6;

const MS_PER_MINUTE: u128 = 60_000;

/// A sum or a difference left the range of the amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an amount left the range of 64 bits of micro-USDC")]
pub struct AmountOverflow;

/// An amount of micro-USDC (10^-6 USDC).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Usdc(u64);

impl Usdc {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount given in micro-USDC.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The amount in micro-USDC.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The sum, or an error when it does not fit.
    pub fn plus(self, other: Self) -> Result<Self, AmountOverflow> {
        self.0.checked_add(other.0).map(Self).ok_or(AmountOverflow)
    }

    /// The difference, or an error when `other` is more.
    pub fn minus(self, other: Self) -> Result<Self, AmountOverflow> {
        self.0.checked_sub(other.0).map(Self).ok_or(AmountOverflow)
    }

    /// By how much this exceeds `other`; nothing when it does not. For bounds and reports, never for a ledger.
    pub const fn excess_over(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Usdc {
    /// Exact decimal without trailing zeros: `0.25`, `3`, `0.000001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{fraction:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl fmt::Debug for Usdc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} USDC")
    }
}

/// A text is not an amount of USDC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseUsdcError {
    /// Something other than digits and one decimal point.
    #[error("expected a decimal amount of USDC such as 0.25, without sign, exponent or separators")]
    NotDecimal,
    /// More digits after the point than USDC has.
    #[error("USDC has {USDC_DECIMALS} decimal places; the amount has more")]
    TooFine,
    /// Beyond 64 bits of micro-USDC.
    #[error("the amount is more than 18446744073709.551615 USDC")]
    TooLarge,
}

impl FromStr for Usdc {
    type Err = ParseUsdcError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(ParseUsdcError::NotDecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > USDC_DECIMALS {
            return Err(ParseUsdcError::TooFine);
        }
        let whole: u64 = whole.parse().map_err(|_| ParseUsdcError::TooLarge)?;
        let fraction: u64 = format!("{fraction:0<6}").parse().map_err(|_| ParseUsdcError::NotDecimal)?;
        let micros = whole.checked_mul(1_000_000).and_then(|w| w.checked_add(fraction));
        micros.map(Self).ok_or(ParseUsdcError::TooLarge)
    }
}

/// What a tool costs: by time, and per call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Price {
    /// Per minute of effective time.
    pub per_minute: Usdc,
    /// Once per execution that started.
    pub call_fee: Usdc,
}

impl Price {
    /// Charge of one execution on its own: fee plus time, rounded down. A session's charge is not the sum of these; see [`Meter`].
    pub fn of(self, effective_ms: u64) -> Result<Usdc, AmountOverflow> {
        let mut meter = Meter::default();
        meter.add(self, effective_ms)?;
        meter.charge(Usdc::ZERO)
    }
}

/// The sum of a session's executions before rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meter {
    /// Sum of price per minute times effective milliseconds.
    numerator: u128,
    /// Sum of call fees.
    fees: Usdc,
}

impl Meter {
    /// Adds one execution.
    pub fn add(&mut self, price: Price, effective_ms: u64) -> Result<(), AmountOverflow> {
        let product = u128::from(price.per_minute.0).checked_mul(u128::from(effective_ms)).ok_or(AmountOverflow)?;
        self.numerator = self.numerator.checked_add(product).ok_or(AmountOverflow)?;
        self.fees = self.fees.plus(price.call_fee)?;
        Ok(())
    }

    /// The session's charge: the larger of `minimum` and time rounded down once, plus fees.
    pub fn charge(&self, minimum: Usdc) -> Result<Usdc, AmountOverflow> {
        let time = self.numerator.checked_div(MS_PER_MINUTE).ok_or(AmountOverflow)?;
        let time = Usdc(u64::try_from(time).map_err(|_| AmountOverflow)?);
        Ok(time.plus(self.fees)?.max(minimum))
    }

    /// The most milliseconds that an execution at `price` may add without the charge passing `ceiling`; none when its fee alone does.
    pub fn affordable_ms(&self, price: Price, minimum: Usdc, ceiling: Usdc) -> Option<u64> {
        let fees = self.fees.plus(price.call_fee).ok()?;
        if minimum > ceiling {
            return None;
        }
        let time = ceiling.minus(fees).ok()?;
        // The charge stays at `time` until the numerator reaches the next whole micro-USDC.
        let room = u128::from(time.0).checked_add(1)?.checked_mul(MS_PER_MINUTE)?.checked_sub(1)?.checked_sub(self.numerator)?;
        match room.checked_div(u128::from(price.per_minute.0)) {
            Some(ms) => Some(u64::try_from(ms).unwrap_or(u64::MAX)),
            None => Some(u64::MAX),
        }
    }
}

/// How a cumulative total is shared: 90 % provider, 7 % platform, 3 % reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Split {
    /// The provider's share; takes the rounding.
    pub provider: Usdc,
    /// The platform's share.
    pub platform: Usdc,
    /// The reserve's share.
    pub reserve: Usdc,
}

impl Split {
    /// Splits a cumulative total: `F = T/10`, platform `7F/10`, reserve `F - platform`, provider `T - F`, all rounded down.
    /// Every share is monotone in `T`, so what is owed next is the difference of two splits.
    #[expect(clippy::arithmetic_side_effects, reason = "each term is a part of the total, and the product is taken in 128 bits")]
    #[expect(clippy::cast_possible_truncation, reason = "7/10 of a tenth of 64 bits fits in 64 bits")]
    pub const fn of(total: Usdc) -> Self {
        let fees = total.0 / 10;
        let platform = (fees as u128 * 7 / 10) as u64;
        Self { provider: Usdc(total.0 - fees), platform: Usdc(platform), reserve: Usdc(fees - platform) }
    }

    /// What the step from an earlier cumulative split to this one adds to each share.
    pub fn minus(self, earlier: Self) -> Result<Self, AmountOverflow> {
        Ok(Self {
            provider: self.provider.minus(earlier.provider)?,
            platform: self.platform.minus(earlier.platform)?,
            reserve: self.reserve.minus(earlier.reserve)?,
        })
    }

    /// All shares together.
    pub fn total(self) -> Result<Usdc, AmountOverflow> {
        self.provider.plus(self.platform)?.plus(self.reserve)
    }
}
