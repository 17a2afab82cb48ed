//! The audit's own way to split, add and hash: other formulas than the product's, for the same results.

use orien_protocol::hash::Hash;

/// Shares in micro-USDC, in more bits than any file can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Shares {
    pub(super) provider: u128,
    pub(super) platform: u128,
    pub(super) reserve: u128,
}

impl Shares {
    /// Of a cumulative total: the provider gets nine tenths rounded up, the platform seven tenths of the whole tenths rounded down, the reserve what is left.
    pub(super) fn of(total: u64) -> Self {
        let total = u128::from(total);
        let provider = (9 * total).div_ceil(10);
        let platform = (total - total % 10) * 7 / 100;
        Self { provider, platform, reserve: total - provider - platform }
    }

    pub(super) const fn total(self) -> u128 {
        self.provider.saturating_add(self.platform).saturating_add(self.reserve)
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            provider: self.provider.saturating_add(other.provider),
            platform: self.platform.saturating_add(other.platform),
            reserve: self.reserve.saturating_add(other.reserve),
        }
    }

    /// The step from earlier shares; none when one falls.
    pub(super) fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            provider: self.provider.checked_sub(earlier.provider)?,
            platform: self.platform.checked_sub(earlier.platform)?,
            reserve: self.reserve.checked_sub(earlier.reserve)?,
        })
    }
}

/// The Merkle root, from the top down: the left side of a node takes the largest power of two that is less than all.
pub(super) fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::ZERO,
        [leaf] => tagged(0, &[leaf]),
        _ => {
            let left = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(left);
            tagged(1, &[&root(left), &root(right)])
        }
    }
}

fn tagged(tag: u8, parts: &[&Hash]) -> Hash {
    let mut bytes = vec![tag];
    for part in parts {
        bytes.extend_from_slice(part.as_bytes());
    }
    Hash::of(&bytes)
}

#[cfg(test)]
mod tests {
    use orien_protocol::merkle;
    use orien_protocol::money::{Split, Usdc};

    use super::*;

    #[test]
    fn both_ways_to_split_agree_on_every_remainder_and_at_the_ends() {
        let large = (0..1_000).flat_map(|step| [step, u64::MAX - step, 1 << (step % 64), 123_456_789 * step]);
        for total in large {
            let (own, product) = (Shares::of(total), Split::of(Usdc::from_micros(total)));
            assert_eq!(own.provider, u128::from(product.provider.micros()), "{total}");
            assert_eq!(own.platform, u128::from(product.platform.micros()), "{total}");
            assert_eq!(own.reserve, u128::from(product.reserve.micros()), "{total}");
            assert_eq!(own.total(), u128::from(total));
        }
    }

    #[test]
    fn both_ways_to_the_merkle_root_agree() {
        for count in 0..70_u8 {
            let leaves: Vec<Hash> = (0..count).map(|i| Hash::of(&[i])).collect();
            assert_eq!(root(&leaves), merkle::root(&leaves), "{count}");
        }
    }
}
