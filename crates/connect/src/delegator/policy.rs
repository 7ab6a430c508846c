use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kith_identity::Fingerprint;
use kith_identity::contacts::Group;
use kith_sansio::Timestamp;

use super::list::{Card, Delta, Entry, EntryError, List};
use super::rights::{Direction, Rights, Until};
use super::{MAX_ENTRIES, MAX_GROUPS, MAX_HINTS, MAX_LIST_BYTES, MAX_MEMBERS, MAX_PROTOCOLS, MAX_RULES};
use crate::Protocol;

/// Bytes of an entry's fixed parts in a message, at most.
const ENTRY_BYTES: usize = 64;
/// Bytes of a text's length, or of a time, at most.
const FIELD_BYTES: usize = 9;

/// A member: what is said of it, and the groups that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What is said of it.
    pub card: Card,
    /// Its groups; never empty.
    pub groups: BTreeSet<Group>,
}

/// Members of one group may reach those of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The first group.
    pub from: Group,
    /// The second; may be the same.
    pub to: Group,
    /// Who may open streams, as members of the first see it.
    pub direction: Direction,
    /// For which protocols; empty for every one.
    pub protocols: BTreeSet<Protocol>,
    /// Until when.
    pub until: Until,
}

/// Who is in which group, and which groups may reach which: everything that lists follow from.
///
/// Two rules that differ in their end alone are one, with the end that was given last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    members: BTreeMap<Fingerprint, Member>,
    groups: BTreeMap<Group, BTreeSet<Fingerprint>>,
    rules: BTreeSet<Rule>,
    names: BTreeMap<String, Fingerprint>,
}

/// Why a policy stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Another member has this name.
    #[error("the name '{0}' is another member's")]
    NameTaken(String),
    /// Nobody of this fingerprint is a member.
    #[error("{0} is no member")]
    NoMember(Fingerprint),
    /// It is a member, but not of this group.
    #[error("{0} is not in the group '{1}'")]
    NotInGroup(Fingerprint, Group),
    /// There is no such rule.
    #[error("there is no rule from '{0}' to '{1}'")]
    NoRule(Group, Group),
    /// Not `in`, `out` or `both`.
    #[error("'{0}' is no direction: in, out or both")]
    Direction(String),
    /// Too many of something.
    #[error("a policy has at most {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A list could become larger than a subscriber takes.
    #[error("the lists could become larger than {MAX_LIST_BYTES} bytes")]
    TooLarge,
}

