//! A Merkle tree's root over any number of leaves, in logarithmic memory.
//!
//! The tree of RFC 9162 (Certificate Transparency), §2.1.1: leaves and inner nodes are hashed with
//! different prefixes, so that no inner node can be passed off as a leaf; a tree of `n` leaves is
//! split at the largest power of two below `n`.

use sha2::{Digest, Sha256};

use crate::store::Hash;

const LEAF: [u8; 1] = [0];
const NODE: [u8; 1] = [1];

/// A tree in the making: roots of full subtrees, the largest first.
#[derive(Debug, Default)]
pub struct MerkleTree {
    full: Vec<(u32, Hash)>,
    leaves: u64,
}

impl MerkleTree {
    /// Adds the next leaf.
    pub fn push(&mut self, leaf: &[u8]) {
        let (mut height, mut hash) = (0, hash_of(LEAF, leaf, &[]));
        while let Some((_, left)) = self.full.pop_if(|(other, _)| *other == height) {
            hash = hash_of(NODE, &left, &hash);
            height += 1;
        }
        self.full.push((height, hash));
        self.leaves += 1;
    }

    /// Leaves so far.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// The root over all leaves so far; of no leaves, the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.full.iter().rev().map(|(_, hash)| *hash);
        let Some(last) = subtrees.next() else {
            return Sha256::digest([]).into();
        };
        subtrees.fold(last, |right, left| hash_of(NODE, &left, &right))
    }
}

fn hash_of(prefix: [u8; 1], left: &[u8], right: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(prefix);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9162's definition, word by word.
    fn by_definition(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => hash_of(LEAF, leaf, &[]),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                hash_of(NODE, &by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_definition_for_any_number_of_leaves() {
        let mut tree = MerkleTree::default();
        let mut leaves = Vec::new();
        for number in 0..200_u32 {
            assert_eq!(tree.root(), by_definition(&leaves), "{number} leaves");
            leaves.push(number.to_be_bytes().to_vec());
            tree.push(&number.to_be_bytes());
        }
        assert_eq!(tree.leaves(), 200);
    }

    #[test]
    fn the_empty_tree_is_the_hash_of_nothing() {
        let root = hex::encode(MerkleTree::default().root());
        assert!(root.starts_with("e3b0c44298fc1c14"), "{root}");
    }
}
