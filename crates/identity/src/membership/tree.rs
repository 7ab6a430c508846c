//! Trees over members: one hash stands for all of them, a short path shows that one is there, and the members of a
//! region can be shown to be all that it has.
//!
//! The tree follows the bits of the ids from the first on. A node over no leaf is 32 zero bytes; over one leaf it is
//! the hash of the leaf, however high it stands; over more it is the hash of its two halves. So a set of leaves has
//! one tree, no leaf stands in two places, none is counted twice to fill a row, and a region is a subtree: its members
//! and the siblings on its way to the root prove that there are no others. That nobody is there is proven alike.
//!
//! Hashes are BLAKE3, keyed with a constant of their own for the leaves of each tree and for inner nodes, so that
//! none passes for another:
//!
//! ```text
//! leaf   BLAKE3 keyed LEAF_KEY, over the leaf's bytes
//! inner  BLAKE3 keyed "kithnet tree inner node v1" (padded with zeros), over left ‖ right
//! path   leaf ‖ u16 number of siblings ‖ 32 bytes each, from the root down
//! range  u8 bits of the block ‖ 32 bytes its first place ‖ u16 number of siblings ‖ 32 bytes each, from the root down
//!          ‖ u16 number of leaves ‖ leaves in the order of their ids
//! ```
//!
//! A range whose way ends above its block, because there is at most one leaf from there on, has fewer siblings than
//! bits, and that leaf, which may lie outside the block: it shows that the block is empty.

use std::fmt;

use kith_sansio::wire::{Reader, WireError, Writer};

use super::{Block, ID_BITS, NodeId};

/// The hash of a node.
type Hash = [u8; 32];

/// Most leaves of a range: eight times what a region has by default.
pub const MAX_RANGE: usize = 4096;
/// Leaves under a node whose hashes are made again when they are wanted; those above are kept.
const KEPT_ABOVE: usize = 16;
/// The node over no leaf.
const EMPTY: Hash = [0; 32];
/// The key of inner nodes.
const INNER_KEY: &[u8; 32] = b"kithnet tree inner node v1\0\0\0\0\0\0";

/// Why a tree cannot be made, or a proof is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The bytes are too short or too long.
    #[error("not a proof: {0}")]
    Form(#[from] WireError),
    /// More siblings than an id has bits, or more leaves than [`MAX_RANGE`].
    #[error("the proof is too large")]
    TooLarge,
    /// The first place of the block has bits that its length does not.
    #[error("the proof names a block by another than its first place")]
    Block,
    /// Two leaves have one id, or a proof names them in another order than that of their ids.
    #[error("two members of one place, or members out of order")]
    Order,
    /// A leaf lies outside the block that the proof is about.
    #[error("a member lies outside the block")]
    Outside,
    /// The proof leads to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// What stands in a tree: an id, and what is said about it, in a fixed number of bytes.
pub trait Leaf: Clone + PartialEq {
    /// Length in bytes.
    const BYTES: usize;
    /// The key of the hashes of these leaves, unlike that of any other kind.
    const KEY: &'static [u8; 32];

    /// Its place.
    fn id(&self) -> NodeId;
    /// Appends its bytes.
    fn write(&self, writer: &mut Writer);
    /// Reads it from its bytes.
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError>;

    /// Its hash.
    fn hash(&self) -> [u8; 32] {
        let mut writer = Writer::new();
        self.write(&mut writer);
        *blake3::keyed_hash(Self::KEY, &writer.finish()).as_bytes()
    }
}

/// What stands for all leaves of a tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root([u8; 32]);

/// A whole tree, in memory, from which proofs are made.
#[derive(Clone, Debug)]
pub struct Tree<L> {
    leaves: Vec<L>,
    /// Hashes of the upper nodes: the children of number n are 2n and 2n + 1, the root is 1.
    upper: Vec<Hash>,
    /// How deep the upper nodes go.
    kept: u32,
}

/// The way from one leaf to the root. **Not verified** before [`Path::verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path<L> {
    leaf: L,
    siblings: Vec<Hash>,
}

/// All leaves of a block, in order, and the way from there to the root. **Not verified** before [`Range::verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range<L> {
    block: Block,
    siblings: Vec<Hash>,
    leaves: Vec<L>,
}

