//! A policy kept in a file: read when the node starts, and again whenever the file changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kith_connect::delegator::{Card, Policy};
use kith_identity::Ni;
use kith_identity::contacts::{Group, Hint, Petname};
use kith_sansio::{Span, Time, system};
use serde::Deserialize;

use super::keeper::{RuleRow, refused};
use crate::failure::{Failure, Result};
use crate::node::Node;

/// How often the file is looked at.
const CHECK: Duration = Duration::from_millis(200);
/// A file that could not be taken over is tried again after so long, also where it is the same: what was in the way may
/// have passed.
const RETRY: Span = Span::secs(10);
/// Largest file in bytes: room for as many members as there may be.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    member: Vec<MemberOf>,
    #[serde(default)]
    rule: Vec<RuleRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberOf {
    name: Petname,
    ni: Ni,
    groups: Vec<Group>,
    #[serde(default)]
    at: Vec<Hint>,
}

/// Reads a policy from its file.
pub(super) fn read(path: &Path) -> Result<Policy> {
    let named = |what: String| Failure::failed(format!("{}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| named(error.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(named(format!("{size} bytes are more than {MAX_BYTES}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    parse(&text).map_err(|failure| Failure { error: named(failure.error).error, ..failure })
}

fn parse(text: &str) -> Result<Policy> {
    let file: File = toml::from_str(text).map_err(|error| {
        let lines: Vec<_> = error.to_string().lines().map(|line| line.trim().to_owned()).collect();
        Failure::failed(lines.join(" ").trim().to_owned())
    })?;
    let mut policy = Policy::default();
    for MemberOf { name, ni, groups, at } in file.member {
        if policy.member(&ni.fingerprint).is_some() {
            return Err(Failure::failed(format!("{ni} is a member twice")));
        }
        if groups.is_empty() {
            return Err(Failure::failed(format!("'{name}' is in no group")));
        }
        let card = Card { name, authority: ni.authority, hints: at };
        for group in groups {
            policy.enter(ni.fingerprint, card.clone(), group).map_err(|error| refused(&error))?;
        }
    }
    for row in &file.rule {
        policy.grant(row.rule()?).map_err(|error| refused(&error))?;
    }
    Ok(policy)
}

/// Follows the file until the node stops. One that cannot be read leaves the policy as it is.
pub(super) async fn follow(node: Arc<Node>, path: PathBuf, read: Option<Stamp>) {
    let mut watch = Watch::new(read);
    let mut told = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = node.stopped.cancelled() => return,
        }
        if !watch.is_due(stamp(&path), system::time()) {
            continue;
        }
        let of = path.clone();
        match node.on_disk(move |node| load(node, &of)).await {
            Ok(changes) => {
                told = None;
                tracing::info!(changes, "the delegator's file was read again");
            }
            Err(failure) => {
                watch.failed(system::time());
                // Said once, however often it is tried.
                if told.as_ref() != Some(&failure) {
                    tracing::error!(%failure, "the delegator's list stays the old one");
                }
                told = Some(failure);
            }
        }
    }
}

/// Makes the file's policy the one in force; how many changes that were.
pub(super) fn load(node: &Node, path: &Path) -> Result<usize> {
    let policy = read(path)?;
    let changes = node.delegation.change(node, "file", move |old| {
        *old = policy;
        Ok(())
    })?;
    Ok(changes.len())
}

/// When a file is to be read again: when it is another one, and at rest, or when the last attempt failed. Half of a file
/// that is still being written may be a policy too, with half of the members.
struct Watch {
    read: Option<Stamp>,
    seen: Option<Stamp>,
    /// When it is read again though it is the same.
    again: Option<Time>,
}

impl Watch {
    fn new(read: Option<Stamp>) -> Watch {
        Watch { read, seen: read, again: None }
    }

