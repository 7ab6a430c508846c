use std::collections::HashMap;
use std::net::IpAddr;

use kith_identity::Fingerprint;

use super::limits::{
    MAX_QUARANTINED, MAX_QUARANTINED_KNOWN, MAX_QUARANTINED_PER_SOURCE, MAX_WAITING_PER_CLIENT,
};
use crate::limits::source;

/// How many requests wait for their targets, and whose.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    strangers: usize,
    known: usize,
    by_initiator: HashMap<Fingerprint, usize>,
    by_source: HashMap<IpAddr, usize>,
}

/// Whose a waiting request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inmate {
    pub(super) who: Fingerprint,
    pub(super) from: IpAddr,
    /// The relay knows him: he has a limit of his own, and no stranger takes his place.
    pub(super) is_known: bool,
}

impl Quarantine {
    /// Takes one in; `false` where there are too many already.
    pub(super) fn enter(&mut self, inmate: &Inmate) -> bool {
        let his = self.by_initiator.get(&inmate.who).copied().unwrap_or(0);
        if inmate.is_known {
            if his >= MAX_WAITING_PER_CLIENT || self.known >= MAX_QUARANTINED_KNOWN {
                return false;
            }
            self.known += 1;
        } else {
            let near = self.by_source.get(&source(inmate.from)).copied().unwrap_or(0);
            if his >= 1 || near >= MAX_QUARANTINED_PER_SOURCE || self.strangers >= MAX_QUARANTINED {
                return false;
            }
            self.strangers += 1;
            self.by_source.insert(source(inmate.from), near + 1);
        }
        self.by_initiator.insert(inmate.who, his + 1);
        true
    }

    /// Lets one go that was taken in.
    pub(super) fn leave(&mut self, inmate: &Inmate) {
        fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
            if let Some(count) = counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(key);
                }
            }
        }
        less(&mut self.by_initiator, &inmate.who);
        if inmate.is_known {
            self.known = self.known.saturating_sub(1);
        } else {
            self.strangers = self.strangers.saturating_sub(1);
            less(&mut self.by_source, &source(inmate.from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_sansio::{Rng, SeededRng};

    fn inmate(who: u16, from: [u8; 4], is_known: bool) -> Inmate {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&who.to_be_bytes());
        Inmate { who: Fingerprint::from_bytes(bytes), from: from.into(), is_known }
    }

    #[test]
    fn there_is_one_of_each_stranger_eight_of_each_network_and_1024_in_all() {
        let mut quarantine = Quarantine::default();
        assert!(quarantine.enter(&inmate(0, [10, 0, 0, 0], false)));
        assert!(!quarantine.enter(&inmate(0, [10, 0, 0, 1], false)));
        for who in 1..8 {
            assert!(quarantine.enter(&inmate(who, [10, 0, 0, 0], false)));
        }
        assert!(!quarantine.enter(&inmate(8, [10, 0, 0, 0], false)));
        for who in 8..1024 {
            assert!(quarantine.enter(&inmate(who, [10, 1, (who >> 8) as u8, who as u8], false)));
        }
        assert!(!quarantine.enter(&inmate(2000, [10, 9, 9, 9], false)));
        // Whom the relay knows does not stand in a stranger's way, nor the other way round.
        assert!((0..MAX_WAITING_PER_CLIENT).all(|_| quarantine.enter(&inmate(3000, [10, 0, 0, 0], true))));
        assert!(!quarantine.enter(&inmate(3000, [10, 0, 0, 0], true)));
        for who in 3001..3016 {
            assert!((0..MAX_WAITING_PER_CLIENT).all(|_| quarantine.enter(&inmate(who, [10, 0, 0, 0], true))));
        }
        assert!(!quarantine.enter(&inmate(3016, [10, 0, 0, 0], true)), "256 of those whom it knows");
        quarantine.leave(&inmate(0, [10, 0, 0, 0], false));
        assert!(quarantine.enter(&inmate(4000, [10, 0, 0, 0], false)));
    }

    #[test]
    fn whoever_comes_and_goes_leaves_nothing_behind() {
        let mut rng = SeededRng::new(1);
        let (mut quarantine, mut inside) = (Quarantine::default(), Vec::new());
        for _ in 0..20_000 {
            if rng.below(2) == 0 || inside.is_empty() {
                let new = inmate(rng.below(40) as u16, [10, 0, 0, rng.below(6) as u8], rng.below(4) == 0);
                if quarantine.enter(&new) {
                    inside.push(new);
                }
            } else {
                let at = rng.below(inside.len() as u64) as usize;
                quarantine.leave(&inside.swap_remove(at));
            }
            assert_eq!(quarantine.strangers, inside.iter().filter(|one| !one.is_known).count());
        }
        inside.iter().for_each(|one| quarantine.leave(one));
        assert_eq!((quarantine.strangers, quarantine.known), (0, 0));
        assert!(quarantine.by_initiator.is_empty() && quarantine.by_source.is_empty());
    }
}