impl Policy {
    /// Everybody in it.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&Fingerprint, &Member)> {
        self.members.iter()
    }

    /// The groups with their members.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&Group, &BTreeSet<Fingerprint>)> {
        self.groups.iter()
    }

    /// The rules.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The member with this fingerprint.
    pub fn member(&self, who: &Fingerprint) -> Option<&Member> {
        self.members.get(who)
    }

    /// The member with this name, in any case of its letters.
    pub fn named(&self, name: &str) -> Option<Fingerprint> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// Puts `who` into `group`, as a new member or one that is known; what is said of it is `card` from now on.
    pub fn enter(&mut self, who: Fingerprint, card: Card, group: Group) -> Result<(), PolicyError> {
        let too_many = |what, most| Err(PolicyError::TooMany { what, most });
        let folded = card.name.as_str().to_lowercase();
        match self.names.get(&folded) {
            Some(other) if *other != who => {
                return Err(PolicyError::NameTaken(card.name.to_string()));
            }
            _ if card.hints.len() > MAX_HINTS => return too_many("address hints of one member", MAX_HINTS),
            _ if !self.members.contains_key(&who) && self.members.len() >= MAX_MEMBERS => {
                return too_many("members", MAX_MEMBERS);
            }
            _ if !self.groups.contains_key(&group) && self.groups.len() >= MAX_GROUPS => {
                return too_many("groups", MAX_GROUPS);
            }
            _ => {}
        }
        self.groups.entry(group.clone()).or_default().insert(who);
        let member =
            self.members.entry(who).or_insert_with(|| Member { card: card.clone(), groups: BTreeSet::new() });
        member.groups.insert(group);
        self.names.remove(&member.card.name.as_str().to_lowercase());
        member.card = card;
        self.names.insert(folded, who);
        Ok(())
    }

    /// Takes `who` out of `group`; out of its last one, it is no member any more.
    pub fn leave(&mut self, who: &Fingerprint, group: &Group) -> Result<(), PolicyError> {
        let member = self.members.get_mut(who).ok_or(PolicyError::NoMember(*who))?;
        if !member.groups.remove(group) {
            return Err(PolicyError::NotInGroup(*who, group.clone()));
        }
        if member.groups.is_empty() {
            self.names.remove(&member.card.name.as_str().to_lowercase());
            self.members.remove(who);
        }
        if let Some(of_group) = self.groups.get_mut(group) {
            of_group.remove(who);
            if of_group.is_empty() {
                self.groups.remove(group);
            }
        }
        Ok(())
    }

    /// Takes `who` out of every group.
    pub fn expel(&mut self, who: &Fingerprint) -> Result<(), PolicyError> {
        let groups = self.members.get(who).ok_or(PolicyError::NoMember(*who))?.groups.clone();
        groups.iter().try_for_each(|group| self.leave(who, group))
    }

    /// Adds a rule; one that differs in its end alone gives way to it. Groups need no members yet.
    pub fn grant(&mut self, rule: Rule) -> Result<(), PolicyError> {
        let known = self.rules.iter().find(|known| known.is_like(&rule)).cloned();
        if known.is_none() && self.rules.len() >= MAX_RULES {
            return Err(PolicyError::TooMany { what: "rules", most: MAX_RULES });
        }
        if self.protocols().into_iter().chain(&rule.protocols).collect::<BTreeSet<_>>().len() > MAX_PROTOCOLS
        {
            return Err(PolicyError::TooMany { what: "protocols in all rules", most: MAX_PROTOCOLS });
        }
        known.map(|known| self.rules.remove(&known));
        self.rules.insert(rule);
        Ok(())
    }

    /// Takes away the rules from `from` to `to`, and those the other way round that let the first reach the second: all
    /// of them, or those for exactly these protocols; how many there were.
    pub fn revoke(
        &mut self,
        from: &Group,
        to: &Group,
        protocols: Option<&BTreeSet<Protocol>>,
    ) -> Result<usize, PolicyError> {
        let before = self.rules.len();
        let is_meant = |rule: &Rule| {
            let as_said = rule.from == *from && rule.to == *to;
            let turned_round = rule.from == *to && rule.to == *from && rule.direction != Direction::Out;
            (as_said || turned_round) && protocols.is_none_or(|only| rule.protocols == *only)
        };
        self.rules.retain(|rule| !is_meant(rule));
        match before - self.rules.len() {
            0 => Err(PolicyError::NoRule(from.clone(), to.clone())),
            gone => Ok(gone),
        }
    }

    /// Takes away the rules that have ended at `now`; how many there were.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.until.holds(now));
        before - self.rules.len()
    }

    /// Whether every list that follows from this policy is one that subscribers take, and all of them are as many as a
    /// change can be worked out for in time.
    pub fn check(&self) -> Result<(), PolicyError> {
        let pairs = self.rules.iter().map(|rule| ((&rule.from).min(&rule.to), (&rule.from).max(&rule.to)));
        let size = |group: &Group| self.groups.get(group).map_or(0, BTreeSet::len);
        // Whoever is in several groups is counted several times.
        let entries = |(one, other): &(&Group, &Group)| match one == other {
            true => size(one) * size(one),
            false => 2 * size(one) * size(other),
        };
        if pairs.collect::<BTreeSet<_>>().iter().map(entries).sum::<usize>() > MAX_ENTRIES {
            return Err(PolicyError::TooMany { what: "entries in all lists", most: MAX_ENTRIES });
        }
        let rights: usize = self.protocols().iter().map(|one| one.as_str().len() + 3 * FIELD_BYTES).sum();
        let entry = ENTRY_BYTES + rights + 3 * FIELD_BYTES;
        let bytes: usize = self.members.values().map(|member| entry + card_bytes(&member.card)).sum();
        if bytes > MAX_LIST_BYTES { Err(PolicyError::TooLarge) } else { Ok(()) }
    }

    fn protocols(&self) -> BTreeSet<&Protocol> {
        self.rules.iter().flat_map(|rule| &rule.protocols).collect()
    }

    /// The list of one member; empty for anybody else.
    pub fn list_of(&self, who: &Fingerprint) -> Result<List, EntryError> {
        let mut list = self.list_for(self.groups_of(who))?;
        let _it_may_be_missing = list.remove(who);
        Ok(list)
    }

    fn groups_of(&self, who: &Fingerprint) -> Option<&BTreeSet<Group>> {
        self.members.get(who).map(|member| &member.groups)
    }

    /// The list of all who are in these groups and no others; each of them may be on it.
    fn list_for(&self, groups: Option<&BTreeSet<Group>>) -> Result<List, EntryError> {
        let mut list = List::default();
        let Some(groups) = groups else { return Ok(list) };
        let mut rights: BTreeMap<&Fingerprint, Rights> = BTreeMap::new();
        for rule in &self.rules {
            for (others, direction) in rule.for_groups(groups) {
                for peer in self.groups.get(others).into_iter().flatten() {
                    rule.add_to(rights.entry(peer).or_default(), direction);
                }
            }
        }
        for (peer, rights) in rights {
            if let Some(other) = self.members.get(peer) {
                list.put(Arc::new(Entry { peer: *peer, card: other.card.clone(), rights }))?;
            }
        }
        Ok(list)
    }

    /// The rules that can put `peer` on a list.
    fn rules_about(&self, peer: &Fingerprint) -> Vec<&Rule> {
        let Some(member) = self.members.get(peer) else { return Vec::new() };
        let concerns = |rule: &&Rule| member.groups.contains(&rule.from) || member.groups.contains(&rule.to);
        self.rules.iter().filter(concerns).collect()
    }

    /// What `who` and `peer` may do with each other by the `rules` about the latter, as `who` sees it.
    fn entry(&self, who: &Fingerprint, peer: &Fingerprint, rules: &[&Rule]) -> Option<Arc<Entry>> {
        let (member, other) = (self.members.get(who)?, self.members.get(peer)?);
        let mut rights = Rights::default();
        for rule in rules {
            for (others, direction) in rule.for_groups(&member.groups) {
                if other.groups.contains(others) && who != peer {
                    rule.add_to(&mut rights, direction);
                }
            }
        }
        (!rights.is_empty()).then(|| Arc::new(Entry { peer: *peer, card: other.card.clone(), rights }))
    }

    /// How every member's list changes where this policy becomes `next`; those whose list stays are left out.
    pub fn deltas(&self, next: &Policy) -> Result<BTreeMap<Fingerprint, Delta>, EntryError> {
        let moved = self.moved(next);
        let rules: Vec<_> = self.rules.symmetric_difference(&next.rules).collect();
        let mut whole: BTreeSet<Fingerprint> = moved.clone();
        for group in rules.iter().flat_map(|rule| [&rule.from, &rule.to]) {
            whole.extend(self.groups.get(group).into_iter().chain(next.groups.get(group)).flatten());
        }
        let (mut deltas, mut alike) = (BTreeMap::new(), BTreeMap::new());
        for who in &whole {
            // Whoever is in the same groups has the same list, but for itself.
            let groups = (self.groups_of(who), next.groups_of(who));
            let delta = match alike.entry(groups) {
                Slot::Occupied(known) => known.into_mut(),
                Slot::Vacant(slot) => slot.insert(self.list_for(groups.0)?.delta(&next.list_for(groups.1)?)),
            };
            deltas.insert(*who, delta.without(who));
        }
        for peer in &moved {
            let (rules, next_rules) = (self.rules_about(peer), next.rules_about(peer));
            let around = self.around(peer).into_iter().chain(next.around(peer));
            // As above: these stay in their groups.
            let mut alike = BTreeMap::new();
            for who in around.collect::<BTreeSet<_>>().difference(&whole) {
                let (before, after) = &*alike
                    .entry(self.groups_of(who))
                    .or_insert_with(|| (self.entry(who, peer, &rules), next.entry(who, peer, &next_rules)));
                match after {
                    _ if before == after => {}
                    Some(entry) => deltas.entry(*who).or_default().put.push(Arc::clone(entry)),
                    None => deltas.entry(*who).or_default().gone.push(*peer),
                }
            }
        }
        deltas.retain(|_, delta| !delta.is_empty());
        Ok(deltas)
    }

    /// Whoever is a member in one of the two alone, or is said something else of, or is in other groups.
    fn moved(&self, next: &Policy) -> BTreeSet<Fingerprint> {
        let here = self.members.iter().filter(|(who, member)| next.members.get(who) != Some(member));
        let there = next.members.keys().filter(|who| !self.members.contains_key(who));
        here.map(|(who, _)| *who).chain(there.copied()).collect()
    }

    /// Everybody whose list may hold `peer`.
    fn around(&self, peer: &Fingerprint) -> BTreeSet<Fingerprint> {
        let Some(member) = self.members.get(peer) else { return BTreeSet::new() };
        let groups =
            self.rules.iter().flat_map(|rule| rule.for_groups(&member.groups)).map(|(others, _)| others);
        let groups: BTreeSet<_> = groups.collect();
        groups.into_iter().filter_map(|group| self.groups.get(group)).flatten().copied().collect()
    }
}

