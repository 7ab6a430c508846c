//! Trees of members: one root for one set, paths, and ranges that are complete.

use std::collections::BTreeSet;

use kith_identity::fuzz;
use kith_identity::membership::tree::{Leaf, MAX_RANGE, Path, Range, Root, Tree, TreeError};
use kith_identity::membership::{Block, MemberLeaf, NodeId};
use kith_sansio::wire::{Reader, Writer};
use kith_sansio::{Rng, SeededRng};
use proptest::prelude::*;

fn leaf(id: [u8; 32]) -> MemberLeaf {
    MemberLeaf { id: NodeId::from_bytes(id), key: [id[31] ^ 1; 32], vrf: [id[31] ^ 2; 32] }
}

fn changed(mut leaf: MemberLeaf) -> MemberLeaf {
    leaf.vrf[0] ^= 1;
    leaf
}

fn random(count: usize, seed: u64) -> Vec<MemberLeaf> {
    let mut rng = SeededRng::new(seed);
    let mut id = || {
        let mut id = [0; 32];
        rng.fill(&mut id);
        leaf(id)
    };
    (0..count).map(|_| id()).collect()
}

fn tree(leaves: Vec<MemberLeaf>) -> Tree<MemberLeaf> {
    Tree::new(leaves).unwrap()
}

fn bytes(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.finish()
}

fn read_range(bytes: &[u8]) -> Result<Range<MemberLeaf>, TreeError> {
    let mut reader = Reader::new(bytes);
    let range = Range::read(&mut reader)?;
    reader.finish()?;
    Ok(range)
}

/// A range that says what these parts say.
fn forge(
    block: &Block,
    siblings: &[[u8; 32]],
    leaves: &[MemberLeaf],
) -> Result<Range<MemberLeaf>, TreeError> {
    let bytes = bytes(|writer| {
        writer.u8(block.bits()).bytes(block.first().as_bytes()).u16(siblings.len() as u16);
        siblings.iter().for_each(|sibling| {
            writer.bytes(sibling);
        });
        writer.u16(leaves.len() as u16);
        leaves.iter().for_each(|leaf| leaf.write(writer));
    });
    read_range(&bytes)
}

/// The siblings in the bytes of a range.
fn siblings(range: &Range<MemberLeaf>) -> Vec<[u8; 32]> {
    let bytes = bytes(|writer| range.write(writer));
    let mut reader = Reader::new(&bytes);
    reader.bytes(33).unwrap();
    (0..reader.u16().unwrap()).map(|_| reader.array().unwrap()).collect()
}

/// Ids that share many bits, so that trees become deep and lopsided.
fn crowded() -> impl Strategy<Value = Vec<MemberLeaf>> {
    let id = (any::<[u8; 32]>(), 0usize..32, 0u8..3).prop_map(|(mut id, same, value)| {
        id[..same].fill(value << 6);
        id
    });
    prop::collection::btree_set(id, 0..60).prop_map(|ids| ids.into_iter().map(leaf).collect())
}

#[test]
fn hashes_are_what_the_page_says() {
    let inner = |left: &[u8; 32], right: &[u8; 32]| {
        let key = b"kithnet tree inner node v1\0\0\0\0\0\0";
        *blake3::keyed_hash(key, &[&left[..], right].concat()).as_bytes()
    };
    let hash = |leaf: &MemberLeaf| {
        let key = b"kithnet tree member leaf v1\0\0\0\0\0";
        *blake3::keyed_hash(key, &[&leaf.id.as_bytes()[..], &leaf.key, &leaf.vrf].concat()).as_bytes()
    };
    let at = |first: u8| leaf([&[first][..], &[5; 31]].concat().try_into().unwrap());
    assert_eq!(*tree(vec![]).root().as_bytes(), [0; 32]);
    let (low, middle, high) = (at(0b0100_0000), at(0b0110_0000), at(0b1000_0000));
    assert_eq!(*tree(vec![high]).root().as_bytes(), hash(&high));
    // The two low ones part at their third bit: at the second their other half is empty.
    let pair = inner(&[0; 32], &inner(&hash(&low), &hash(&middle)));
    assert_eq!(*tree(vec![high, low, middle]).root().as_bytes(), inner(&pair, &hash(&high)));
}

#[test]
fn two_members_of_one_place_have_no_tree() {
    let one = random(1, 1)[0];
    let other = MemberLeaf { key: [0; 32], ..one };
    assert_eq!(Tree::new(vec![one, other]).unwrap_err(), TreeError::Order);
    assert_eq!(Tree::new(vec![one, one]).unwrap_err(), TreeError::Order);
}

