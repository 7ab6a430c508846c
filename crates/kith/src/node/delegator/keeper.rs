//! The policy of a home: in memory, and in `node.redb` with a log of every change. Whatever is changed is durable before
//! it is told to anybody.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kith_connect::Protocol;
use kith_connect::delegator::{Card, Change, Direction, Member, Policy, Rule, Until};
use kith_identity::contacts::{Group, Hint, Petname};
use kith_identity::{Fingerprint, Ni};
use kith_sansio::{Timestamp, system};
use kith_store::{Database, StoreError, Table, WriteRows};
use serde::{Deserialize, Serialize};

use crate::api::delegator::LogLine;
use crate::failure::{Failure, Result, chain};

const MEMBERS: Table = Table("delegator_members");
const RULES: Table = Table("delegator_rules");
const LOG: Table = Table("delegator_log");
/// The one row of [`RULES`].
const ALL: &[u8] = b"all";
/// Lines that the log keeps; the oldest go first.
const MAX_LOG: u64 = 100_000;

/// A member as it is stored.
#[derive(Serialize, Deserialize)]
struct MemberRow {
    name: Petname,
    ni: Ni,
    #[serde(default)]
    at: Vec<Hint>,
    groups: BTreeSet<Group>,
}

/// A rule as it is stored, and as a policy file has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RuleRow {
    from: Group,
    to: Group,
    /// `out` where it is missing.
    #[serde(default = "out")]
    direction: String,
    /// Every one where there is none.
    #[serde(default)]
    protocols: Vec<String>,
    /// RFC 3339; for good where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

fn out() -> String {
    Direction::Out.to_string()
}

/// A line of the log as it is stored.
#[derive(Serialize, Deserialize)]
struct LogRow {
    at: u64,
    by: String,
    change: String,
    text: String,
}

/// The policy and its log.
pub(crate) struct Keeper {
    database: Database,
    policy: RwLock<Arc<Policy>>,
    /// The number of the log's next line; held by whoever changes the policy.
    next: Mutex<u64>,
}