    fn is_due(&mut self, found: Option<Stamp>, now: Time) -> bool {
        let rests = std::mem::replace(&mut self.seen, found) == found;
        let is_due = rests && (found != self.read || self.again.is_some_and(|again| again <= now));
        if is_due {
            (self.read, self.again) = (found, None);
        }
        is_due
    }

    fn failed(&mut self, now: Time) {
        self.again = Some(now + RETRY);
    }
}

/// What tells one state of a file from another.
pub(super) type Stamp = (u64, u64, std::time::SystemTime);

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: &str =
        "[[member]]\nname = 'hub'\nni = 'ni:///sha3-256;OboJhW6BME7EP_SM7zIH6jPCJEs7Y4jkrcK2APDGkM0'\n";

    #[test]
    fn a_file_holds_members_and_rules() {
        let text = format!(
            "{MEMBER}groups = ['hubs', 'all']\nat = ['quic://hub.example:7117']\n\
             [[rule]]\nfrom = 'all'\nto = 'hubs'\nprotocols = ['ping/1']\nuntil = '2030-01-01T00:00:00Z'\n"
        );
        let policy = parse(&text).unwrap();
        let (_, member) = policy.members().next().unwrap();
        assert_eq!((member.card.name.as_str(), member.groups.len(), member.card.hints.len()), ("hub", 2, 1));
        let rule = policy.rules().next().unwrap().to_string();
        assert_eq!(rule, "all may reach hubs for ping/1 until 2030-01-01T00:00:00Z");
        assert_eq!(parse("").unwrap(), Policy::default());
    }

    #[test]
    fn a_file_is_read_when_it_has_changed_and_is_not_being_written() {
        let stamp = |length| Some((1, length, std::time::SystemTime::UNIX_EPOCH));
        let mut watch = Watch::new(stamp(9));
        let looks = [stamp(9), stamp(0), stamp(4), stamp(7), stamp(7), stamp(7), None, stamp(7), None, None];
        let due = looks.map(|found| watch.is_due(found, Time(0)));
        assert_eq!(due, [false, false, false, false, true, false, false, false, false, true]);
    }

    #[test]
    fn a_file_that_could_not_be_read_is_read_again_though_it_is_the_same() {
        let stamp = |length| Some((1, length, std::time::SystemTime::UNIX_EPOCH));
        let mut watch = Watch::new(stamp(1));
        assert!(!watch.is_due(stamp(2), Time(0)) && watch.is_due(stamp(2), Time(0)));
        watch.failed(Time(0));
        assert!(!watch.is_due(stamp(2), Time(0) + Span::secs(9)));
        assert!(watch.is_due(stamp(2), Time(0) + RETRY));
        assert!(!watch.is_due(stamp(2), Time(0) + RETRY + RETRY), "once for each failure");
        watch.failed(Time(0) + RETRY);
        assert!(!watch.is_due(stamp(3), Time(0) + RETRY) && watch.is_due(stamp(3), Time(0) + RETRY));
        assert!(!watch.is_due(stamp(3), Time(0) + RETRY + RETRY), "another file, which was read");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let member = |rest: &str| format!("{MEMBER}{rest}");
        for (text, part) in [
            (member(""), "groups"),
            (member("groups = []"), "in no group"),
            (member("groups = ['Hubs']"), "group name"),
            (member("groups = ['hubs']\ngroup = 1"), "group"),
            (format!("{MEMBER}groups = ['a']\n{MEMBER}groups = ['b']"), "twice"),
            ("[[rule]]\nfrom = 'a'".to_owned(), "to"),
            ("[[rule]]\nfrom = 'a'\nto = 'b'\ndirection = 'up'".to_owned(), "direction"),
            ("[[rule]]\nfrom = 'a'\nto = 'b'\nprotocols = ['ping']".to_owned(), "ping"),
            ("[[rule]]\nfrom = 'a'\nto = 'b'\nuntil = 'soon'".to_owned(), "soon"),
        ] {
            let failure = parse(&text).unwrap_err();
            assert!(failure.error.contains(part), "{text}: {}", failure.error);
        }
    }
}
