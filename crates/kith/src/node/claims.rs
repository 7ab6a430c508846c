//! Who claims to follow a contact's key, and what the person decided: plain data, without disk or network.
//!
//! A claim is a verified statement, which proves that somebody who holds the old key names the new one; it may be a
//! thief. So no claim changes whom this node trusts, and a second, different one for the same key is refused: it
//! waits, and blocks the first, until the person names one of them.

use std::collections::BTreeMap;

use kith_identity::{Fingerprint, VerifiedSuccession};
use kith_sansio::Timestamp;
use serde::{Deserialize, Serialize};

/// Claims that are remembered for one key. A thief of the key can make any number; what was rejected gives way.
const MAX_CLAIMS: usize = 4;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stand {
    /// The only one: waits for the person.
    Pending,
    /// It came when another was there already; the person has not decided between them.
    Refused,
    /// The person said yes; the contact has this key now, or had it.
    Confirmed,
    /// The person said no.
    Rejected,
}

/// A statement, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) statement: VerifiedSuccession,
    /// When it was first seen here.
    pub(crate) seen: Timestamp,
    pub(crate) stand: Stand,
}

impl Claim {
    /// Whether the person has not decided yet.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stand, Stand::Pending | Stand::Refused)
    }
}

/// What happened to a statement that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// It was known.
    Known,
    /// The first of its key.
    Pending,
    /// Another than the one that was known.
    Second,
    /// It leads back to a key that the contact had before.
    Loop,
    /// Too many of one key wait for a decision.
    Full,
}

/// All claims, by the key that they follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims(BTreeMap<Fingerprint, Vec<Claim>>);

impl Claims {
    /// Takes in a claim as it was stored.
    pub(crate) fn restore(&mut self, claim: Claim) {
        self.0.entry(claim.statement.old()).or_default().push(claim);
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.0.values().flatten()
    }

    /// Whether a statement with these two keys is known.
    pub(crate) fn knows(&self, statement: &VerifiedSuccession) -> bool {
        self.of_key(&statement.old()).any(|known| known.statement.successor() == statement.successor())
    }

    /// The key of a contact that `old` is, or that it was followed by, step by step, with the person's consent.
    pub(crate) fn heir(
        &self,
        old: &Fingerprint,
        trusts: impl Fn(&Fingerprint) -> bool,
    ) -> Option<Fingerprint> {
        let mut key = *old;
        // No path is longer than there are keys.
        for _ in 0..=self.0.len() {
            if trusts(&key) {
                return Some(key);
            }
            let step = self.of_key(&key).find(|claim| claim.stand == Stand::Confirmed)?.statement.successor();
            key = step;
        }
        None
    }

    /// The keys that a contact had, from `current` backwards.
    fn lineage(&self, current: &Fingerprint) -> Vec<Fingerprint> {
        let mut keys = vec![*current];
        let confirmed = |claim: &&Claim, key: &Fingerprint| {
            claim.stand == Stand::Confirmed && claim.statement.successor() == *key
        };
        while let Some(last) = keys.last().copied()
            && let Some(step) = self.iter().find(|claim| confirmed(claim, &last))
            && !keys.contains(&step.statement.old())
        {
            keys.push(step.statement.old());
        }
        keys
    }

    /// Every claim that concerns the contact with the key `current`, the newest key's first.
    pub(crate) fn of(&self, current: &Fingerprint) -> Vec<&Claim> {
        self.lineage(current).iter().flat_map(|key| self.0.get(key).into_iter().flatten()).collect()
    }

    /// Those that wait for the person.
    pub(crate) fn open(&self, current: &Fingerprint) -> Vec<&Claim> {
        self.of(current).into_iter().filter(|claim| claim.is_open()).collect()
    }

    /// Whether different keys are claimed to follow one key of this contact, and the person has not said which.
    pub(crate) fn is_disputed(&self, current: &Fingerprint) -> bool {
        self.of(current).iter().any(|claim| claim.stand == Stand::Refused)
    }

