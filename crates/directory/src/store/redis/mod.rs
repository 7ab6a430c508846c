//! Sets on Redis or Valkey: one server, or a cluster, shared by as many directories as one likes.
//!
//! Keys, of which `xx` (the first byte of the fingerprint in hexadecimal) is the hash tag, so that everything about
//! one node lies in one slot of a cluster and changes in one step of a script:
//!
//! | key | holds |
//! | --- | --- |
//! | `PREFIX:{xx}:set:VALUE` | the set in its binary form; Redis removes it an hour after its end where no sweep did |
//! | `PREFIX:{xx}:seen:VALUE` | `timestamp end digest` of the newest set, until no older one can be valid |
//! | `PREFIX:{xx}:index` | sorted set of the fingerprints, all of the same score, in order of their bytes |
//! | `PREFIX:{xx}:due` | sorted set of the fingerprints by the end of their sets |
//! | `PREFIX:{xx}:revision` | `newest before sealed`: when something under this tag changed |
//! | `PREFIX:{xx}:history` | stream of the changes: under `number-sequence` whose set changed and what it was before |
//! | `PREFIX:{xx}:kept` | `newest begin rows bytes sequence`: how far back that reaches |
//! | `PREFIX:{00}:shape` | digest of how the zone is written |
//!
//! The zone under a number is read without a lock: first the sets, then what the history has of them with higher
//! numbers. What is not there had not changed when the sets were read.
//!
//! Every decision is by the time of the caller. Redis is told lengths of time, never times, so that its own clock
//! matters to nothing but cleaning up.
//!
//! An announce is acknowledged when the master has synced it, which its settings must say (they are looked at), and
//! when the wanted number of replicas has it, which WAIT says on the very connection that wrote it. Requests that
//! wait together go together, with one WAIT for all. What fails for a reason that may pass is tried again for some
//! seconds; an announce that was written and not acknowledged is then a repeat, which writes and waits once more.

mod address;
mod cluster;
mod error;
mod history;
mod link;
mod node;

use std::sync::{Arc, LazyLock};

use futures_util::future::{join_all, try_join_all};
use kith_identity::Fingerprint;
use kith_identity::record::{MAX_SIGNED_BYTES, REPLAY_SECS, VerifiedRecordSet};
use kith_sansio::{Span, Time, Timestamp, system};
use redis::{Cmd, Script, Value, cmd};

pub use self::address::{RedisConfig, RedisServer, RedisUrlError};
use self::cluster::{Cluster, slot};
pub use self::error::RedisError;
use self::error::Trouble;
use self::node::{Lane, Node};
use super::recent::{Recent, stored};
use super::{BATCH_SECS, BoxFuture, Difference, Held, Page, Revision, Shape, Store, StoreError, Stored};
use crate::defaults::{
    STORE_CACHE_SETS, STORE_GRACE_SECS, STORE_PAUSE_FIRST, STORE_PAUSE_LAST, STORE_READ, STORE_WRITE,
};
use crate::replay::Seen;

/// A script, with what several have in common before it.
macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("revision.lua"), include_str!("history.lua"), include_str!($file))
    };
}

/// All scripts that write; a server must know them.
const SCRIPTS: [&str; 5] = [
    script!("announce.lua"),
    script!("remove.lua"),
    script!("seal.lua"),
    script!("cut.lua"),
    script!("shape.lua"),
];
/// All scripts that only read.
const READING_SCRIPTS: [&str; 2] = [script!("touched.lua"), script!("before.lua")];

/// Takes in one set.
static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPTS[0]));
/// Removes one set whose time is over.
static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPTS[1]));
/// Lets no change to come take a number.
static SEAL: LazyLock<Script> = LazyLock::new(|| Script::new(SCRIPTS[2]));

/// Largest value that is read; a longer one is damage, and not taken into memory.
const MAX_SET_BYTES: usize = MAX_SIGNED_BYTES + 64;

