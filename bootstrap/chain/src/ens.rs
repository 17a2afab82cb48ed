//! Whether a name in ENS leads to an address. Only names that need no normalisation are looked up: anything else is "cannot be checked", never a no.

use alloy_primitives::{B256, keccak256};
use orien_protocol::signing::Address;

use crate::abi::Names;
use crate::chain::Chain;
use crate::error::ChainError;
use crate::reads::is_revert;
use crate::rpc::wire::ours;
use crate::types::Block;

/// The registry of ENS, at the same address on Ethereum and Sepolia.
pub const REGISTRY: Address = Address::from_bytes([
    0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x2e, 0x07, 0x4e, 0xc6, 0x9a, 0x0d, 0xfb, 0x29, 0x97, 0xba, 0x6c, 0x7d, 0x2e, 0x1e,
]);

/// Longest name that is looked up.
const NAME_LIMIT: usize = 253;

/// Chains on which names are registered.
const CHAINS: [u64; 2] = [1, 11_155_111];

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// It leads there.
    To(Address),
    /// It leads nowhere.
    Nowhere,
    /// It is not known whether it does, and why.
    Unchecked(&'static str),
}

/// Where a name leads. `registry` is [`REGISTRY`] but for tests.
pub async fn resolve(chain: &Chain, registry: &Address, name: &str, at: &Block) -> Result<Resolved, ChainError> {
    if registry == &REGISTRY && !CHAINS.contains(&chain.facts().chain_id) {
        return Ok(Resolved::Unchecked("names are registered on Ethereum, and this network is on another chain"));
    }
    let Some(node) = namehash(name) else {
        return Ok(Resolved::Unchecked("only names of lower-case letters, digits and dashes are looked up"));
    };
    let resolver = match chain.read(registry, Names::resolverCall { node }, at).await {
        Ok(resolver) if resolver.is_zero() => return Ok(Resolved::Nowhere),
        Ok(resolver) => ours(resolver),
        Err(error) => return Err(error),
    };
    match chain.read(&resolver, Names::addrCall { node }, at).await {
        Ok(address) if address.is_zero() => Ok(Resolved::Nowhere),
        Ok(address) => Ok(Resolved::To(ours(address))),
        // Resolvers that answer from elsewhere (EIP-3668) refuse here.
        Err(error) if is_revert(&error) => Ok(Resolved::Unchecked("its resolver does not answer on the chain itself")),
        Err(error) => Err(error),
    }
}

/// The hash that stands for a name (EIP-137), if the name is normal as it is (ENSIP-15, as far as ASCII goes).
fn namehash(name: &str) -> Option<B256> {
    if name.len() > NAME_LIMIT || !name.contains('.') {
        return None;
    }
    name.rsplit('.').try_fold(B256::ZERO, |parent, label| {
        let plain = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        // `xn--` and the like say that it stands for something else.
        let extension = label.get(2..4) == Some("--");
        (plain && !label.is_empty() && !extension).then(|| keccak256([parent.0, keccak256(label).0].concat()))
    })
}

#[cfg(test)]
mod tests {
    use alloy_primitives::b256;

    use super::*;

    #[test]
    fn namehash_is_that_of_the_standard() {
        assert_eq!(namehash("foo.eth"), Some(b256!("de9b09fd7c5f901e23a3f19fecc54828e9c848539801e86591bd9801b019f84f")));
    }

    #[test]
    fn names_that_would_need_normalisation_are_not_looked_up() {
        for name in
            ["Foo.eth", "foo", "foo..eth", ".eth", "fo\u{f6}.eth", "xn--fo-fka.eth", "foo .eth", &format!("{}.eth", "x".repeat(300))]
        {
            assert_eq!(namehash(name), None, "{name}");
        }
    }

    #[test]
    fn the_registry_is_the_one_that_everybody_uses() {
        assert_eq!(REGISTRY.to_string().to_ascii_lowercase(), "0x00000000000c2e074ec69a0dfb2997ba6c7d2e1e");
    }
}
