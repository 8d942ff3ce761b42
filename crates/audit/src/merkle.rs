//! The Merkle tree of RFC 6962 §2.1 / RFC 9162 §2.1 with SHA-256: hashes, roots, proofs and their
//! verification. Pure functions; where hashes are kept is the caller's business.

use aws_lc_rs::digest::{self, SHA256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Longest entry whose leaf hash is made in one call from the stack.
const ON_STACK: usize = 1023;

/// SHA-256 of `data`.
pub fn sha256(data: &[u8]) -> Hash {
    fixed(digest::digest(&SHA256, data).as_ref())
}

/// The hash of a leaf: SHA-256(0x00 ‖ entry) (RFC 6962 §2.1).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    if entry.len() <= ON_STACK {
        let mut prefixed = [0u8; ON_STACK + 1];
        prefixed[1..=entry.len()].copy_from_slice(entry);
        return sha256(&prefixed[..=entry.len()]);
    }
    let mut context = digest::Context::new(&SHA256);
    context.update(&[0]);
    context.update(entry);
    fixed(context.finish().as_ref())
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right) (RFC 6962 §2.1).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut prefixed = [1u8; 65];
    prefixed[1..33].copy_from_slice(left);
    prefixed[33..].copy_from_slice(right);
    sha256(&prefixed)
}

/// The root of the empty tree: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    sha256(&[])
}

fn fixed(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(bytes);
    hash
}

/// A tree reduced to the roots of its perfect subtrees, largest first: enough to append and to know the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf);
    }

    /// Appends a perfect subtree of 2^`height` leaves; the size must be a multiple of that.
    pub fn push_subtree(&mut self, height: u32, root: Hash) {
        debug_assert_eq!(self.size % (1 << height), 0);
        let mut hash = root;
        let mut waiting = self.size >> height;
        while waiting & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            waiting >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1 << height;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        fold(self.peaks.iter())
    }

    /// The root of a tree whose left part is `self` and whose right part is `right`. The size of `self` must be
    /// a multiple of a power of two not below the size of `right`.
    pub fn root_with(&self, right: &Self) -> Hash {
        fold(self.peaks.iter().chain(&right.peaks))
    }
}

fn fold<'a>(peaks: impl DoubleEndedIterator<Item = &'a Hash>) -> Hash {
    let mut from_right = peaks.rev();
    let Some(last) = from_right.next() else { return empty_root() };
    from_right.fold(*last, |right, left| node_hash(left, &right))
}

/// Gives the root of the perfect subtree of 2^height leaves that starts at a leaf: `(first, height)`.
pub type Subtrees<'a, E> = dyn FnMut(u64, u32) -> Result<Hash, E> + 'a;

/// The root of the first `size` leaves.
///
/// # Errors
/// Whatever `subtrees` returns.
pub fn root<E>(size: u64, subtrees: &mut Subtrees<'_, E>) -> Result<Hash, E> {
    if size == 0 {
        return Ok(empty_root());
    }
    range_root(0, size, subtrees)
}

/// MTH(D[low:high]) of RFC 9162 §2.1.1.
fn range_root<E>(low: u64, high: u64, subtrees: &mut Subtrees<'_, E>) -> Result<Hash, E> {
    let length = high - low;
    if length.is_power_of_two() && low.is_multiple_of(length) {
        return subtrees(low, length.trailing_zeros());
    }
    let middle = low + split(length);
    let left = range_root(low, middle, subtrees)?;
    let right = range_root(middle, high, subtrees)?;
    Ok(node_hash(&left, &right))
}

/// The largest power of two smaller than `length` (which is at least 2).
fn split(length: u64) -> u64 {
    1 << (63 - (length - 1).leading_zeros())
}

