//! Which server has which keys.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use kith_sansio::{Time, system};
use redis::{Value, cmd};
use tokio::sync::Mutex;

use super::error::Trouble;
use super::link::Link;
use super::node::Node;
use super::{RedisConfig, RedisServer};
use crate::defaults::STORE_REFRESH;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;
/// Servers of one cluster that are remembered.
const MAX_SERVERS: usize = 4096;
/// Servers with the same slots that are looked at.
const MAX_COPIES: usize = 64;

/// The servers, and who has what.
pub(super) struct Cluster {
    config: Arc<RedisConfig>,
    map: RwLock<Arc<Map>>,
    refreshed: Mutex<Option<Time>>,
}

#[derive(Default)]
struct Map {
    owners: Vec<(Range, Arc<Node>)>,
    nodes: HashMap<RedisServer, Arc<Node>>,
    /// All servers that were told of, replicas too; they know where the masters are.
    known: Vec<RedisServer>,
}

/// What a server says of the slots.
#[derive(Debug, PartialEq, Eq)]
struct Shard {
    slots: Range,
    /// The master first.
    servers: Vec<RedisServer>,
}

/// First and last slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range(u16, u16);

impl Cluster {
    /// Nothing is asked yet. A single server has everything.
    pub(super) fn new(config: Arc<RedisConfig>) -> Cluster {
        let mut map = Map { known: config.servers.clone(), ..Map::default() };
        if let (false, Some(server)) = (config.cluster, config.servers.first()) {
            let node = Node::start(&config, server.clone());
            map.owners.push((Range(0, SLOTS - 1), node));
        }
        Cluster { config, map: RwLock::new(Arc::new(map)), refreshed: Mutex::default() }
    }

    /// Who has the keys of a slot, as far as is known.
    pub(super) fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let map = self.map();
        let found = map.owners.iter().find(|(range, _)| range.0 <= slot && slot <= range.1);
        found.map(|(_, node)| Arc::clone(node))
    }

    /// All masters.
    pub(super) fn masters(&self) -> Vec<Arc<Node>> {
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for (_, node) in &self.map().owners {
            if !masters.iter().any(|known| Arc::ptr_eq(known, node)) {
                masters.push(Arc::clone(node));
            }
        }
        masters
    }

    /// A server by its name, known or not.
    pub(super) fn node(&self, server: &RedisServer) -> Arc<Node> {
        match self.map().nodes.get(server) {
            Some(node) => Arc::clone(node),
            None => Node::start(&self.config, server.clone()),
        }
    }

    /// Asks the servers who has what, unless that was done a moment ago.
    pub(super) async fn refresh(&self) -> Result<(), Trouble> {
        if !self.config.cluster {
            return Ok(());
        }
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_some_and(|at| system::time() < at + STORE_REFRESH) {
            return Ok(());
        }
        let mut last = Trouble::Again("no server is known".to_owned());
        let mut servers = self.map().known.clone();
        servers.extend(
            self.config.servers.iter().filter(|seed| !servers.contains(seed)).cloned().collect::<Vec<_>>(),
        );
        for server in servers {
            match self.ask(&server).await {
                Ok(shards) => {
                    self.learn(server, shards);
                    *refreshed = Some(system::time());
                    return Ok(());
                }
                // Reachable servers come first the next time.
                Err(trouble) => {
                    last = trouble;
                    self.put_last(&server);
                }
            }
        }
        *refreshed = Some(system::time());
        Err(last)
    }

    async fn ask(&self, server: &RedisServer) -> Result<Vec<Shard>, Trouble> {
        let mut link = Link::open(&self.config, server).await?;
        let answer = link.ask(cmd("CLUSTER").arg("SLOTS").take()).await?;
        let shards = shards(server, &answer);
        match shards.is_empty() {
            true => Err(Trouble::Again(format!("{server} knows no slots of its cluster"))),
            false => Ok(shards),
        }
    }

    fn learn(&self, from: RedisServer, shards: Vec<Shard>) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Map::default();
        for Shard { slots, servers } in shards {
            if let Some(master) = servers
                .first()
                .filter(|master| next.nodes.len() < MAX_SERVERS || next.nodes.contains_key(*master))
            {
                let old = next.nodes.get(master).or_else(|| map.nodes.get(master)).cloned();
                let node = old.unwrap_or_else(|| Node::start(&self.config, master.clone()));
                next.nodes.insert(master.clone(), Arc::clone(&node));
                next.owners.push((slots, node));
            }
            for server in servers {
                if !next.known.contains(&server) && next.known.len() < MAX_SERVERS {
                    next.known.push(server);
                }
            }
        }
        // Whoever answered is asked last the next time: it may have lost its cluster without knowing.
        next.known.retain(|server| *server != from);
        next.known.push(from);
        *map = Arc::new(next);
    }

    fn put_last(&self, server: &RedisServer) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<_> = map.known.iter().filter(|known| *known != server).cloned().collect();
        known.push(server.clone());
        *map = Arc::new(Map { known, owners: map.owners.clone(), nodes: map.nodes.clone() });
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads an answer of CLUSTER SLOTS; what cannot be read in it is left out.
fn shards(asked: &RedisServer, answer: &Value) -> Vec<Shard> {
    let Value::Array(rows) = answer else { return Vec::new() };
    rows.iter().take(SLOTS.into()).filter_map(|row| shard(asked, row)).collect()
}