/// Hash tags.
const BUCKETS: usize = 256;

/// The sets of a zone on Redis or Valkey.
pub struct RedisStore {
    config: Arc<RedisConfig>,
    cluster: Cluster,
    recent: Recent,
}

impl RedisStore {
    /// Connects to every master and makes sure that it keeps what it acknowledges.
    ///
    /// # Errors
    /// Whatever keeps a master from taking an announce, except too few replicas, which may come back.
    pub async fn connect(config: RedisConfig) -> Result<RedisStore, RedisError> {
        let config = Arc::new(config);
        let recent = Recent::new(STORE_CACHE_SETS);
        let cluster = Cluster::new(Arc::clone(&config));
        let store = RedisStore { cluster, config, recent };
        store.greet().await?;
        Ok(store)
    }

    async fn greet(&self) -> Result<(), RedisError> {
        self.ask(0, Lane::Read, cmd("PING")).await?;
        if !self.config.cluster
            && let Some(node) = self.cluster.owner(0)
            && let Ok(Value::Array(rows)) =
                node.ask(Lane::Read, cmd("CLUSTER").arg("SLOTS").take(), false).await
            && !rows.is_empty()
        {
            let (code, answer) = ("CLUSTER".to_owned(), "it is one server of a cluster".to_owned());
            return Err(RedisError::Refused { server: node.server.clone(), code, answer });
        }
        let masters = self.cluster.masters();
        let greetings = masters.iter().map(|master| master.ask(Lane::Write, cmd("PING"), false));
        for greeting in join_all(greetings).await {
            match greeting {
                Err(Trouble::Final(error)) => return Err(error),
                Err(trouble) => tracing::warn!(?trouble, "the store cannot take announces now"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The answer to a command about the keys of one hash tag.
    async fn ask(&self, bucket: u8, lane: Lane, command: Cmd) -> Result<Value, RedisError> {
        let patience = if lane == Lane::Read { STORE_READ } else { STORE_WRITE };
        let begun = system::time();
        let mut last = Trouble::Again("no server is known".to_owned());
        let trying =
            self.try_often(slot(tag(bucket).as_bytes()), lane, &command, &mut last, begun + patience);
        match tokio::time::timeout(patience.into(), trying).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) | Err(_) => Err(match last {
                Trouble::NotReplicated(error) => error,
                Trouble::Again(last) => RedisError::NoAnswer { waited: patience, last },
                _ => RedisError::NoAnswer { waited: patience, last: "its keys move about".to_owned() },
            }),
        }
    }

    /// Tries until the deadline; `None` where the time is over.
    async fn try_often(
        &self,
        slot: u16,
        lane: Lane,
        command: &Cmd,
        last: &mut Trouble,
        deadline: Time,
    ) -> Option<Result<Value, RedisError>> {
        let mut pause = STORE_PAUSE_FIRST;
        let mut told: Option<Arc<Node>> = None;
        loop {
            let asking = told.is_some();
            let outcome = match told.take().or_else(|| self.cluster.owner(slot)) {
                Some(node) => node.ask(lane, command.clone(), asking).await,
                None => Err(Trouble::Moved),
            };
            match outcome {
                Ok(value) => return Some(Ok(value)),
                Err(Trouble::Final(error)) => return Some(Err(error)),
                Err(Trouble::Ask(server)) if !asking => {
                    told = Some(self.cluster.node(&server));
                    continue;
                }
                Err(trouble) => *last = trouble,
            }
            if let Err(trouble) = self.cluster.refresh().await {
                match trouble {
                    Trouble::Final(error) => return Some(Err(error)),
                    trouble => *last = trouble,
                }
            }
            if system::time() + pause >= deadline {
                return None;
            }
            tokio::time::sleep(pause.into()).await;
            pause = Span((pause.0 * 2).min(STORE_PAUSE_LAST.0));
        }
    }

    fn key(&self, bucket: u8, what: &str) -> String {
        format!("{}:{{{}}}:{what}", self.config.prefix, tag(bucket))
    }

    fn key_of(&self, fingerprint: &Fingerprint, what: &str) -> String {
        format!("{}:{fingerprint}", self.key(bucket(fingerprint), what))
    }

    fn announcing(&self, now: Timestamp, set: &VerifiedRecordSet) -> Cmd {
        let (fingerprint, seen) = (set.fingerprint(), Seen::of(set));
        let bucket = bucket(&fingerprint);
        let mut command = cmd("EVALSHA");
        command.arg(ANNOUNCE.get_hash()).arg(7);
        command.arg(self.key_of(&fingerprint, "set")).arg(self.key_of(&fingerprint, "seen"));
        command.arg(self.key(bucket, "index")).arg(self.key(bucket, "due")).arg(self.key(bucket, "revision"));
        command.arg(self.key(bucket, "history")).arg(self.key(bucket, "kept"));
        command.arg(now.0).arg(seen.timestamp.0).arg(set.expires().0);
        command.arg(data_encoding::HEXLOWER.encode(&seen.digest)).arg(set.to_bytes());
        command.arg(fingerprint.as_bytes().as_slice());
        command.arg(set.expires().secs_since(now) + STORE_GRACE_SECS);
        command.arg(seen.forget_at().secs_since(now).max(1));
        command.arg(REPLAY_SECS).arg(now.0 / BATCH_SECS);
        history::add_bounds(&mut command, now);
        command
    }

    fn removing(&self, now: Timestamp, fingerprint: &Fingerprint) -> Cmd {
        let bucket = bucket(fingerprint);
        let mut command = cmd("EVALSHA");
        command.arg(REMOVE.get_hash()).arg(6).arg(self.key_of(fingerprint, "set"));
        command.arg(self.key(bucket, "index")).arg(self.key(bucket, "due")).arg(self.key(bucket, "revision"));
        command.arg(self.key(bucket, "history")).arg(self.key(bucket, "kept"));
        command.arg(now.0).arg(fingerprint.as_bytes().as_slice()).arg(now.0 / BATCH_SECS);
        history::add_bounds(&mut command, now);
        command
    }

    /// Up to `limit` fingerprints whose sets' time is over.
    async fn over(&self, now: Timestamp, limit: usize) -> Result<Vec<Fingerprint>, RedisError> {
        let due = |bucket| {
            let mut command = cmd("ZRANGEBYSCORE");
            command.arg(self.key(bucket, "due")).arg("-inf").arg(now.0);
            command.arg("LIMIT").arg(0).arg(limit).take()
        };
        let found = self.ask_all(Lane::Read, due).await?;
        let members = found.into_iter().flat_map(members);
        Ok(members.take(limit).collect())
    }

    async fn fetch(&self, fingerprint: &Fingerprint) -> Result<Vec<u8>, StoreError> {
        let mut command = cmd("GETRANGE");
        command.arg(self.key_of(fingerprint, "set")).arg(0).arg(MAX_SET_BYTES);
        match self.ask(bucket(fingerprint), Lane::Read, command).await? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(self.strange("GETRANGE")),
        }
    }

    /// Up to `limit` fingerprints behind `after`, in the order of their bytes.
    async fn behind(&self, after: Option<Fingerprint>, limit: usize) -> Result<Vec<Fingerprint>, RedisError> {
        let mut found = Vec::new();
        let (mut next, mut at_once) = (after.as_ref().map_or(0, |after| usize::from(bucket(after))), 1);
        while next < BUCKETS && found.len() < limit {
            let buckets = (next..BUCKETS.min(next + at_once)).filter_map(|bucket| u8::try_from(bucket).ok());
            let missing = limit - found.len();
            let parts = try_join_all(buckets.map(|bucket| self.part_behind(bucket, after, missing))).await?;
            found.extend(parts.into_iter().flat_map(members));
            next += at_once;
            // Where a bucket has little, many are asked at once.
            at_once = (at_once * 2).min(64);
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn part_behind(
        &self,
        part: u8,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> Result<Value, RedisError> {
        let from = match after.filter(|after| bucket(after) == part) {
            Some(after) => [b"(", after.as_bytes().as_slice()].concat(),
            None => b"-".to_vec(),
        };
        let mut command = cmd("ZRANGEBYLEX");
        command.arg(self.key(part, "index")).arg(from).arg("+").arg("LIMIT").arg(0).arg(limit);
        self.ask(part, Lane::Read, command).await
    }

    /// The answers to a command about the keys of each hash tag, in the order of the tags.
    async fn ask_all(&self, lane: Lane, command: impl Fn(u8) -> Cmd) -> Result<Vec<Value>, RedisError> {
        try_join_all((0..=u8::MAX).map(|bucket| self.ask(bucket, lane, command(bucket)))).await
    }

    async fn read_revision(&self) -> Result<Revision, RedisError> {
        let row = |bucket| cmd("GETRANGE").arg(self.key(bucket, "revision")).arg(0).arg(95).take();
        let parts = self.ask_all(Lane::Read, row).await?;
        Ok(parts.iter().map(revision_of).reduce(Revision::join).unwrap_or_default())
    }

    fn strange(&self, question: &'static str) -> StoreError {
        RedisError::Strange { server: self.config.to_string(), question }.into()
    }
}

impl Store for RedisStore {
    fn announce(&self, now: Timestamp, set: VerifiedRecordSet) -> BoxFuture<'_, Result<Stored, StoreError>> {
        let command = self.announcing(now, &set);
        Box::pin(async move {
            match self.ask(bucket(&set.fingerprint()), Lane::Write, command).await? {
                Value::Int(0) => Ok(Stored::NotNewer),
                Value::Int(1) => Ok(Stored::Created),
                Value::Int(2) => Ok(Stored::Replaced),
                Value::Int(3) => Ok(Stored::Repeated),
                _ => Err(self.strange("an announce")),
            }
        })
    }

    fn lookup<'a>(
        &'a self,
        now: Timestamp,
        fingerprint: &'a Fingerprint,
    ) -> BoxFuture<'a, Result<Option<VerifiedRecordSet>, StoreError>> {
        Box::pin(async move {
            let bytes = self.fetch(fingerprint).await?;
            read(&self.recent, now, fingerprint, &bytes)
        })
    }

    fn held(
        &self,
        now: Timestamp,
        fingerprint: Fingerprint,
    ) -> BoxFuture<'_, Result<Option<Held>, StoreError>> {
        Box::pin(async move {
            let bytes = self.fetch(&fingerprint).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            Held::stored(now, &fingerprint, bytes)
        })
    }