impl Root {
    /// The root with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Root {
        Root(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl<L: Leaf> Tree<L> {
    /// The tree of these leaves, in any order; refuses two of one id.
    pub fn new(mut leaves: Vec<L>) -> Result<Tree<L>, TreeError> {
        leaves.sort_unstable_by_key(Leaf::id);
        in_order(&leaves)?;
        let kept = (leaves.len() / KEPT_ABOVE).checked_ilog2().unwrap_or(0);
        let mut tree = Tree { leaves: Vec::new(), upper: vec![EMPTY; 2 << kept], kept };
        tree.fill(&leaves, 0, 1);
        tree.leaves = leaves;
        Ok(tree)
    }

    /// What stands for all of it.
    pub fn root(&self) -> Root {
        Root(self.upper[1])
    }

    /// All leaves in the order of their ids.
    pub fn leaves(&self) -> &[L] {
        &self.leaves
    }

    /// The way from the leaf of this id, where there is one.
    pub fn path(&self, id: &NodeId) -> Option<Path<L>> {
        let (under, siblings) = self.descend(id, ID_BITS);
        under.first().filter(|leaf| leaf.id() == *id).map(|leaf| Path { leaf: leaf.clone(), siblings })
    }

    /// All leaves of a block with their way, where they are not more than [`MAX_RANGE`].
    pub fn range(&self, block: &Block) -> Result<Range<L>, TreeError> {
        let (under, siblings) = self.descend(&block.first(), u32::from(block.bits()));
        if under.len() > MAX_RANGE {
            return Err(TreeError::TooLarge);
        }
        Ok(Range { block: *block, siblings, leaves: under.to_vec() })
    }

    /// Makes the hashes of the upper nodes under one of them.
    fn fill(&mut self, leaves: &[L], depth: u32, number: usize) -> Hash {
        let hash = if depth == self.kept || leaves.len() < 2 {
            node(leaves, depth)
        } else {
            let (left, right) = halves(leaves, depth);
            let left = self.fill(left, depth + 1, 2 * number);
            inner(&left, &self.fill(right, depth + 1, 2 * number + 1))
        };
        self.upper[number] = hash;
        hash
    }

    /// Goes towards `id`, at most `deepest` nodes and not below the first that has less than two leaves: the leaves
    /// there, and the siblings on the way.
    fn descend(&self, id: &NodeId, deepest: u32) -> (&[L], Vec<Hash>) {
        let (mut leaves, mut siblings, mut number) = (&self.leaves[..], Vec::new(), 1);
        for depth in 0..deepest {
            if leaves.len() < 2 {
                break;
            }
            let (left, right) = halves(leaves, depth);
            let (here, there) = if id.bit(depth) { (right, left) } else { (left, right) };
            siblings.push(if depth < self.kept {
                number = 2 * number + usize::from(id.bit(depth));
                self.upper[number ^ 1]
            } else {
                node(there, depth + 1)
            });
            leaves = here;
        }
        (leaves, siblings)
    }
}

impl<L: Leaf> Path<L> {
    /// The leaf, where it is in the tree of this root.
    pub fn verify(&self, root: &Root) -> Result<&L, TreeError> {
        let found = climb(self.leaf.hash(), &self.leaf.id(), &self.siblings);
        if found == root.0 { Ok(&self.leaf) } else { Err(TreeError::Root) }
    }

    /// The leaf that it is about. **Not verified**.
    pub fn claimed_leaf(&self) -> &L {
        &self.leaf
    }

    /// Reads a path; refuses every form but that of [`Path::write`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Path<L>, TreeError> {
        Ok(Path { leaf: L::read(reader)?, siblings: read_siblings(reader, ID_BITS)? })
    }

    /// Appends its bytes.
    pub fn write(&self, writer: &mut Writer) {
        self.leaf.write(writer);
        write_siblings(&self.siblings, writer);
    }
}

impl<L: Leaf> Range<L> {
    /// All leaves of the block, where they are those of the tree of this root.
    pub fn verify(&self, root: &Root) -> Result<&[L], TreeError> {
        let (first, depth) = (self.block.first(), self.siblings.len() as u32);
        let found = climb(node(&self.leaves, depth), &first, &self.siblings);
        if found == root.0 { Ok(self.inside()) } else { Err(TreeError::Root) }
    }

