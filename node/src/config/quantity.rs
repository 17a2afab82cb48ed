//! Amounts as people write them: processors, bytes, money.
//!
//! Always true: they are read from their own digits, exactly; a value that would have to be rounded is refused. GB and GiB both mean 1024^3 bytes, as with
//! `docker --memory`: a provider who writes "4GB" means the machine's four, and no tool is given less than it was sold.

use orien_protocol::money::{ParseUsdcError, Usdc};

use super::findings::{Findings, quote};
use super::source::Field;

/// A CPU share below a hundredth is a typing error, and nothing useful runs with it.
const CPU_MILLIS_MIN: u32 = 10;
/// More processors than one machine has.
const CPU_MILLIS_MAX: u32 = 1_024_000;
/// Above every plausible price; an amount beyond it has a misplaced point.
const AMOUNT_MAX: Usdc = Usdc::from_micros(1_000_000 * 1_000_000);

/// Processors such as "2" or "0.5", in thousandths.
pub(super) fn cpu_millis(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<u32> {
    let text = field.digits(findings, "a number of processors such as \"2\"")?;
    let fix = "write the number of processors, from 0.01 to 1024, such as \"2\" or \"0.5\"";
    let millis = scaled(text, 1000).and_then(|millis| u32::try_from(millis).ok());
    match millis {
        Some(millis) if (CPU_MILLIS_MIN..=CPU_MILLIS_MAX).contains(&millis) => Some(millis),
        _ => {
            field.fault(findings, format!("{} is not a number of processors", quote(text)), fix);
            None
        }
    }
}

/// Bytes such as "4GB", "512MB", "1GiB" or 1048576.
pub(super) fn bytes(field: &Field<'_, '_>, findings: &mut Findings<'_>, min: u64, max: u64) -> Option<u64> {
    let text = field.digits(findings, "a size such as \"4GB\"")?;
    let Some(bytes) = parse_bytes(text) else {
        let fix = "write a number and a unit (B, KB, MB, GB or TB, each 1024 of the one before), such as \"4GB\" or \"512MB\"";
        field.fault(findings, format!("{} is not a size", quote(text)), fix);
        return None;
    };
    if (min..=max).contains(&bytes) {
        return Some(bytes);
    }
    let mut fix = format!("write a size from {} to {}", show_bytes(min), show_bytes(max));
    if bytes < min && text.bytes().all(|b| b.is_ascii_digit()) {
        fix.push_str("; a number without a unit means bytes");
    }
    field.fault(findings, format!("{} is out of range", quote(text)), fix);
    None
}

fn parse_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return None,
    };
    scaled(number, 1_u64 << shift)
}

/// A decimal number times `unit`, if that is whole and fits.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    // More decimals than any unit can make whole.
    const DECIMALS_MAX: usize = 18;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > DECIMALS_MAX {
        return None;
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number = whole.parse::<u64>().ok().map(u128::from)?.checked_mul(scale)?.checked_add(fraction.parse::<u128>().ok()?)?;
    let product = number.checked_mul(u128::from(unit))?;
    if product.checked_rem(scale)? != 0 {
        return None;
    }
    u64::try_from(product.checked_div(scale)?).ok()
}

/// An amount of USDC such as 0.25 or "0.25".
pub(super) fn usdc(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<Usdc> {
    let text = field.digits(findings, "an amount of USDC such as 0.25")?;
    let (problem, fix) = match text.parse::<Usdc>() {
        Ok(amount) if amount <= AMOUNT_MAX => return Some(amount),
        Ok(_) | Err(ParseUsdcError::TooLarge) => (format!("{} USDC is too much", quote(text)), "write at most 1000000"),
        Err(ParseUsdcError::TooFine) => (format!("{} is finer than USDC", quote(text)), "use at most 6 decimals, such as 0.000001"),
        Err(ParseUsdcError::NotDecimal) => (
            format!("{} is not an amount of USDC", quote(text)),
            "write a decimal number without sign, exponent or separators, such as 0.25",
        ),
    };
    field.fault(findings, problem, fix);
    None
}

/// Bytes in the largest unit that is exact, such as `4 GB`.
pub(super) fn show_bytes(bytes: u64) -> String {
    let units = [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")];
    let exact = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    exact.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// Thousandths of a CPU as a decimal, such as `2` or `0.5`.
pub(super) fn show_cpu(millis: u32) -> String {
    // Thousandths of micro-USDC and of processors have the same decimal form.
    Usdc::from_micros(u64::from(millis).saturating_mul(1000)).to_string()
}
