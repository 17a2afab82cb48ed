//! Chains that are known by name: their ids, their USDC and when a block of theirs stays.

use orien_protocol::signing::Address;

use crate::facts::Finality;

/// A chain that a network file can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What it is called in network files.
    pub name: &'static str,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// USDC there.
    pub token: Address,
    /// Name and version of the token's EIP-712 domain, where they are known beforehand. They are read from the token in any case.
    pub token_domain: Option<(&'static str, &'static str)>,
    /// Which block stays.
    pub finality: Finality,
    /// How far the block that stays is behind the newest, in seconds, with some to spare.
    pub finality_lag_seconds: u64,
}

const fn address(bytes: [u8; 20]) -> Address {
    Address::from_bytes(bytes)
}

/// On Arc, USDC is the chain's own coin; this is its face with six decimals.
const ARC_USDC: Address = address([0x36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

/// All of them.
pub const PRESETS: &[Preset] = &[
    Preset { name: "arc", chain_id: 5042, token: ARC_USDC, token_domain: None, finality: Finality::Latest, finality_lag_seconds: 10 },
    Preset {
        name: "arc-testnet",
        chain_id: 5_042_002,
        token: ARC_USDC,
        token_domain: None,
        finality: Finality::Latest,
        finality_lag_seconds: 10,
    },
    Preset {
        name: "base",
        chain_id: 8453,
        token: address([
            0x83, 0x35, 0x89, 0xfc, 0xd6, 0xed, 0xb6, 0xe0, 0x8f, 0x4c, 0x7c, 0x32, 0xd4, 0xf7, 0x1b, 0x54, 0xbd, 0xa0, 0x29, 0x13,
        ]),
        token_domain: Some(("USD Coin", "2")),
        finality: Finality::Finalized,
        finality_lag_seconds: 1800,
    },
    Preset {
        name: "base-sepolia",
        chain_id: 84_532,
        token: address([
            0x03, 0x6c, 0xbd, 0x53, 0x84, 0x2c, 0x54, 0x26, 0x63, 0x4e, 0x79, 0x29, 0x54, 0x1e, 0xc2, 0x31, 0x8f, 0x3d, 0xcf, 0x7e,
        ]),
        token_domain: Some(("USDC", "2")),
        finality: Finality::Finalized,
        finality_lag_seconds: 1800,
    },
    Preset {
        name: "ethereum",
        chain_id: 1,
        token: address([
            0xa0, 0xb8, 0x69, 0x91, 0xc6, 0x21, 0x8b, 0x36, 0xc1, 0xd1, 0x9d, 0x4a, 0x2e, 0x9e, 0xb0, 0xce, 0x36, 0x06, 0xeb, 0x48,
        ]),
        token_domain: Some(("USD Coin", "2")),
        finality: Finality::Finalized,
        finality_lag_seconds: 1800,
    },
    Preset {
        name: "sepolia",
        chain_id: 11_155_111,
        token: address([
            0x1c, 0x7d, 0x4b, 0x19, 0x6c, 0xb0, 0xc7, 0xb0, 0x1d, 0x74, 0x3f, 0xbc, 0x61, 0x16, 0xa9, 0x02, 0x37, 0x9c, 0x72, 0x38,
        ]),
        token_domain: Some(("USDC", "2")),
        finality: Finality::Finalized,
        finality_lag_seconds: 1800,
    },
    Preset {
        name: "arbitrum",
        chain_id: 42_161,
        token: address([
            0xaf, 0x88, 0xd0, 0x65, 0xe7, 0x7c, 0x8c, 0xc2, 0x23, 0x93, 0x27, 0xc5, 0xed, 0xb3, 0xa4, 0x32, 0x26, 0x8e, 0x58, 0x31,
        ]),
        token_domain: Some(("USD Coin", "2")),
        finality: Finality::Finalized,
        finality_lag_seconds: 1800,
    },
];

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The names of all, for errors.
    pub fn names() -> String {
        PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_addresses_that_their_issuer_publishes() {
        let published = [
            ("ethereum", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"),
            ("base", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
            ("arbitrum", "0xaf88d065e77c8cC2239327C5EDb3A432268e5831"),
            ("base-sepolia", "0x036CbD53842c5426634e7929541eC2318f3dCF7e"),
            ("sepolia", "0x1c7D4B196Cb0C7B01d743Fbc6116a902379C7238"),
            ("arc", "0x3600000000000000000000000000000000000000"),
            ("arc-testnet", "0x3600000000000000000000000000000000000000"),
        ];
        assert_eq!(published.len(), PRESETS.len());
        for (name, token) in published {
            assert_eq!(Preset::named(name).unwrap().token.to_string(), token, "{name}");
        }
        assert!(Preset::named("mainnet").is_none());
    }
}