    fn expire(&self, now: Timestamp, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move {
            let over = self.over(now, limit).await?;
            let removing = over.iter().map(|fingerprint| {
                let command = self.removing(now, fingerprint);
                self.ask(bucket(fingerprint), Lane::Write, command)
            });
            let removed = try_join_all(removing).await?;
            Ok(removed.iter().filter(|removed| **removed == Value::Int(1)).count())
        })
    }

    fn page(
        &self,
        number: u64,
        after: Option<Fingerprint>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.read_page(number, after, limit.max(1)))
    }

    fn changed(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Option<Vec<Fingerprint>>, StoreError>> {
        Box::pin(self.read_changed(from, to))
    }

    fn differences(
        &self,
        from: u64,
        to: u64,
        of: Vec<Fingerprint>,
    ) -> BoxFuture<'_, Result<Option<Vec<Difference>>, StoreError>> {
        Box::pin(self.read_differences(from, to, of))
    }

    fn cut(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write_cut(number))
    }

    fn reshape(&self, now: Timestamp, shape: Shape) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.write_shape(now, shape))
    }

    fn shape(&self) -> BoxFuture<'_, Result<Option<Shape>, StoreError>> {
        Box::pin(self.read_shape())
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move { Ok(self.read_revision().await?) })
    }

    fn seal(&self, number: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let seal = |bucket| {
                let mut command = cmd("EVALSHA");
                command.arg(SEAL.get_hash()).arg(1).arg(self.key(bucket, "revision")).arg(number).take()
            };
            let sealed = self.ask_all(Lane::Write, seal).await?;
            if sealed.iter().all(|answer| *answer == Value::Int(1)) {
                Ok(())
            } else {
                Err(self.strange("a seal"))
            }
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<Option<u64>, StoreError>> {
        Box::pin(async move {
            // The server has counted; nothing is scanned.
            let counts =
                self.ask_all(Lane::Read, |bucket| cmd("ZCARD").arg(self.key(bucket, "index")).take()).await?;
            let count = |count: &Value| match count {
                Value::Int(count) => u64::try_from(*count).ok(),
                _ => None,
            };
            Ok(counts.iter().map(count).sum())
        })
    }
}

