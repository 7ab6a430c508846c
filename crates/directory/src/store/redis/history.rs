//! The zone as it was: what the directory asks of the history of each hash tag.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use futures_util::future::try_join_all;
use kith_identity::Fingerprint;
use kith_sansio::Timestamp;
use redis::{Cmd, Script, Value, cmd};

use super::super::history::oldest;
use super::node::Lane;
use super::{
    BATCH_SECS, BUCKETS, Difference, Held, MAX_SET_BYTES, Page, READING_SCRIPTS, RedisStore, SCRIPTS, Shape,
    StoreError, bucket,
};
use crate::defaults::{HISTORY_BYTES, HISTORY_ROWS, HISTORY_SECS, STORE_BATCH};

/// Makes a history begin later.
static CUT: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPTS[3]));
/// Notes the shape of the zone.
static SHAPE: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPTS[4]));
/// Says whose sets changed.
static TOUCHED: LazyLock<Script> = LazyLock::new(|| Script::new(READING_SCRIPTS[0]));
/// Says what sets were.
static BEFORE: LazyLock<Script> = LazyLock::new(|| Script::new(READING_SCRIPTS[1]));

/// No number is higher: Redis's scripts count in floating point.
const LAST: u64 = 1 << 53;
/// The hash tag with what is there once.
const FIRST: u8 = 0;

/// Adds the bounds of a hash tag's history to a command: most rows, most bytes, oldest number, seconds; and the most
/// bytes of a set.
pub(super) fn add_bounds(command: &mut Cmd, now: Timestamp) {
    let share = |all: u64| all / BUCKETS as u64;
    command.arg(share(HISTORY_ROWS)).arg(share(HISTORY_BYTES)).arg(oldest(now)).arg(HISTORY_SECS);
    command.arg(MAX_SET_BYTES);
}

/// What is known of changes under one hash tag.
#[derive(Debug, PartialEq, Eq)]
struct Touched {
    begin: u64,
    is_known: bool,
    whose: Vec<Fingerprint>,
}

impl Touched {
    fn read(value: &Value) -> Option<Touched> {
        let Value::Array(parts) = value else { return None };
        let [Value::Int(begin), Value::Int(known), whose @ ..] = parts.as_slice() else { return None };
        let whose = whose.iter().filter_map(|member| match member {
            Value::BulkString(bytes) => bytes.as_slice().try_into().ok().map(Fingerprint::from_bytes),
            _ => None,
        });
        Some(Touched { begin: u64::try_from(*begin).ok()?, is_known: *known == 1, whose: whose.collect() })
    }
}

/// What a set was under two numbers; `None` where it has not changed since.
type Befores = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Where a history begins, and what it says of each of `count` sets.
fn befores(value: &Value, count: usize) -> Option<(u64, Vec<Befores>)> {
    let Value::Array(parts) = value else { return None };
    let (Value::Int(begin), rows) = parts.split_first()? else { return None };
    let row = |value: &Value| match value {
        Value::BulkString(bytes) => Some(Some(bytes.clone())),
        Value::Int(0) => Some(None),
        _ => None,
    };
    let (pairs, rest) = rows.as_chunks::<2>();
    let pairs = pairs.iter().map(|[first, second]| Some((row(first)?, row(second)?)));
    let pairs: Vec<_> = pairs.collect::<Option<_>>()?;
    (rest.is_empty() && pairs.len() == count).then_some((u64::try_from(*begin).ok()?, pairs))
}

/// Looks at an answer in all ways of this file; for fuzzing.
pub(super) fn interpret(answer: &Value) {
    let _ = Touched::read(answer);
    if let Value::Array(parts) = answer {
        let _ = befores(answer, parts.len().saturating_sub(1) / 2);
    }
}

impl RedisStore {
    /// The zone's sets behind `after`, as they were under `number`, as far back as the history reaches.
    pub(super) async fn read_page(
        &self,
        number: u64,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut present = self.behind(after, limit.saturating_add(1)).await?;
        let more = present.len() > limit;
        present.truncate(limit);
        let end = present.last().copied().filter(|_| more);
        // What went away since is still there under the number.
        let tags = after.as_ref().map_or(0, bucket)..=end.as_ref().map_or(u8::MAX, bucket);
        let touched = try_join_all(tags.map(|tag| self.touched(tag, number, LAST))).await?;
        let touched = touched.into_iter().flat_map(|touched| touched.whose);
        let inside =
            |who: &Fingerprint| after.is_none_or(|after| *who > after) && end.is_none_or(|end| *who <= end);
        let all: BTreeSet<_> = present.into_iter().chain(touched.filter(inside)).collect();
        let of: Vec<_> = all.iter().copied().take(limit).collect();
        let next = if all.len() > limit { of.last().copied() } else { end };
        let (_, states) = self.states(number, number, &of).await?;
        let mut sets = Vec::with_capacity(of.len());
        for (fingerprint, (bytes, _)) in of.into_iter().zip(states) {
            match Held::of_row(&fingerprint, bytes) {
                Ok(set) => sets.extend(set.map(|set| (fingerprint, set))),
                Err(error) => tracing::error!(%error, "a set is left out"),
            }
        }
        Ok(Page { sets, next })
    }