    /// Takes in a statement about the contact that has the key `current` now.
    pub(crate) fn note(
        &mut self,
        current: &Fingerprint,
        statement: VerifiedSuccession,
        seen: Timestamp,
    ) -> Noted {
        if self.knows(&statement) {
            return Noted::Known;
        }
        if self.lineage(current).contains(&statement.successor()) {
            return Noted::Loop;
        }
        let of_key = self.0.entry(statement.old()).or_default();
        if of_key.len() >= MAX_CLAIMS {
            match of_key.iter().position(|claim| claim.stand == Stand::Rejected) {
                Some(rejected) => drop(of_key.remove(rejected)),
                None => return Noted::Full,
            }
        }
        let (stand, noted) = match of_key.is_empty() {
            true => (Stand::Pending, Noted::Pending),
            false => (Stand::Refused, Noted::Second),
        };
        of_key.push(Claim { statement, seen, stand });
        noted
    }

    /// The person decided for one of the claims about the contact with the key `current`.
    pub(crate) fn confirm(&mut self, current: &Fingerprint, chosen: &VerifiedSuccession) {
        // What followed another choice for the same key has nothing to do with this contact any more.
        let abandoned: Vec<_> =
            self.lineage(current).into_iter().take_while(|key| *key != chosen.old()).collect();
        abandoned.iter().for_each(|key| drop(self.0.remove(key)));
        for claim in self.0.entry(chosen.old()).or_default() {
            let is_chosen = claim.statement.successor() == chosen.successor();
            claim.stand = if is_chosen { Stand::Confirmed } else { Stand::Rejected };
        }
    }

    /// The person decided against the open claims of the contact, or against one of them; how many there were.
    pub(crate) fn reject(&mut self, current: &Fingerprint, named: Option<&Fingerprint>) -> usize {
        let mut rejected = 0;
        for key in self.lineage(current) {
            let before = rejected;
            for claim in self.0.get_mut(&key).into_iter().flatten().filter(|claim| claim.is_open()) {
                if named.is_none_or(|named| *named == claim.statement.successor()) {
                    claim.stand = Stand::Rejected;
                    rejected += 1;
                }
            }
            if rejected > before {
                self.settle(&key);
            }
        }
        rejected
    }

    /// Where one is left of those that were in each other's way, it waits alone.
    fn settle(&mut self, key: &Fingerprint) {
        let Some(of_key) = self.0.get_mut(key) else { return };
        let undecided = of_key.iter().filter(|claim| claim.stand != Stand::Rejected).count();
        if let (1, Some(last)) = (undecided, of_key.iter_mut().find(|claim| claim.stand == Stand::Refused)) {
            last.stand = Stand::Pending;
        }
    }

    /// The contact is none any more.
    pub(crate) fn forget(&mut self, current: &Fingerprint) {
        self.lineage(current).iter().for_each(|key| drop(self.0.remove(key)));
    }