impl Keeper {
    /// Reads the policy of a database.
    pub(crate) fn open(database: Database) -> Result<Keeper> {
        let (mut policy, mut next, mut broken) = (Policy::default(), 0, None);
        let read = database.read(|tables| {
            tables.scan(MEMBERS, &[], |key, value| match restore(&mut policy, value) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    broken = Some(format!("member {}: {error}", data_encoding::HEXLOWER.encode(key)));
                    ControlFlow::Break(())
                }
            })?;
            if let Some(rows) = tables.row(RULES, ALL)? {
                match serde_json::from_slice::<Vec<RuleRow>>(&rows) {
                    Ok(rows) => {
                        let granted = rows.iter().try_for_each(|row| {
                            row.rule().and_then(|rule| policy.grant(rule).map_err(|error| refused(&error)))
                        });
                        broken = broken.take().or(granted.err().map(|failure| failure.error));
                    }
                    Err(error) => broken = Some(format!("rules: {error}")),
                }
            }
            tables.scan(LOG, &[], |key, _| {
                next = key.try_into().map_or(next, u64::from_be_bytes) + 1;
                ControlFlow::Continue(())
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        match broken {
            Some(error) => Err(Failure::failed(format!("the delegator's list cannot be used: {error}"))),
            None => Ok(Keeper { database, policy: RwLock::new(Arc::new(policy)), next: Mutex::new(next) }),
        }
    }

    fn next(&self) -> MutexGuard<'_, u64> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy as it is. Whoever reads does not wait for the disk.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the policy: durably, with a line of the log for each step. `by` says how it was changed. What changed is
    /// handed to `tell` before anybody else can change it again.
    pub(crate) fn change(
        &self,
        by: &str,
        change: impl FnOnce(&mut Policy) -> Result<()>,
        tell: impl FnOnce(&Arc<Policy>),
    ) -> Result<Vec<Change>> {
        let mut next = self.next();
        let before = self.policy();
        let mut policy = (*before).clone();
        change(&mut policy)?;
        policy.check().map_err(|error| refused(&error))?;
        let changes = Change::between(&before, &policy);
        if changes.is_empty() {
            return Ok(changes);
        }
        let stored = self.database.write(|tables| {
            store(tables, &before, &policy)?;
            log(tables, *next, by, &changes)
        });
        stored.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        *next += changes.len() as u64;
        let policy = Arc::new(policy);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&policy);
        tell(&policy);
        Ok(changes)
    }

    /// The last `count` lines of the log, the oldest first.
    pub(crate) fn log(&self, count: u64) -> Result<Vec<LogLine>> {
        let from = self.next().saturating_sub(count);
        let mut lines = Vec::new();
        let read = self.database.read(|tables| {
            tables.scan(LOG, &from.to_be_bytes(), |_, value| {
                if let Ok(row) = serde_json::from_slice::<LogRow>(value) {
                    let LogRow { at, by, change, text } = row;
                    lines.push(LogLine { at: Timestamp(at).to_string(), by, change, text });
                }
                ControlFlow::Continue(())
            })
        });
        read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
        Ok(lines)
    }
}

/// A refusal of the policy as a person reads it.
pub(super) fn refused(error: &kith_connect::delegator::PolicyError) -> Failure {
    use kith_connect::delegator::PolicyError as E;
    let failure = match error {
        E::NoMember(_) | E::NotInGroup(..) | E::NoRule(..) => Failure::not_found(chain(error)),
        _ => Failure::usage(chain(error)),
    };
    match error {
        E::NoMember(_) | E::NotInGroup(..) => {
            failure.hint("list the members with 'kith delegator group list'")
        }
        E::NoRule(..) => failure.hint("list the rules with 'kith delegator list'"),
        _ => failure,
    }
}

fn restore(policy: &mut Policy, value: &[u8]) -> std::result::Result<(), String> {
    let row: MemberRow = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let card = Card { name: row.name, authority: row.ni.authority, hints: row.at };
    for group in row.groups {
        policy.enter(row.ni.fingerprint, card.clone(), group).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn member_row(who: &Fingerprint, member: &Member) -> MemberRow {
    MemberRow {
        name: member.card.name.clone(),
        ni: Ni::new(*who, member.card.authority.clone()),
        at: member.card.hints.clone(),
        groups: member.groups.clone(),
    }
}

/// Writes what differs.
fn store(tables: &mut WriteRows, before: &Policy, after: &Policy) -> std::result::Result<(), StoreError> {
    for (who, _) in before.members().filter(|(who, _)| after.member(who).is_none()) {
        tables.remove(MEMBERS, who.as_bytes())?;
    }
    for (who, member) in after.members().filter(|(who, member)| before.member(who) != Some(member)) {
        let row = serde_json::to_vec(&member_row(who, member)).unwrap_or_default();
        tables.put(MEMBERS, who.as_bytes(), &row)?;
    }
    if !before.rules().eq(after.rules()) {
        let rows: Vec<_> = after.rules().map(RuleRow::of).collect();
        tables.put(RULES, ALL, &serde_json::to_vec(&rows).unwrap_or_default())?;
    }
    Ok(())
}

fn log(
    tables: &mut WriteRows,
    first: u64,
    by: &str,
    changes: &[Change],
) -> std::result::Result<(), StoreError> {
    for (number, change) in (first..).zip(changes) {
        let at = system::utc().0;
        let row =
            LogRow { at, by: by.to_owned(), change: change.kind().to_owned(), text: change.to_string() };
        tables.put(LOG, &number.to_be_bytes(), &serde_json::to_vec(&row).unwrap_or_default())?;
    }
    let keep = (first + changes.len() as u64).saturating_sub(MAX_LOG);
    let mut old = Vec::new();
    tables.scan(LOG, &[], |key, _| {
        let is_old = key.try_into().is_ok_and(|key| u64::from_be_bytes(key) < keep);
        if !is_old {
            return ControlFlow::Break(());
        }
        old.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    old.iter().try_for_each(|key| tables.remove(LOG, key).map(drop))
}

impl RuleRow {
    pub(super) fn of(rule: &Rule) -> RuleRow {
        RuleRow {
            from: rule.from.clone(),
            to: rule.to.clone(),
            direction: rule.direction.to_string(),
            protocols: rule.protocols.iter().map(ToString::to_string).collect(),
            until: match rule.until {
                Until::Time(end) => Some(end.to_string()),
                Until::Forever => None,
            },
        }
    }

    pub(super) fn rule(&self) -> Result<Rule> {
        let until = self.until.as_deref().map(str::parse::<Timestamp>).transpose();
        Ok(Rule {
            from: self.from.clone(),
            to: self.to.clone(),
            direction: self.direction.parse().map_err(|error| refused(&error))?,
            protocols: protocols(&self.protocols)?,
            until: until.map_err(|error| Failure::usage(chain(&error)))?.map_or(Until::Forever, Until::Time),
        })
    }
}

/// Names of protocols.
pub(super) fn protocols(names: &[String]) -> Result<BTreeSet<Protocol>> {
    let parsed = names.iter().map(|name| {
        name.parse().map_err(|error| {
            Failure::usage(format!("'{name}' is no protocol: {error}"))
                .hint("ping/1, send/1 or records/1, for example")
        })
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_sansio::SeededRng;
    use kith_store::crash::Backend;

    fn enter(policy: &mut Policy, byte: u8, group: &str) -> Result<()> {
        let card = Card { name: format!("node {byte}").parse().unwrap(), authority: None, hints: Vec::new() };
        let who = Fingerprint::from_bytes([byte; 32]);
        policy.enter(who, card, group.parse().unwrap()).map_err(|error| refused(&error))
    }

    fn rule(until: Until) -> Rule {
        let (from, to) = ("sensors".parse().unwrap(), "hubs".parse().unwrap());
        Rule { from, to, direction: Direction::Both, protocols: ["ping/1".parse().unwrap()].into(), until }
    }

    #[test]
    fn a_policy_and_its_log_are_there_after_a_restart() {
        let database = Database::in_memory().unwrap();
        let keeper = Keeper::open(database.clone()).unwrap();
        keeper.change("command", |policy| enter(policy, 1, "sensors"), |_| {}).unwrap();
        keeper.change("command", |policy| enter(policy, 2, "hubs"), |_| {}).unwrap();
        let end = Until::Time(Timestamp(1_800_000_000));
        let grant = |policy: &mut Policy| policy.grant(rule(end)).map_err(|error| refused(&error));
        keeper.change("file", grant, |_| {}).unwrap();
        let again = Keeper::open(database).unwrap();
        assert_eq!(*again.policy(), *keeper.policy());
        assert_eq!(again.policy().list_of(&Fingerprint::from_bytes([1; 32])).unwrap().len(), 1);
        let log = again.log(100).unwrap();
        let kinds: Vec<_> = log.iter().map(|line| (line.by.as_str(), line.change.as_str())).collect();
        let by = |by, kinds: &[&'static str]| kinds.iter().map(|kind| (by, *kind)).collect::<Vec<_>>();
        let expected =
            [by("command", &["admitted", "joined", "admitted", "joined"]), by("file", &["granted"])];
        assert_eq!(kinds, expected.concat());
        assert_eq!(again.log(1).unwrap(), log[4..]);
    }

    #[test]
    fn what_is_refused_or_changes_nothing_leaves_no_line() {
        let keeper = Keeper::open(Database::in_memory().unwrap()).unwrap();
        keeper.change("command", |policy| enter(policy, 1, "sensors"), |_| {}).unwrap();
        let none =
            keeper.change("command", |policy| enter(policy, 1, "sensors"), |_| panic!("nothing to tell"));
        assert_eq!(none.unwrap(), []);
        let half = keeper.change(
            "command",
            |policy| {
                enter(policy, 2, "hubs")?;
                let absent = policy.expel(&Fingerprint::from_bytes([9; 32]));
                absent.map_err(|error| refused(&error))
            },
            |_| panic!("nothing to tell"),
        );
        assert_eq!(half.unwrap_err().code, crate::failure::Code::NotFound);
        assert_eq!(keeper.policy().members().len(), 1);
        assert_eq!(keeper.log(100).unwrap().len(), 2);
    }

    #[test]
    fn policy_and_log_agree_wherever_the_power_goes_and_nothing_acknowledged_is_lost() {
        let disk = Backend::new();
        let open = |disk: &Backend| Keeper::open(Database::open_backend(disk, 1 << 20).unwrap()).unwrap();
        let keeper = open(&disk);
        let begin = disk.events();
        let mut steps = vec![(begin, keeper.policy(), 0)];
        for byte in 1..6 {
            keeper.change("command", |policy| enter(policy, byte, "sensors"), |_| {}).unwrap();
            steps.push((disk.events(), keeper.policy(), keeper.log(100).unwrap().len()));
        }
        let grant = |policy: &mut Policy| policy.grant(rule(Until::Forever)).map_err(|error| refused(&error));
        keeper.change("command", grant, |_| {}).unwrap();
        steps.push((disk.events(), keeper.policy(), keeper.log(100).unwrap().len()));
        let mut rng = SeededRng::new(3);
        for events in begin..=disk.events() {
            for image in [disk.killed_at(events), disk.image_at(events, &mut rng)] {
                let found = open(&Backend::with_image(image));
                let acknowledged = steps.iter().rposition(|(done, ..)| *done <= events).unwrap();
                let at = steps.iter().position(|(_, policy, _)| **policy == *found.policy()).unwrap();
                assert!((acknowledged..=acknowledged + 1).contains(&at), "after {events} events: step {at}");
                assert_eq!(found.log(100).unwrap().len(), steps[at].2, "after {events} events");
            }
        }
    }
}