impl Rule {
    /// Whether the two differ in their end at most.
    pub(super) fn is_like(&self, other: &Rule) -> bool {
        let parts = |rule: &Rule| (rule.from.clone(), rule.to.clone(), rule.direction);
        self.protocols == other.protocols && parts(self) == parts(other)
    }

    /// The groups that the rule lets members of `groups` have to do with, and the direction as they see it.
    fn for_groups(&self, groups: &BTreeSet<Group>) -> impl Iterator<Item = (&Group, Direction)> {
        let first = groups.contains(&self.from).then_some((&self.to, self.direction));
        let second = groups.contains(&self.to).then_some((&self.from, self.direction.reversed()));
        first.into_iter().chain(second)
    }

    fn add_to(&self, rights: &mut Rights, direction: Direction) {
        if self.protocols.is_empty() {
            rights.allow(None, direction, self.until);
        }
        for protocol in &self.protocols {
            rights.allow(Some(protocol.clone()), direction, self.until);
        }
    }
}

fn card_bytes(card: &Card) -> usize {
    let authority = card.authority.as_ref().map_or(0, |authority| authority.to_string().len());
    let hints: usize = card.hints.iter().map(|hint| hint.to_string().len() + FIELD_BYTES).sum();
    card.name.as_str().len() + authority + 2 * FIELD_BYTES + hints
}

#[cfg(test)]
mod tests;
