//! An amount with six decimals, as JSON has it: read exactly from a number or a text, written as an exact number.
//!
//! Always true: no float is ever made of it.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Millionths in one.
const ONE: u64 = 1_000_000;
/// Digits after the point.
const DECIMALS: usize = 6;

/// Millionths of a unit the door knows nothing about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millionths(pub u64);

/// A text that is no such amount.
#[derive(Debug, thiserror::Error)]
#[error("an amount is a number that is not negative, with at most six decimals, such as 2.50")]
pub struct NoAmount;

impl fmt::Display for Millionths {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / ONE, self.0 % ONE);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        let text = format!("{whole}.{rest:06}");
        formatter.write_str(text.trim_end_matches('0'))
    }
}

impl FromStr for Millionths {
    type Err = NoAmount;

    fn from_str(text: &str) -> Result<Self, NoAmount> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let is_plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_plain(whole) || !is_plain(rest) || rest.len() > DECIMALS {
            return Err(NoAmount);
        }
        let whole: u64 = whole.parse().map_err(|_| NoAmount)?;
        let rest: u64 = format!("{rest:0<DECIMALS$}").parse().map_err(|_| NoAmount)?;
        whole.checked_mul(ONE).and_then(|millionths| millionths.checked_add(rest)).map(Self).ok_or(NoAmount)
    }
}

impl Serialize for Millionths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Millionths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_exactly() {
        for (json, millionths, text) in [
            ("0", 0, "0"),
            ("2.5", 2_500_000, "2.5"),
            ("\"0.000001\"", 1, "0.000001"),
            ("18446744073709.551615", u64::MAX, "18446744073709.551615"),
        ] {
            let read: Millionths = serde_json::from_str(json).unwrap();
            assert_eq!(read, Millionths(millionths), "{json}");
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
        for json in ["-1", "1e3", "1.0000001", "\"\"", "\".5\"", "\"5.\"", "null", "18446744073709.551616", "\"1,5\"", "[]"] {
            assert!(serde_json::from_str::<Millionths>(json).is_err(), "{json}");
        }
    }
}
