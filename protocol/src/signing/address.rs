//! An account on an EVM chain, in text with the EIP-55 checksum.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A 20-byte account address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Address([u8; 20]);

impl Address {
    /// Takes the 20 bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    pub(super) const fn alloy(&self) -> alloy_primitives::Address {
        alloy_primitives::Address::new(self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.alloy().to_checksum(None))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseAddressError {
    /// Not `0x` and 40 hexadecimal digits.
    #[error("expected 0x and 40 hexadecimal digits")]
    NotHex,
    /// Upper and lower case are mixed and do not form the EIP-55 checksum: probably a typing error.
    #[error("the checksum (EIP-55, upper and lower case) does not match: check the address for a typing error")]
    Checksum,
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").ok_or(ParseAddressError::NotHex)?;
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| ParseAddressError::NotHex)?;
        let address = Self(bytes);
        let one_case = digits == digits.to_ascii_lowercase() || digits == digits.to_ascii_uppercase();
        if one_case || address.to_string() == text { Ok(address) } else { Err(ParseAddressError::Checksum) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eip55_vectors_come_back_and_a_wrong_case_is_a_typing_error() {
        for text in ["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"] {
            assert_eq!(text.parse::<Address>().map(|a| a.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse::<Address>(), Err(ParseAddressError::Checksum));
        assert_eq!("0x12".parse::<Address>(), Err(ParseAddressError::NotHex));
        assert_eq!("5aaeb6053f3e94c9b9a09f33669435e7ef1beaed".parse::<Address>(), Err(ParseAddressError::NotHex));
    }
}
