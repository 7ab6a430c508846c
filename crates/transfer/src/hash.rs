//! Groups of 1 MiB as complete subtrees of BLAKE3, and the merging of their values into the root of a file.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Size of a full group in bytes: 1024 chunks, so a complete subtree of BLAKE3. The last group may be shorter.
pub const GROUP_BYTES: usize = 1 << 20;

/// A BLAKE3 chaining value, or for a file of one group its plain BLAKE3 hash.
pub type Value = [u8; 32];

/// How many groups a file of `size` bytes has: 0 where it is empty.
pub const fn groups_of(size: u64) -> u32 {
    let groups = size.div_ceil(GROUP_BYTES as u64);
    if groups > u32::MAX as u64 { u32::MAX } else { groups as u32 }
}

/// Length in bytes of group `group` of a file of `size` bytes; 0 where there is no such group.
pub const fn group_length(size: u64, group: u32) -> usize {
    let start = group as u64 * GROUP_BYTES as u64;
    let left = size.saturating_sub(start);
    if left > GROUP_BYTES as u64 { GROUP_BYTES } else { left as usize }
}

/// The value of group number `group` (from 0) of a file of `groups` groups.
///
/// For a file of one group it is the root itself; lengths that no group can have give zeros, which match nothing.
pub fn group_value(group: u32, groups: u32, bytes: &[u8]) -> Value {
    let mut hasher = GroupHasher::new(group, groups);
    hasher.update(bytes);
    hasher.finish()
}

/// Hashes one group piece by piece; see [`group_value`].
#[derive(Clone, Debug)]
pub struct GroupHasher {
    hasher: blake3::Hasher,
    length: usize,
    only: bool,
}

impl GroupHasher {
    /// Begins group number `group` of a file of `groups` groups.
    pub fn new(group: u32, groups: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        let only = groups <= 1;
        if !only {
            hasher.set_input_offset(u64::from(group) * GROUP_BYTES as u64);
        }
        GroupHasher { hasher, length: 0, only }
    }

    /// Takes in the next bytes; those beyond the length of a group spoil the value.
    pub fn update(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len());
        if self.length <= GROUP_BYTES {
            self.hasher.update(bytes);
        }
    }

    /// The value of the group.
    pub fn finish(&self) -> Value {
        if self.length == 0 || self.length > GROUP_BYTES {
            [0; 32]
        } else if self.only {
            *self.hasher.finalize().as_bytes()
        } else {
            self.hasher.finalize_non_root()
        }
    }
}

/// Merges the values of a file's groups, in order, into its root; holds at most one value per level of the tree.
#[derive(Clone, Debug, Default)]
pub struct Root {
    stack: Vec<Value>,
    groups: u32,
}

impl Root {
    /// Takes in the value of the next group.
    pub fn push(&mut self, value: Value) {
        // Lazily: only once a further group is known to follow may a pair be merged as an inner node.
        while self.stack.len() > self.groups.count_ones() as usize {
            self.merge_top();
        }
        self.stack.push(value);
        self.groups += 1;
    }

    /// How many groups were taken in.
    pub fn groups(&self) -> u32 {
        self.groups
    }

    /// The BLAKE3 hash of the whole file.
    #[must_use]
    pub fn finish(mut self) -> Value {
        while self.stack.len() > 2 {
            self.merge_top();
        }
        match self.stack[..] {
            [left, right] => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
            [only] => only,
            _ => *blake3::hash(b"").as_bytes(),
        }
    }

    fn merge_top(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_values_merge_to_the_plain_hash_of_the_file() {
        let data: Vec<u8> = (0..9 * GROUP_BYTES as u32 + 7).map(|i| (i % 251) as u8).collect();
        for size in [
            0,
            1,
            1024,
            1025,
            GROUP_BYTES - 1,
            GROUP_BYTES,
            GROUP_BYTES + 1,
            2 * GROUP_BYTES,
            3 * GROUP_BYTES,
            data.len(),
        ] {
            let groups = groups_of(size as u64);
            let mut root = Root::default();
            for (number, bytes) in (0..).zip(data[..size].chunks(GROUP_BYTES)) {
                assert_eq!(bytes.len(), group_length(size as u64, number));
                root.push(group_value(number, groups, bytes));
            }
            assert_eq!(root.groups(), groups);
            assert_eq!(root.finish(), *blake3::hash(&data[..size]).as_bytes(), "{size}");
        }
    }

    #[test]
    fn impossible_lengths_match_nothing_and_do_not_panic() {
        assert_eq!(group_value(3, 9, b""), [0; 32]);
        assert_eq!(group_value(3, 9, &vec![0; GROUP_BYTES + 1]), [0; 32]);
        assert_eq!(group_length(5, 1), 0);
    }
}