/// The set in `bytes`, which came from the store and is not trusted; nothing is there where they are empty.
fn read(
    recent: &Recent,
    now: Timestamp,
    fingerprint: &Fingerprint,
    bytes: &[u8],
) -> Result<Option<VerifiedRecordSet>, StoreError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let set = match recent.get(fingerprint).filter(|set| is_written(set, bytes)) {
        // These very bytes were verified before.
        Some(set) => set,
        None => {
            let set = stored(fingerprint, bytes)?;
            recent.put(&set);
            set
        }
    };
    Ok(Some(set).filter(|set| set.is_valid_at(now)))
}

/// What cannot be read can only be damage; the next change puts a number there.
fn revision_of(value: &Value) -> Revision {
    let Value::BulkString(bytes) = value else { return Revision::default() };
    let read = |text: &str| {
        let mut numbers = text.split(' ').map(|number| number.parse().ok());
        let (newest, before) = (numbers.next()??, numbers.next()??);
        // Once there was no third number.
        let sealed = numbers.next().flatten().unwrap_or(0);
        Some(Revision { newest, before, sealed })
    };
    std::str::from_utf8(bytes).ok().and_then(read).unwrap_or_default()
}

fn bucket(fingerprint: &Fingerprint) -> u8 {
    fingerprint.as_bytes()[0]
}

