//! What is sent and what the receiver's disk holds: contents are handles, their values are hashes of the handle and
//! its place.

use std::collections::{BTreeMap, BTreeSet};

use kith_sansio::Rng;
use kith_transfer::frame::{Failed, Have};
use kith_transfer::hash::{GROUP_BYTES, Value};
use kith_transfer::receiver::Present;
use kith_transfer::{Entry, Kind, Offer, Reason};

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    /// The sender cannot read it.
    Unreadable,
    /// The receiver cannot write it.
    Unwritable,
    /// The receiver has it already.
    Same,
    /// The receiver has another file of that name and size.
    Other,
    /// The receiver has another file of that name and of another size.
    OtherSize,
}

/// An offer and the fate of each of its entries.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) offer: Offer,
    pub(crate) roles: Vec<Role>,
    pub(crate) overwrite: bool,
}

impl Plan {
    pub(crate) fn draw(rng: &mut dyn Rng) -> Plan {
        let entry = |parent, name: String, kind| Entry {
            parent,
            name: name.into(),
            mode: 0o644,
            seconds: 0,
            nanos: 0,
            kind,
        };
        let mut entries = vec![entry(0, "top".into(), Kind::Folder)];
        let mut roles = vec![Role::Plain];
        for number in 0..2 + rng.below(7) {
            let size = match rng.below(5) {
                0 => 0,
                1 => 1 + rng.below(GROUP_BYTES as u64),
                2 => GROUP_BYTES as u64,
                _ => rng.below(30 * GROUP_BYTES as u64),
            };
            roles.push(match rng.below(10) {
                _ if size == 0 => Role::Plain,
                0 => Role::Unreadable,
                1 => Role::Unwritable,
                2 => Role::Same,
                3 => Role::Other,
                4 => Role::OtherSize,
                _ => Role::Plain,
            });
            entries.push(entry(1, format!("file{number}"), Kind::File(size)));
        }
        Plan { offer: Offer::new(entries).unwrap(), roles, overwrite: rng.below(2) == 0 }
    }

    pub(crate) fn groups(&self, index: u32) -> u32 {
        self.offer.groups(index).unwrap()
    }

    /// The right contents of a file.
    pub(crate) fn contents(&self, index: u32) -> Vec<u64> {
        (0..self.groups(index)).map(|group| content(index, group)).collect()
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = u32> {
        (0..self.offer.entries().len() as u32).filter(|index| self.offer.size(*index).is_some())
    }

    /// Whether the file must be there in the end with the right content.
    pub(crate) fn arrives(&self, index: u32) -> bool {
        match self.roles[index as usize] {
            Role::Plain | Role::Same => true,
            Role::Unreadable | Role::Unwritable => false,
            Role::Other | Role::OtherSize => self.overwrite,
        }
    }
}

/// The right content of a group.
pub(crate) fn content(index: u32, group: u32) -> u64 {
    u64::from(index) << 32 | u64::from(group)
}

/// A content that no offered group has.
pub(crate) const GARBAGE: u64 = u64::MAX;

pub(crate) fn value(content: u64, index: u32, group: u32) -> Value {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content.to_be_bytes()).update(&index.to_be_bytes()).update(&group.to_be_bytes());
    *hasher.finalize().as_bytes()
}

/// The receiver's disk. Names are given when everything that was verified is known to be stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) named: BTreeMap<u32, Vec<u64>>,
    pub(crate) partial: BTreeMap<u32, Vec<u64>>,
    verified: BTreeSet<u32>,
    /// The connection whose transfer writes.
    pub(crate) lock: Option<u64>,
}

impl Disk {
    /// A disk with the files that are there before the transfer.
    pub(crate) fn before(plan: &Plan) -> Disk {
        let mut disk = Disk::default();
        for index in plan.files() {
            let contents = match plan.roles[index as usize] {
                Role::Same => plan.contents(index),
                Role::Other => vec![GARBAGE; plan.groups(index) as usize],
                Role::OtherSize => vec![GARBAGE; plan.groups(index) as usize + 1],
                _ => continue,
            };
            disk.named.insert(index, contents);
        }
        disk
    }

    pub(crate) fn present(&self, plan: &Plan) -> Present {
        let mut present = Present::default();
        for index in plan.files() {
            let groups = plan.groups(index);
            let part = self.partial.get(&index).map_or(0, Vec::len) as u32;
            let existing = self.named.get(&index).map(|contents| contents.len() == groups as usize);
            match existing {
                Some(true) if groups == 0 => present.already.push(index),
                Some(true) if part == 0 || !plan.overwrite => {
                    present.haves.push(Have { index, groups, whole: true });
                }
                Some(false) if !plan.overwrite => {
                    present.failed.push(Failed { index, reason: Reason::Exists });
                }
                _ if part > 0 => present.haves.push(Have { index, groups: part, whole: false }),
                _ => {}
            }
        }
        present
    }

    pub(crate) fn values(&self, index: u32, first: u32, count: u32, whole: bool) -> Vec<Value> {
        let contents = if whole { &self.named[&index] } else { &self.partial[&index] };
        (first..first + count).map(|group| value(contents[group as usize], index, group)).collect()
    }

    /// Opens a part at `first`, which must be exactly where what is right of it ends: nothing is sent twice.
    pub(crate) fn open(&mut self, index: u32, first: u32) {
        let part = self.partial.entry(index).or_default();
        let right = (0..).zip(part.iter()).take_while(|(group, have)| **have == content(index, *group));
        assert_eq!(right.count() as u32, first, "file {index} goes on behind what is there");
        part.truncate(first as usize);
    }

    pub(crate) fn write(&mut self, index: u32, group: u32, content: u64) {
        let part = self.partial.get_mut(&index).expect("it was opened");
        assert_eq!(part.len() as u32, group, "groups are written in order");
        part.push(content);
    }

    pub(crate) fn commit(&mut self, plan: &Plan, index: u32) {
        assert_eq!(
            self.partial.get(&index),
            Some(&plan.contents(index)),
            "file {index} has the right content"
        );
        assert!(self.verified.insert(index), "file {index} is committed once");
    }

    pub(crate) fn discard(&mut self, index: u32) {
        self.partial.remove(&index);
    }

    /// Gives all verified files their names.
    pub(crate) fn name(&mut self) {
        for index in std::mem::take(&mut self.verified) {
            let contents = self.partial.remove(&index).expect("it was committed");
            self.named.insert(index, contents);
        }
    }

    /// What a crash may leave behind: ends of parts missing, or full of garbage; nothing that has a name is touched.
    pub(crate) fn crash(&mut self, rng: &mut dyn Rng) {
        self.verified.clear();
        self.lock = None;
        for part in self.partial.values_mut() {
            let keep = rng.below(part.len() as u64 + 1) as usize;
            match rng.below(3) {
                0 => part.truncate(keep),
                1 => part[keep..].fill(GARBAGE),
                _ => {}
            }
        }
    }
}
