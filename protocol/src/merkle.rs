//! A Merkle tree over content ids, so that one root stands for a batch and each entry can be shown to be in it.
//!
//! Leaves and inner nodes are hashed in different domains; an odd node moves up unchanged. The root of nothing is zero.

use crate::hash::Hash;

fn leaf(entry: &Hash) -> Hash {
    let mut bytes = [0; 33];
    bytes[1..].copy_from_slice(entry.as_bytes());
    Hash::of(&bytes)
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left.as_bytes());
    bytes[33..].copy_from_slice(right.as_bytes());
    Hash::of(&bytes)
}

/// The root over entries in the given order.
pub fn root(entries: &[Hash]) -> Hash {
    let mut level: Vec<Hash> = entries.iter().map(leaf).collect();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| if let [left, right] = pair { node(left, right) } else { pair[0] }).collect();
    }
    level.first().copied().unwrap_or(Hash::ZERO)
}

/// The siblings from a leaf up to the root: each with whether it stands on the left. None when there is no such entry.
pub fn proof(entries: &[Hash], index: usize) -> Option<Vec<(bool, Hash)>> {
    entries.get(index)?;
    let mut level: Vec<Hash> = entries.iter().map(leaf).collect();
    let (mut at, mut path) = (index, Vec::new());
    while level.len() > 1 {
        if let Some(sibling) = level.get(at ^ 1) {
            path.push((at % 2 == 1, *sibling));
        }
        level = level.chunks(2).map(|pair| if let [left, right] = pair { node(left, right) } else { pair[0] }).collect();
        at /= 2;
    }
    Some(path)
}

/// Whether `entry` with this proof leads to `root`.
pub fn verify(entry: &Hash, proof: &[(bool, Hash)], root: &Hash) -> bool {
    let top = proof.iter().fold(leaf(entry), |below, (left, sibling)| if *left { node(sibling, &below) } else { node(&below, sibling) });
    top == *root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_provable_and_no_other_is() {
        for count in 1..20_u8 {
            let entries: Vec<Hash> = (0..count).map(|i| Hash::of(&[i])).collect();
            let top = root(&entries);
            for (index, entry) in entries.iter().enumerate() {
                let path = proof(&entries, index).unwrap();
                assert!(verify(entry, &path, &top));
                assert!(!verify(&Hash::of(b"other"), &path, &top));
            }
            assert_eq!(proof(&entries, entries.len()), None);
        }
        assert_eq!(root(&[]), Hash::ZERO);
    }
}
