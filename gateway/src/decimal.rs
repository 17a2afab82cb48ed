//! Exact decimals and times as JSON has them.
//!
//! Always true: an amount is printed as a JSON number with its exact digits and read from the exact text of a number or a string; no floating-point number is ever
//! in between. Times are RFC 3339 in UTC with milliseconds.

use std::fmt;
use std::str::FromStr;

use orien_protocol::money::Usdc;
use orien_protocol::time::{Millis, Timestamp};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An amount of USDC in JSON: out as a number, in as a number or a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal(pub(crate) Usdc);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        exact(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get().trim();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        // Nothing that needs an escape in JSON is part of an amount.
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A span in JSON: seconds, with the exact milliseconds as decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Millis);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        exact(&scaled(self.0.0, 3), serializer)
    }
}

/// A share in JSON: percent, from hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u16);

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        exact(&scaled(u64::from(self.0), 2), serializer)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "a share is from 0 to 100 percent with at most two decimals, such as 99.5".to_owned();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !are_digits(whole) || !are_digits(fraction) || whole.len() > 3 || fraction.len() > 2 {
            return Err(refused());
        }
        let permyriad = format!("{whole}{fraction:0<2}").parse::<u32>().ok().and_then(|all| u16::try_from(all).ok());
        permyriad.filter(|all| *all <= 10_000).map(Self).ok_or_else(refused)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get().trim();
        text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).parse().map_err(D::Error::custom)
    }
}

/// A time in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0.0).saturating_mul(1_000_000);
        let text = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|time| time.format(&Rfc3339).ok());
        // A clock beyond the year 9999, as somebody claims it.
        f.write_str(text.as_deref().unwrap_or("9999-12-31T23:59:59Z"))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn exact<S: Serializer>(text: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(text.to_string()).map_err(S::Error::custom)?.serialize(serializer)
}

/// A count of units of `10^-decimals` as exact decimal text without trailing zeros.
pub(crate) fn scaled(units: u64, decimals: usize) -> String {
    let digits = format!("{units:0>width$}", width = decimals.saturating_add(1));
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(decimals));
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Usdc, String> {
        serde_json::from_str::<Decimal>(text).map(|amount| amount.0).map_err(|error| error.to_string())
    }

    #[test]
    fn an_amount_is_read_exactly_from_a_number_or_a_string_and_printed_as_a_number() {
        for (text, micros) in
            [("0.1", 100_000), ("\"0.1\"", 100_000), ("18446744073709.551615", u64::MAX), ("3", 3_000_000), ("0.000001", 1)]
        {
            assert_eq!(read(text).unwrap().micros(), micros, "{text}");
        }
        assert_eq!(serde_json::to_string(&Decimal(Usdc::from_micros(u64::MAX))).unwrap(), "18446744073709.551615");
        assert_eq!(serde_json::to_string(&Decimal(Usdc::ZERO)).unwrap(), "0");
    }

    #[test]
    fn an_exponent_a_sign_a_seventh_decimal_and_other_types_are_refused() {
        for text in ["1e3", "-1", "0.0000001", "true", "null", "{}", "\"\"", "\"1 USDC\"", "\"\\u0031\"", "99999999999999999999"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_read_from_a_number_or_a_string_with_two_decimals() {
        let read = |text: &str| serde_json::from_str::<Percent>(text).ok().map(|share| share.0);
        for (text, permyriad) in [("99.5", 9_950), ("\"99.95\"", 9_995), ("0", 0), ("100", 10_000), ("7", 700), ("0.01", 1)] {
            assert_eq!(read(text), Some(permyriad), "{text}");
        }
        for text in ["100.01", "101", "-1", "1e1", "99.555", "\"\"", "\"5%\"", "\".5\"", "\"5.\"", "true", "65636"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_shares_and_times_are_exact() {
        assert_eq!(serde_json::to_string(&Seconds(Millis(300_000))).unwrap(), "300");
        assert_eq!(serde_json::to_string(&Seconds(Millis(5))).unwrap(), "0.005");
        assert_eq!(serde_json::to_string(&Percent(9_950)).unwrap(), "99.5");
        assert_eq!(serde_json::to_string(&Time(Timestamp(1_770_526_800_000))).unwrap(), "\"2026-02-08T05:00:00Z\"");
        assert_eq!(Time(Timestamp(u64::MAX)).to_string(), "9999-12-31T23:59:59Z");
    }
}