fn tag(bucket: u8) -> String {
    format!("{bucket:02x}")
}

/// What is made of an answer in any of the places where answers come, for fuzzing: the slots of servers that were
/// learned from it, and the fingerprints. `None` for what is no answer.
pub(crate) fn interpreted(bytes: &[u8]) -> Option<(Vec<cluster::Told>, Vec<Fingerprint>)> {
    let asked = RedisServer::new("asked.example", 7000)?;
    let answer = redis::parse_redis_value(bytes).ok()?;
    if let Value::ServerError(error) = &answer {
        let _ = Trouble::answer(&asked, error);
    }
    let _ = (revision_of(&answer), link::second_text(&answer));
    history::interpret(&answer);
    Some((cluster::told_slots(&asked, &answer), members(answer)))
}

/// The fingerprints in an answer; what is none is left out.
fn members(answer: Value) -> Vec<Fingerprint> {
    let Value::Array(members) = answer else { return Vec::new() };
    let bytes = members.into_iter().filter_map(|member| match member {
        Value::BulkString(bytes) => <[u8; 32]>::try_from(bytes).ok(),
        _ => None,
    });
    bytes.map(Fingerprint::from_bytes).collect()
}

/// Whether `bytes` are the binary form of `set`.
fn is_written(set: &VerifiedRecordSet, bytes: &[u8]) -> bool {
    let rest = bytes.strip_prefix(set.signed_bytes());
    rest.is_some_and(|rest| rest == set.signature().as_slice())
}