    fn of_key(&self, key: &Fingerprint) -> impl Iterator<Item = &Claim> {
        self.0.get(key).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_identity::Identity;
    use kith_sansio::SeededRng;

    const NOW: Timestamp = Timestamp(1_769_860_800);

    fn key(seed: u64) -> Fingerprint {
        identity(seed).fingerprint()
    }

    fn identity(seed: u64) -> Identity {
        Identity::generate(&mut SeededRng::new(seed))
    }

    fn step(old: u64, new: u64) -> VerifiedSuccession {
        VerifiedSuccession::sign(&identity(old), &identity(new), NOW).unwrap()
    }

    fn stands(claims: &Claims, current: u64) -> Vec<Stand> {
        claims.of(&key(current)).iter().map(|claim| claim.stand).collect()
    }

    #[test]
    fn the_first_claim_waits_and_a_second_different_one_is_refused() {
        let mut claims = Claims::default();
        assert_eq!(claims.note(&key(1), step(1, 2), NOW), Noted::Pending);
        assert_eq!(claims.note(&key(1), step(1, 2), NOW), Noted::Known);
        assert!(!claims.is_disputed(&key(1)));
        assert_eq!(claims.note(&key(1), step(1, 3), NOW), Noted::Second);
        assert!(claims.is_disputed(&key(1)));
        assert_eq!(stands(&claims, 1), [Stand::Pending, Stand::Refused]);
    }

    #[test]
    fn a_decision_for_one_is_a_decision_against_the_others() {
        let mut claims = Claims::default();
        claims.note(&key(1), step(1, 2), NOW);
        claims.note(&key(1), step(1, 3), NOW);
        claims.confirm(&key(1), &step(1, 3));
        assert_eq!(stands(&claims, 3), [Stand::Rejected, Stand::Confirmed]);
        assert!(!claims.is_disputed(&key(3)));
    }

    #[test]
    fn a_second_claim_is_seen_after_the_first_was_confirmed_or_rejected() {
        let mut confirmed = Claims::default();
        confirmed.note(&key(1), step(1, 2), NOW);
        confirmed.confirm(&key(1), &step(1, 2));
        assert_eq!(confirmed.heir(&key(1), |one| *one == key(2)), Some(key(2)));
        assert_eq!(confirmed.note(&key(2), step(1, 3), NOW), Noted::Second);
        assert!(confirmed.is_disputed(&key(2)));
        let mut rejected = Claims::default();
        rejected.note(&key(1), step(1, 2), NOW);
        assert_eq!(rejected.reject(&key(1), None), 1);
        assert_eq!(rejected.note(&key(1), step(1, 2), NOW), Noted::Known);
        assert_eq!(rejected.note(&key(1), step(1, 3), NOW), Noted::Second);
        assert!(rejected.is_disputed(&key(1)));
    }

    #[test]
    fn who_is_left_when_the_other_was_rejected_waits_alone() {
        let mut claims = Claims::default();
        claims.note(&key(1), step(1, 2), NOW);
        claims.note(&key(1), step(1, 3), NOW);
        assert_eq!(claims.reject(&key(1), Some(&key(2))), 1);
        assert!(!claims.is_disputed(&key(1)));
        assert_eq!(claims.open(&key(1))[0].statement, step(1, 3));
        assert_eq!(claims.reject(&key(1), Some(&key(2))), 0, "decided already");
    }

    #[test]
    fn chains_go_step_by_step_and_never_back() {
        let mut claims = Claims::default();
        for (old, new) in [(1, 2), (2, 3)] {
            assert_eq!(claims.note(&key(old), step(old, new), NOW), Noted::Pending);
            claims.confirm(&key(old), &step(old, new));
        }
        assert_eq!(claims.lineage(&key(3)), [key(3), key(2), key(1)]);
        for back in [1, 2] {
            assert_eq!(claims.note(&key(3), step(3, back), NOW), Noted::Loop);
        }
        assert_eq!(claims.heir(&key(1), |one| *one == key(3)), Some(key(3)));
        assert_eq!(claims.heir(&key(9), |one| *one == key(3)), None);
        // A thief of the first key was believed after all: the way over the second is given up.
        claims.note(&key(3), step(1, 4), NOW);
        claims.confirm(&key(3), &step(1, 4));
        assert_eq!(claims.lineage(&key(4)), [key(4), key(1)]);
        claims.forget(&key(4));
        assert_eq!(claims, Claims::default());
    }

    #[test]
    fn a_thief_cannot_fill_the_memory_nor_keep_the_right_one_out() {
        let mut claims = Claims::default();
        for new in 2..6 {
            claims.note(&key(1), step(1, new), NOW);
        }
        assert_eq!(claims.note(&key(1), step(1, 6), NOW), Noted::Full);
        assert_eq!(claims.reject(&key(1), None), MAX_CLAIMS);
        assert_eq!(claims.note(&key(1), step(1, 6), NOW), Noted::Second);
        assert_eq!(claims.of(&key(1)).len(), MAX_CLAIMS);
    }
}