/// `PATH(index, D[size])` of RFC 9162 §2.1.3.1. The caller has checked `index < size`.
///
/// # Errors
/// Whatever `subtrees` returns.
pub fn inclusion_path<E>(index: u64, size: u64, subtrees: &mut Subtrees<'_, E>) -> Result<Vec<Hash>, E> {
    let (mut low, mut high) = (0, size);
    let mut path = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            path.push(range_root(middle, high, subtrees)?);
            high = middle;
        } else {
            path.push(range_root(low, middle, subtrees)?);
            low = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// `PROOF(old, D[new])` of RFC 9162 §2.1.4.1; empty for `old == 0` and `old == new`. The caller has checked `old <= new`.
///
/// # Errors
/// Whatever `subtrees` returns.
pub fn consistency_path<E>(old: u64, new: u64, subtrees: &mut Subtrees<'_, E>) -> Result<Vec<Hash>, E> {
    let mut path = Vec::new();
    if old == 0 || old == new {
        return Ok(path);
    }
    let (mut low, mut high) = (0, new);
    while old != high {
        let middle = low + split(high - low);
        if old <= middle {
            path.push(range_root(middle, high, subtrees)?);
            high = middle;
        } else {
            path.push(range_root(low, middle, subtrees)?);
            low = middle;
        }
    }
    // SUBPROOF(m, D[m], true) adds nothing: the verifier has that root already.
    if low != 0 {
        path.push(range_root(low, high, subtrees)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` proves that `leaf` is entry `index` of the tree of `size` entries with `root` (RFC 9162 §2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` proves that the tree (`old`, `old_root`) is a prefix of (`new`, `new_root`) (RFC 9162 §2.1.4.2).
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, path: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return path.is_empty() && *old_root == empty_root();
    }
    let mut rest = path.iter();
    let start = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(start) = start else { return false };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut first_hash, mut second_hash) = (*start, *start);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            first_hash = node_hash(sibling, &first_hash);
            second_hash = node_hash(sibling, &second_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            second_hash = node_hash(&second_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && first_hash == *old_root && second_hash == *new_root
}

/// The root of a perfect subtree given all its leaves (a power of two of them).
pub fn perfect_root(leaves: &[Hash]) -> Hash {
    let mut tree = Frontier::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// The leaves of the Certificate Transparency reference tests.
    fn known_leaves() -> Vec<Vec<u8>> {
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .iter()
            .map(|leaf| hex::decode(leaf).unwrap())
            .collect()
    }

    /// MTH by the letter of RFC 6962 §2.1.
    fn naive_root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
            }
        }
    }

    fn from_leaves(leaves: &[Hash]) -> impl FnMut(u64, u32) -> Result<Hash, Infallible> + '_ {
        |first, height| Ok(naive_root(&leaves[first as usize..first as usize + (1 << height)]))
    }

    fn numbered(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn the_known_tree_of_eight_leaves_has_its_published_roots() {
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Frontier::default();
        assert_eq!(hex::encode(tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, want) in known_leaves().iter().zip(roots) {
            tree.push(leaf_hash(leaf));
            assert_eq!(hex::encode(tree.root()), want);
        }
    }

    #[test]
    fn the_known_inclusion_and_consistency_proofs_are_made() {
        let leaves: Vec<Hash> = known_leaves().iter().map(|leaf| leaf_hash(leaf)).collect();
        let path = inclusion_path(0, 8, &mut from_leaves(&leaves)).unwrap();
        let path: Vec<String> = path.iter().map(hex::encode).collect();
        assert_eq!(
            path,
            [
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ]
        );
        let path = consistency_path(6, 8, &mut from_leaves(&leaves)).unwrap();
        let path: Vec<String> = path.iter().map(hex::encode).collect();
        assert_eq!(
            path,
            [
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ]
        );
    }

    #[test]
    fn long_and_short_leaves_hash_the_same_way() {
        for len in [ON_STACK - 1, ON_STACK, ON_STACK + 1, 65_536] {
            let entry = vec![7u8; len];
            assert_eq!(leaf_hash(&entry), sha256(&[&[0u8][..], &entry].concat()));
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_verifies_and_only_for_its_own_place() {
        for size in 1..40u64 {
            let leaves = numbered(size);
            let top = naive_root(&leaves);
            for index in 0..size {
                let path = inclusion_path(index, size, &mut from_leaves(&leaves)).unwrap();
                assert!(verify_inclusion(&leaves[index as usize], index, size, &path, &top));
                let other = (index + 1) % size;
                assert_eq!(verify_inclusion(&leaves[index as usize], other, size, &path, &top), other == index);
                assert!(!verify_inclusion(&[9; 32], index, size, &path, &top));
            }
            for old in 0..=size {
                let old_root = naive_root(&leaves[..old as usize]);
                let path = consistency_path(old, size, &mut from_leaves(&leaves)).unwrap();
                assert!(verify_consistency(old, &old_root, size, &top, &path), "{old} {size}");
                assert!(!verify_consistency(old, &[9; 32], size, &top, &path));
                if old != 0 {
                    assert!(!verify_consistency(old, &old_root, size, &[9; 32], &path));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_frontier_agrees_with_the_definition(size in 0u64..600, cut in 0u32..6) {
            let leaves = numbered(size);
            let mut tree = Frontier::default();
            let step = 1u64 << cut;
            let whole = size / step * step;
            for first in (0..whole).step_by(step as usize) {
                tree.push_subtree(cut, naive_root(&leaves[first as usize..(first + step) as usize]));
            }
            let mut right = Frontier::default();
            leaves[whole as usize..].iter().for_each(|leaf| right.push(*leaf));
            prop_assert_eq!(tree.root_with(&right), naive_root(&leaves));
            prop_assert_eq!(root(size, &mut from_leaves(&leaves)).unwrap(), naive_root(&leaves));
        }

        #[test]
        fn a_changed_proof_never_verifies(size in 2u64..300, pick in any::<u64>(), bit in any::<u16>()) {
            let leaves = numbered(size);
            let index = pick % size;
            let top = naive_root(&leaves);
            let mut path = inclusion_path(index, size, &mut from_leaves(&leaves)).unwrap();
            let bit = usize::from(bit) % (path.len() * 256);
            path[bit / 256][bit % 256 / 8] ^= 1 << (bit % 8);
            prop_assert!(!verify_inclusion(&leaves[index as usize], index, size, &path, &top));
        }
    }
}
