use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use kith_sansio::Timestamp;

use super::MAX_PROTOCOLS;
use crate::Protocol;

/// Who may open streams to whom, of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The second may reach the first.
    In,
    /// The first may reach the second.
    Out,
    /// Each may reach the other.
    Both,
}

/// Which side opens a stream, as a node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opener {
    /// The peer opens it here.
    Peer,
    /// This node opens it there.
    Own,
}

/// How long something holds; what is later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Until {
    /// Before this time, not at it.
    Time(Timestamp),
    /// For good.
    Forever,
}

impl Until {
    /// Whether it still holds at `now`.
    pub fn holds(self, now: Timestamp) -> bool {
        match self {
            Until::Time(end) => now < end,
            Until::Forever => true,
        }
    }
}

/// What two nodes may do with each other, as one of them sees it: per protocol, or for every one, the ways in which
/// streams may be opened, and until when. Rights only add up: the later end counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(BTreeMap<Option<Protocol>, Ways>);

/// Until when streams may be opened by the peer, and by this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) incoming: Option<Until>,
    pub(super) outgoing: Option<Until>,
}

impl Rights {
    /// Adds a right: to `protocol`, or to every one.
    pub fn allow(&mut self, protocol: Option<Protocol>, direction: Direction, until: Until) {
        let ways = self.0.entry(protocol).or_default();
        if direction != Direction::Out {
            ways.incoming = ways.incoming.max(Some(until));
        }
        if direction != Direction::In {
            ways.outgoing = ways.outgoing.max(Some(until));
        }
    }

    /// Whether streams of `protocol` may be opened by that side at `now`.
    pub fn permit(&self, opener: Opener, protocol: &Protocol, now: Timestamp) -> bool {
        [None, Some(protocol.clone())].iter().any(|key| {
            let ways = self.0.get(key);
            let until = ways.and_then(|ways| match opener {
                Opener::Peer => ways.incoming,
                Opener::Own => ways.outgoing,
            });
            until.is_some_and(|until| until.holds(now))
        })
    }

    /// Whether anything is allowed at `now`.
    pub fn hold(&self, now: Timestamp) -> bool {
        self.ends().any(|until| until.holds(now))
    }

    /// Whether nothing was ever allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the first of the rights ends that hold at `now`.
    pub fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.ends().filter(|until| until.holds(now)).filter_map(|until| match until {
            Until::Time(end) => Some(end),
            Until::Forever => None,
        });
        ends.min()
    }

    /// Each right with its protocol (`None`: every one), its direction and its end.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&Protocol>, Direction, Until)> {
        self.0.iter().flat_map(|(protocol, ways)| {
            let both = ways.incoming.is_some() && ways.incoming == ways.outgoing;
            let (incoming, outgoing) = (ways.incoming.filter(|_| !both), ways.outgoing.filter(|_| !both));
            let both = ways.incoming.filter(|_| both).map(|until| (Direction::Both, until));
            let incoming = incoming.map(|until| (Direction::In, until));
            let outgoing = outgoing.map(|until| (Direction::Out, until));
            let all = [both, incoming, outgoing].into_iter().flatten();
            all.map(move |(direction, until)| (protocol.as_ref(), direction, until))
        })
    }

    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (Option<&Protocol>, Ways)> {
        self.0.iter().map(|(protocol, ways)| (protocol.as_ref(), *ways))
    }

    /// Takes a row as it came from outside; `false` where there are too many, or the row says nothing.
    pub(super) fn take_row(&mut self, protocol: Option<Protocol>, ways: Ways) -> bool {
        let sound = (ways.incoming.is_some() || ways.outgoing.is_some()) && self.0.len() <= MAX_PROTOCOLS;
        sound && self.0.insert(protocol, ways).is_none()
    }

    fn ends(&self) -> impl Iterator<Item = Until> {
        self.0.values().flat_map(|ways| [ways.incoming, ways.outgoing]).flatten()
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Both => "both",
        })
    }
}

impl FromStr for Direction {
    type Err = super::PolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "in" => Ok(Direction::In),
            "out" => Ok(Direction::Out),
            "both" => Ok(Direction::Both),
            _ => Err(super::PolicyError::Direction(text.chars().take(32).collect())),
        }
    }
}

impl Direction {
    /// The same as the other of the two sees it.
    #[must_use]
    pub fn reversed(self) -> Direction {
        match self {
            Direction::In => Direction::Out,
            Direction::Out => Direction::In,
            Direction::Both => Direction::Both,
        }
    }
}

/// A time as RFC 3339, or `forever`.
impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Until::Time(end) => end.fmt(f),
            Until::Forever => f.write_str("forever"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Protocol = Protocol::new("ping/1");
    const SEND: Protocol = Protocol::new("send/1");

    #[test]
    fn rights_have_a_way_a_protocol_and_an_end() {
        let mut rights = Rights::default();
        rights.allow(Some(PING), Direction::In, Until::Time(Timestamp(10)));
        let permits =
            |rights: &Rights, opener, protocol, now| rights.permit(opener, &protocol, Timestamp(now));
        assert!(permits(&rights, Opener::Peer, PING, 9));
        assert!(!permits(&rights, Opener::Peer, PING, 10), "it has ended");
        assert!(!permits(&rights, Opener::Own, PING, 9), "the other way");
        assert!(!permits(&rights, Opener::Peer, SEND, 9), "another protocol");
        rights.allow(None, Direction::Both, Until::Forever);
        assert!(permits(&rights, Opener::Own, SEND, 99));
    }

    #[test]
    fn rights_add_up_and_the_later_end_counts() {
        let mut rights = Rights::default();
        rights.allow(None, Direction::Both, Until::Time(Timestamp(10)));
        rights.allow(None, Direction::In, Until::Time(Timestamp(5)));
        rights.allow(None, Direction::Out, Until::Time(Timestamp(20)));
        assert!(
            rights.permit(Opener::Peer, &PING, Timestamp(9))
                && !rights.permit(Opener::Peer, &PING, Timestamp(10))
        );
        assert!(rights.permit(Opener::Own, &PING, Timestamp(19)));
        assert_eq!(rights.next_end(Timestamp(0)), Some(Timestamp(10)));
        assert_eq!(rights.next_end(Timestamp(10)), Some(Timestamp(20)));
        assert_eq!(rights.iter().count(), 2);
        assert!(rights.hold(Timestamp(19)) && !rights.hold(Timestamp(20)));
    }
}