#[test]
fn a_large_tree_proves_each_of_its_members_and_regions() {
    let all = random(20_000, 7);
    let tree = tree(all.clone());
    for member in all.iter().step_by(997) {
        let path = tree.path(&member.id).unwrap();
        assert_eq!(path.verify(&tree.root()), Ok(member));
        assert!(
            bytes(|writer| path.write(writer)).len() < 96 + 2 + 40 * 32,
            "a path of about log N siblings"
        );
        let block = Block::around(&member.id, 5);
        let range = tree.range(&block).unwrap();
        let inside = range.verify(&tree.root()).unwrap();
        assert_eq!(inside.len(), all.iter().filter(|leaf| block.contains(&leaf.id)).count());
        assert!((500..750).contains(&inside.len()));
    }
    assert_eq!(tree.range(&Block::WHOLE).unwrap_err(), TreeError::TooLarge);
}

#[test]
fn a_member_that_is_left_out_or_put_in_is_noticed() {
    let tree = tree(random(300, 1));
    let block = Block::around(&tree.leaves()[100].id, 3);
    let range = tree.range(&block).unwrap();
    let (way, inside) = (siblings(&range), range.verify(&tree.root()).unwrap().to_vec());
    assert_eq!(forge(&block, &way, &inside), Ok(range));
    for at in 0..inside.len() {
        let mut fewer = inside.clone();
        fewer.remove(at);
        assert_eq!(forge(&block, &way, &fewer).unwrap().verify(&tree.root()), Err(TreeError::Root));
    }
    let mut more = inside.clone();
    more.push(leaf(*block.last().as_bytes()));
    assert_eq!(forge(&block, &way, &more).unwrap().verify(&tree.root()), Err(TreeError::Root));
    let mut turned = inside.clone();
    turned.swap(0, 1);
    assert_eq!(forge(&block, &way, &turned), Err(TreeError::Order));
    let mut twice = inside.clone();
    twice.insert(0, inside[0]);
    assert_eq!(forge(&block, &way, &twice), Err(TreeError::Order));
}

#[test]
fn a_range_is_no_answer_about_a_larger_or_smaller_block() {
    let tree = tree(random(300, 1));
    let member = tree.leaves()[100].id;
    let (small, large) = (Block::around(&member, 4), Block::around(&member, 3));
    let honest = tree.range(&small).unwrap();
    let (way, inside) = (siblings(&honest), honest.verify(&tree.root()).unwrap().to_vec());
    // As complete for the larger block: the way is one sibling too long.
    let bytes = bytes(|writer| forge(&small, &way, &inside).unwrap().write(writer));
    let mut larger = bytes.clone();
    larger[0] = 3;
    larger[1..33].copy_from_slice(large.first().as_bytes());
    assert_eq!(read_range(&larger), Err(TreeError::TooLarge));
    assert_eq!(forge(&large, &way[..3], &inside).unwrap().verify(&tree.root()), Err(TreeError::Root));
    // The larger one's members as those of the smaller block.
    let honest = tree.range(&large).unwrap();
    let inside = honest.verify(&tree.root()).unwrap();
    assert_eq!(forge(&small, &siblings(&honest), inside), Err(TreeError::Outside));
}

#[test]
fn an_inner_node_never_passes_for_a_leaf_nor_a_leaf_for_an_inner_node() {
    let tree = tree(random(64, 3));
    // The top of the tree cut off: the left half's hash as the leaf's is out of reach, because no leaf has these bytes;
    // a way that is one node short or long leads elsewhere.
    for member in tree.leaves() {
        let path = tree.path(&member.id).unwrap();
        let bytes = bytes(|writer| path.write(writer));
        let count = u16::from_be_bytes([bytes[96], bytes[97]]);
        for (count, rest) in [(count - 1, &bytes[98..bytes.len() - 32]), (count - 1, &bytes[130..])] {
            let bad = [&bytes[..96], &count.to_be_bytes(), rest].concat();
            let bad = Path::<MemberLeaf>::read(&mut Reader::new(&bad)).unwrap();
            assert_eq!(bad.verify(&tree.root()), Err(TreeError::Root));
        }
        let longer = [&bytes[..96], &(count + 1).to_be_bytes(), &bytes[98..], &[0; 32]].concat();
        let longer = Path::<MemberLeaf>::read(&mut Reader::new(&longer)).unwrap();
        assert_eq!(longer.verify(&tree.root()), Err(TreeError::Root));
    }
}