    pub(super) async fn read_changed(
        &self,
        from: u64,
        to: u64,
    ) -> Result<Option<Vec<Fingerprint>>, StoreError> {
        let parts = try_join_all((0..=u8::MAX).map(|tag| self.touched(tag, from, to))).await?;
        let reaches = parts.iter().all(|part| part.begin <= from);
        if !reaches || !parts.iter().any(|part| part.is_known) {
            return Ok(None);
        }
        let changed: BTreeSet<_> = parts.into_iter().flat_map(|part| part.whose).collect();
        Ok(Some(changed.into_iter().collect()))
    }

    pub(super) async fn read_differences(
        &self,
        from: u64,
        to: u64,
        of: Vec<Fingerprint>,
    ) -> Result<Option<Vec<Difference>>, StoreError> {
        let (begin, states) = self.states(from, to, &of).await?;
        if begin > from {
            return Ok(None);
        }
        let difference = |(fingerprint, (before, after)): (Fingerprint, (Vec<u8>, Vec<u8>))| {
            let before = Held::of_row(&fingerprint, before)?;
            Ok(Difference { fingerprint, before, after: Held::of_row(&fingerprint, after)? })
        };
        of.into_iter().zip(states).map(difference).collect::<Result<_, _>>().map(Some)
    }

    /// What sets were under two numbers, in the order in which they are named, empty where there was none; and where
    /// the history of them begins.
    async fn states(
        &self,
        from: u64,
        to: u64,
        of: &[Fingerprint],
    ) -> Result<(u64, Vec<(Vec<u8>, Vec<u8>)>), StoreError> {
        let mut present = Vec::with_capacity(of.len());
        for part in of.chunks(STORE_BATCH) {
            present.extend(try_join_all(part.iter().map(|fingerprint| self.fetch(fingerprint))).await?);
        }
        let mut tags: BTreeMap<u8, Vec<Fingerprint>> = BTreeMap::new();
        for fingerprint in of {
            tags.entry(bucket(fingerprint)).or_default().push(*fingerprint);
        }
        let asking = tags.iter().map(|(tag, of)| self.befores(*tag, from, to, of));
        let answers = try_join_all(asking).await?;
        let begin = answers.iter().map(|(begin, _)| *begin).max().unwrap_or(0);
        let befores = tags.into_values().flatten().zip(answers.into_iter().flat_map(|(_, befores)| befores));
        let mut befores: BTreeMap<Fingerprint, Befores> = befores.collect();
        let states = of.iter().zip(present).map(|(fingerprint, present)| {
            let (first, second) = befores.remove(fingerprint).unwrap_or_default();
            let second = second.unwrap_or(present);
            (first.unwrap_or_else(|| second.clone()), second)
        });
        Ok((begin, states.collect()))
    }

    async fn befores(
        &self,
        tag: u8,
        from: u64,
        to: u64,
        of: &[Fingerprint],
    ) -> Result<(u64, Vec<Befores>), StoreError> {
        let mut command = self.about_history(tag, &BEFORE);
        command.arg(from.min(LAST)).arg(to.min(LAST));
        for fingerprint in of {
            command.arg(fingerprint.as_bytes().as_slice());
        }
        let answer = self.ask(tag, Lane::Read, command).await?;
        befores(&answer, of.len()).ok_or_else(|| self.strange("the history"))
    }

    async fn touched(&self, tag: u8, from: u64, to: u64) -> Result<Touched, StoreError> {
        let mut command = self.about_history(tag, &TOUCHED);
        command.arg(from.min(LAST)).arg(to.min(LAST));
        let answer = self.ask(tag, Lane::Read, command).await?;
        Touched::read(&answer).ok_or_else(|| self.strange("the history"))
    }

    /// A script about a history, without its arguments.
    fn about_history(&self, tag: u8, script: &Script) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(script.get_hash()).arg(3);
        command.arg(self.key(tag, "revision")).arg(self.key(tag, "history")).arg(self.key(tag, "kept"));
        command
    }

    /// One history that begins late is enough.
    pub(super) async fn write_cut(&self, number: u64) -> Result<(), StoreError> {
        let mut command = self.about_history(FIRST, &CUT);
        command.arg(number);
        match self.ask(FIRST, Lane::Write, command).await? {
            Value::Int(1) => Ok(()),
            _ => Err(self.strange("the history")),
        }
    }

    pub(super) async fn write_shape(&self, now: Timestamp, shape: Shape) -> Result<(), StoreError> {
        let mut command = cmd("EVALSHA");
        command.arg(SHAPE.get_hash()).arg(4).arg(self.key(FIRST, "shape"));
        command.arg(self.key(FIRST, "revision")).arg(self.key(FIRST, "history")).arg(self.key(FIRST, "kept"));
        command.arg(shape.as_slice()).arg(now.0 / BATCH_SECS);
        match self.ask(FIRST, Lane::Write, command).await? {
            Value::Int(1) => Ok(()),
            _ => Err(self.strange("the shape of the zone")),
        }
    }

    pub(super) async fn read_shape(&self) -> Result<Option<Shape>, StoreError> {
        let command = cmd("GETRANGE").arg(self.key(FIRST, "shape")).arg(0).arg(63).take();
        match self.ask(FIRST, Lane::Read, command).await? {
            Value::BulkString(bytes) => Ok(bytes.try_into().ok()),
            _ => Err(self.strange("GETRANGE")),
        }
    }
}
