//! How things look to a person: amounts with their unit, times both ways, sizes, and text of strangers that cannot move the cursor.
//!
//! Always true: nothing that came from a provider reaches a terminal with a control character in it, unless the caller asked for raw output.

pub(crate) mod progress;
pub(crate) mod settlement;
pub(crate) mod table;

use std::time::{Duration, SystemTime};

use orien_protocol::money::Usdc;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Whether a person looks at the results.
pub(crate) fn is_seen() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout())
}

/// Text of strangers with every character that could act on a terminal, or make text look like other text, written out.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out
}

/// A line of a tool's output for a terminal: as [`harmless`], with tabs kept.
pub(crate) fn harmless_line(line: &str) -> String {
    line.split('\t').map(harmless).collect::<Vec<_>>().join("\t")
}

/// Control characters, and those that reverse or hide text.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A member as text: strings as they are (made harmless), nothing for null, everything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

/// The items of a list that may not be there.
pub(crate) fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// An amount as the API has it, number or text. It is for showing: sums are made by the gateway.
pub(crate) fn amount(value: &Value) -> Option<Usdc> {
    match value {
        Value::String(text) => text.parse().ok(),
        // A small amount may come back with an exponent; every amount below 9 billion USDC is exact here.
        Value::Number(number) => number.to_string().parse().ok().or_else(|| format!("{:.6}", number.as_f64()?).parse().ok()),
        _ => None,
    }
}

/// An amount without its unit.
pub(crate) fn usdc(value: &Value) -> String {
    amount(value).map_or_else(|| text(value), |amount| amount.to_string())
}

/// An amount with its unit.
pub(crate) fn money(value: &Value) -> String {
    format!("{} USDC", usdc(value))
}

/// A time as the API has it.
pub(crate) fn time_of(value: &Value) -> Option<SystemTime> {
    OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok().map(SystemTime::from)
}

/// A time, seen from now: `3 min ago`, `in 57 min`.
pub(crate) fn relative(value: &Value) -> String {
    let Some(at) = time_of(value) else { return text(value) };
    let now = SystemTime::now();
    match now.duration_since(at) {
        Ok(past) if past < Duration::from_secs(1) => "now".to_owned(),
        Ok(past) => format!("{} ago", span(past)),
        Err(ahead) => format!("in {}", span(ahead.duration())),
    }
}

/// A time both ways: `3 min ago (2026-01-31 08:15:00 UTC)`.
pub(crate) fn when(value: &Value) -> String {
    match value.as_str() {
        Some(at) if time_of(value).is_some() => {
            format!("{} ({} UTC)", relative(value), harmless(&at.get(..19).unwrap_or(at).replace('T', " ")))
        }
        _ => text(value),
    }
}

/// A length of time given in seconds, in its largest unit.
pub(crate) fn seconds(count: u64) -> String {
    span(Duration::from_secs(count))
}

/// A length of time in its largest unit.
fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Bytes in the largest unit that leaves a number above one.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Milliseconds of a measurement that may not be there.
pub(crate) fn ms(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_text_of_a_stranger_acts_on_a_terminal() {
        let shown = harmless("a\u{1b}[31mred\u{7}\r\n\u{9b}2J\u{202e}evil\u{200b}");
        assert!(!shown.contains(is_harmful), "{shown:?}");
        assert!(shown.contains("\\u{1b}[31mred") && shown.contains("\\u{202e}evil"), "{shown}");
        assert_eq!(harmless_line("a\tb\u{1b}"), "a\tb\\u{1b}");
    }

    #[test]
    fn amounts_are_shown_exactly_however_json_wrote_them() {
        for (value, shown) in
            [(json!(0.000_001), "0.000001"), (json!("0.5"), "0.5"), (json!(3), "3"), (json!(1_234_567.891_234), "1234567.891234")]
        {
            assert_eq!(usdc(&value), shown);
        }
    }

    #[test]
    fn times_are_shown_both_ways() {
        let past = when(&json!("2020-01-02T03:04:05.678Z"));
        assert!(past.ends_with(" d ago (2020-01-02 03:04:05 UTC)"), "{past}");
        assert!(relative(&json!("2999-01-01T00:00:00Z")).starts_with("in "));
    }
}