fn shard(asked: &RedisServer, row: &Value) -> Option<Shard> {
    let Value::Array(row) = row else { return None };
    let [Value::Int(first), Value::Int(last), servers @ ..] = row.as_slice() else { return None };
    let slots = Range(u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    if slots.0 > slots.1 || slots.1 >= SLOTS {
        return None;
    }
    let servers = servers.iter().take(MAX_COPIES);
    let servers: Vec<_> = servers.filter_map(|server| told_server(asked, server)).collect();
    Some(Shard { slots, servers }).filter(|shard| !shard.servers.is_empty())
}

fn told_server(asked: &RedisServer, server: &Value) -> Option<RedisServer> {
    let Value::Array(server) = server else { return None };
    let [host, Value::Int(port), ..] = server.as_slice() else { return None };
    let host = match host {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) => text,
        Value::Nil => "",
        _ => return None,
    };
    let port = u16::try_from(*port).ok()?;
    // A server that does not know its own address is where it was asked (CLUSTER SLOTS).
    let host = if host.is_empty() { &asked.host } else { host };
    RedisServer::new(host, port).filter(|server| server.host != "?")
}

/// First slot, last slot, servers.
pub(crate) type Told = (u16, u16, Vec<RedisServer>);

/// What an answer of CLUSTER SLOTS says.
pub(super) fn told_slots(asked: &RedisServer, answer: &Value) -> Vec<Told> {
    shards(asked, answer).into_iter().map(|shard| (shard.slots.0, shard.slots.1, shard.servers)).collect()
}

/// The slot of a hash tag: CRC-16/XMODEM, modulo the number of slots (Redis cluster specification).
pub(super) fn slot(tag: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in tag {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str, port: u16) -> RedisServer {
        RedisServer { host: host.to_owned(), port }
    }

    fn told(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString("id".into())])
    }

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b""), 0);
        assert_eq!(slot(b"foo"), 12_182);
    }

    #[test]
    fn what_can_be_read_of_the_slots_is_read() {
        let good = Value::Array(vec![Value::Int(0), Value::Int(99), told("", 7000), told("b", 7001)]);
        let odd = [
            Value::Nil,
            Value::Array(vec![Value::Int(0)]),
            Value::Array(vec![Value::Int(9), Value::Int(5), told("a", 1)]),
            Value::Array(vec![Value::Int(0), Value::Int(16_384), told("a", 1)]),
            Value::Array(vec![Value::Int(0), Value::Int(1), told("a", 0), told("?", 7)]),
            Value::Array(vec![Value::Int(-1), Value::Int(1), told("a", 70_000)]),
            Value::Array(vec![Value::Int(0), Value::Int(1), told("a b", 1), told("a\u{1b}[0m", 1)]),
        ];
        let rows = odd.into_iter().chain([good]).collect();
        let asked = server("a", 1);
        let shard = Shard { slots: Range(0, 99), servers: vec![server("a", 7000), server("b", 7001)] };
        assert_eq!(shards(&asked, &Value::Array(rows)), [shard]);
        assert_eq!(shards(&asked, &Value::Okay), []);
    }
}
