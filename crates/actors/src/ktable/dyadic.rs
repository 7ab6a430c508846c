//! Regions that are blocks of ids with a common prefix, as in the hardened mode.

use kith_sansio::wire::Writer;
use sha3::{Digest, Sha3_256};

use super::{KTable, MAX_K, Network, Region, TableError};
use crate::binomial::{at_least, fewer_than};

/// All ids that begin with the same `bits` bits; 2^-bits of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Length of the common prefix.
    pub bits: u8,
}

impl Region for Prefix {
    fn size(self) -> f64 {
        self.blocks().recip()
    }

    fn places(self, _: u64) -> f64 {
        self.blocks()
    }
}

impl Prefix {
    /// How many blocks of this size there are.
    fn blocks(self) -> f64 {
        f64::from(self.bits).exp2()
    }
}

impl Network {
    /// Whether `k` members of a block hold an honest one: the adversary holds all of them in a block fixed beforehand with
    /// a probability below α (equation 2), and in any of all blocks of the size with one below √α. Who checks a list has
    /// not seen the draw that names its place, so that a forger may look for a block through all of them.
    pub(crate) fn is_safe_block(&self, k: u64, block: Prefix) -> bool {
        let held = at_least(k, self.colluding, block.size());
        held < self.alpha && block.blocks() * held < self.alpha.sqrt()
    }
}

/// What the statement of an epoch with these numbers holds for its k-table: [`KTable::hash`], and zeros where there is
/// none, so that nothing can be selected.
pub fn epoch_hash(nodes: u64, colluding: u64, alpha: f64) -> [u8; 32] {
    let table = Network::new(nodes, colluding, alpha).and_then(KTable::dyadic);
    table.map_or([0; 32], |table| table.hash())
}

/// What the hash of a table begins with.
const DOMAIN: &[u8] = b"kithnet k-table v1";

impl KTable<Prefix> {
    /// The table over prefix blocks: for each block the smallest k that is safe in it and in all blocks of its size, and for each
    /// k only the largest of its blocks. Where nothing smaller will do, its last row is the whole network with k = C + 1.
    pub fn dyadic(network: Network) -> Result<KTable<Prefix>, TableError> {
        let Network { nodes, colluding, alpha } = network;
        if colluding + 2 > nodes {
            return Err(TableError::TooFewNodes { nodes, colluding });
        }
        let mut rows: Vec<(u64, Prefix)> = Vec::new();
        let mut k = 1;
        for bits in (0..=u8::MAX).rev() {
            let block = Prefix { bits };
            let before = k;
            while !network.is_safe_block(k, block) {
                k += 1;
                if k > MAX_K {
                    return Err(TableError::TooLong);
                }
            }
            if k == before {
                rows.pop();
            }
            rows.push((k, block));
            if fewer_than(k, nodes, block.size()) <= alpha {
                break;
            }
        }
        Ok(KTable::new(network, &rows))
    }

    /// The canonical form, big-endian: N (8 bytes), C (8), α (8, IEEE 754), the number of rows (2), and for each row
    /// k (8) and the bits of its block (1).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        let Network { nodes, colluding, alpha } = self.network;
        writer.u64(nodes).u64(colluding).u64(alpha.to_bits()).u16(self.rows.len() as u16);
        for row in &self.rows {
            writer.u64(row.k).u8(row.region.bits);
        }
        writer.finish()
    }

    /// What an epoch's statement holds of the table: SHA3-256 of a domain string and [`KTable::to_bytes`].
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha3_256::new();
        hash.update(DOMAIN);
        hash.update(self.to_bytes());
        hash.finalize().into()
    }
}