    /// The block that it is about.
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The way from one of its leaves to the root: whoever holds a region can prove each of its members.
    pub fn path(&self, id: &NodeId) -> Option<Path<L>> {
        let (mut leaves, mut siblings) = (&self.leaves[..], self.siblings.clone());
        for depth in siblings.len() as u32..ID_BITS {
            if leaves.len() < 2 {
                break;
            }
            let (left, right) = halves(leaves, depth);
            let (here, there) = if id.bit(depth) { (right, left) } else { (left, right) };
            siblings.push(node(there, depth + 1));
            leaves = here;
        }
        leaves.first().filter(|leaf| leaf.id() == *id).map(|leaf| Path { leaf: leaf.clone(), siblings })
    }

    /// Reads a range; refuses every form but that of [`Range::write`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Range<L>, TreeError> {
        let (bits, first) = (reader.u8()?, NodeId::from_bytes(reader.array()?));
        let block = Block::around(&first, bits);
        if block.first() != first {
            return Err(TreeError::Block);
        }
        let siblings = read_siblings(reader, u32::from(bits))?;
        let count = usize::from(reader.u16()?);
        if count > MAX_RANGE {
            return Err(TreeError::TooLarge);
        }
        let mut leaves = Vec::with_capacity(count.min(reader.left() / L::BYTES));
        for _ in 0..count {
            leaves.push(L::read(reader)?);
        }
        Range { block, siblings, leaves }.checked()
    }

    /// The range, where its leaves can be those of one node: in order, and all on the way.
    fn checked(self) -> Result<Range<L>, TreeError> {
        in_order(&self.leaves)?;
        let (first, depth) = (self.block.first(), self.siblings.len() as u32);
        let apart = self.leaves.iter().any(|leaf| leaf.id().common_prefix(&first) < depth);
        // Above the block the way ends only where there is nothing to divide.
        if apart || (depth < u32::from(self.block.bits()) && self.leaves.len() > 1) {
            return Err(TreeError::Outside);
        }
        Ok(self)
    }

    /// Appends its bytes.
    pub fn write(&self, writer: &mut Writer) {
        writer.u8(self.block.bits()).bytes(self.block.first().as_bytes());
        write_siblings(&self.siblings, writer);
        writer.u16(self.leaves.len() as u16);
        self.leaves.iter().for_each(|leaf| leaf.write(writer));
    }

    /// Its leaves without the one outside that shows that there are none.
    fn inside(&self) -> &[L] {
        match &self.leaves[..] {
            [only] if !self.block.contains(&only.id()) => &[],
            leaves => leaves,
        }
    }
}

fn in_order<L: Leaf>(leaves: &[L]) -> Result<(), TreeError> {
    if leaves.is_sorted_by(|a, b| a.id() < b.id()) { Ok(()) } else { Err(TreeError::Order) }
}

/// The leaves under both halves of the node at `depth`.
fn halves<L: Leaf>(leaves: &[L], depth: u32) -> (&[L], &[L]) {
    leaves.split_at(leaves.partition_point(|leaf| !leaf.id().bit(depth)))
}

/// The hash of the node at `depth` over these leaves, which are in order and agree in all bits before.
fn node<L: Leaf>(leaves: &[L], depth: u32) -> Hash {
    match leaves {
        [] => EMPTY,
        [leaf] => leaf.hash(),
        _ => {
            let (left, right) = halves(leaves, depth);
            inner(&node(left, depth + 1), &node(right, depth + 1))
        }
    }
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left);
    both[32..].copy_from_slice(right);
    *blake3::keyed_hash(INNER_KEY, &both).as_bytes()
}

/// From a node on the way to `id` up to the root.
fn climb(from: Hash, id: &NodeId, siblings: &[Hash]) -> Hash {
    siblings.iter().enumerate().rev().fold(from, |below, (depth, sibling)| {
        if id.bit(depth as u32) { inner(sibling, &below) } else { inner(&below, sibling) }
    })
}

fn read_siblings(reader: &mut Reader<'_>, most: u32) -> Result<Vec<Hash>, TreeError> {
    let count = u32::from(reader.u16()?);
    if count > most {
        return Err(TreeError::TooLarge);
    }
    (0..count).map(|_| reader.array().map_err(TreeError::Form)).collect()
}

fn write_siblings(siblings: &[Hash], writer: &mut Writer) {
    writer.u16(siblings.len() as u16);
    siblings.iter().for_each(|sibling| {
        writer.bytes(sibling);
    });
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({})", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}