#[test]
fn proofs_are_bounded_before_memory_is_taken() {
    let too_many = bytes(|writer| {
        writer.u8(200).bytes(&[0; 32]).u16(201);
    });
    assert_eq!(read_range(&too_many), Err(TreeError::TooLarge));
    let too_many = bytes(|writer| {
        writer.u8(0).bytes(&[0; 32]).u16(0).u16(MAX_RANGE as u16 + 1);
    });
    assert_eq!(read_range(&too_many), Err(TreeError::TooLarge));
    let short = bytes(|writer| {
        writer.u8(0).bytes(&[0; 32]).u16(0).u16(MAX_RANGE as u16);
    });
    assert!(matches!(read_range(&short), Err(TreeError::Form(_))));
    let crooked = bytes(|writer| {
        writer.u8(3).bytes(&[0xff; 32]).u16(0).u16(0);
    });
    assert_eq!(read_range(&crooked), Err(TreeError::Block));
    let long = bytes(|writer| {
        writer.bytes(&[0; 96]).u16(257);
    });
    assert_eq!(Path::<MemberLeaf>::read(&mut Reader::new(&long)), Err(TreeError::TooLarge));
}

proptest! {
    #[test]
    fn a_set_has_one_root_and_another_set_has_another(leaves in crowded(), seed: u64, drop in any::<prop::sample::Index>()) {
        let root = tree(leaves.clone()).root();
        let mut shuffled = leaves.clone();
        let mut rng = SeededRng::new(seed);
        (1..shuffled.len()).for_each(|at| shuffled.swap(at, rng.below(at as u64 + 1) as usize));
        prop_assert_eq!(tree(shuffled).root(), root);
        if !leaves.is_empty() {
            let mut fewer = leaves.clone();
            let gone = fewer.remove(drop.index(leaves.len()));
            prop_assert_ne!(tree(fewer.clone()).root(), root);
            fewer.push(changed(gone));
            prop_assert_ne!(tree(fewer).root(), root);
        }
    }

    #[test]
    fn paths_lead_from_members_and_from_nobody_else(leaves in crowded(), stranger: [u8; 32]) {
        let (tree, ids) = (tree(leaves.clone()), leaves.iter().map(|leaf| leaf.id).collect::<BTreeSet<_>>());
        for leaf in &leaves {
            let path = tree.path(&leaf.id).unwrap();
            prop_assert_eq!(path.verify(&tree.root()), Ok(leaf));
            let other = changed(*leaf);
            let mut forged = bytes(|writer| path.write(writer));
            forged[..96].copy_from_slice(&bytes(|writer| other.write(writer)));
            let forged = Path::<MemberLeaf>::read(&mut Reader::new(&forged)).unwrap();
            prop_assert_eq!(forged.verify(&tree.root()), Err(TreeError::Root));
            fuzz::fuzz_membership(&bytes(|writer| path.write(writer)));
        }
        let stranger = NodeId::from_bytes(stranger);
        prop_assert_eq!(tree.path(&stranger).is_some(), ids.contains(&stranger));
    }

    #[test]
    fn a_range_holds_all_of_its_block_and_proves_each_of_them(
        leaves in crowded(), around: [u8; 32], pick in any::<prop::sample::Index>(), near: bool, bits: u8,
    ) {
        let tree = tree(leaves.clone());
        let around = if near && !leaves.is_empty() { leaves[pick.index(leaves.len())].id } else { NodeId::from_bytes(around) };
        let block = Block::around(&around, bits);
        let written = bytes(|writer| tree.range(&block).unwrap().write(writer));
        let range = read_range(&written).unwrap();
        let expected: Vec<_> = tree.leaves().iter().filter(|leaf| block.contains(&leaf.id)).cloned().collect();
        prop_assert_eq!(range.verify(&tree.root()), Ok(&expected[..]));
        for leaf in &expected {
            prop_assert_eq!(range.path(&leaf.id), tree.path(&leaf.id));
        }
        prop_assert_eq!(range.verify(&Root::from_bytes([1; 32])), Err(TreeError::Root));
        fuzz::fuzz_membership(&written);
    }

    #[test]
    fn a_changed_byte_of_a_range_never_gives_other_members(leaves in crowded(), bits in 0u8..8, at in any::<prop::sample::Index>(), value: u8) {
        let tree = tree(leaves);
        let block = Block::around(&NodeId::from_bytes([0x40; 32]), bits);
        let good = bytes(|writer| tree.range(&block).unwrap().write(writer));
        let mut bad = good.clone();
        bad[at.index(good.len())] = value;
        if let Ok(range) = read_range(&bad)
            && let Ok(inside) = range.verify(&tree.root())
        {
            let expected = tree.leaves().iter().filter(|leaf| range.block().contains(&leaf.id));
            prop_assert!(inside.iter().eq(expected));
        }
    }
}
