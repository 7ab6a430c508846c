use std::collections::HashMap;

use kith_identity::Fingerprint;
use kith_sansio::{Rng, Time};

use super::{Joined, Output, Regard, Session, Side};
use crate::relay::limits::MAX_SESSIONS;
use crate::relay::message::Token;
use crate::relay::quota::{Accounts, Quota};
use crate::relay::request::Carriage;

/// Sessions from the moment that their tokens exist, and what they cost whom.
#[derive(Debug)]
pub(super) struct Sessions {
    accounts: Accounts,
    meetings: HashMap<Session, Meeting>,
    /// Tokens that were not shown yet, with the half that each opens.
    tokens: HashMap<Token, (Session, usize)>,
    sides: HashMap<Side, Session>,
    /// How many of each target's are with strangers.
    with_strangers: HashMap<Fingerprint, u32>,
    /// How many of them each target may have: three quarters of all, so that those whom the relay knows get through.
    most_with_strangers: u32,
    next: u64,
}

#[derive(Debug)]
struct Meeting {
    /// The initiator and the target.
    parties: [Fingerprint; 2],
    carriage: Carriage,
    tokens: [Token; 2],
    sides: [Option<Side>; 2],
    /// The relay knew the initiator when it began.
    is_known: bool,
    is_ending: bool,
}

impl Meeting {
    fn both(&self) -> Option<[Side; 2]> {
        Some([self.sides[0]?, self.sides[1]?])
    }
}

impl Sessions {
    pub(super) fn new(quota: Quota) -> Sessions {
        Sessions {
            accounts: Accounts::new(quota),
            meetings: HashMap::new(),
            tokens: HashMap::new(),
            sides: HashMap::new(),
            with_strangers: HashMap::new(),
            most_with_strangers: quota.sessions - quota.sessions / 4,
            next: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.meetings.len()
    }

    pub(super) fn parties(&self) -> impl Iterator<Item = Fingerprint> {
        self.meetings.values().flat_map(|meeting| meeting.parties)
    }

    /// Whether there may be another session of this initiator, whom the relay knows or not, and this target.
    pub(super) fn has_room(&self, now: Time, parties: [&Fingerprint; 2], is_known: bool) -> bool {
        let with_strangers = self.with_strangers.get(parties[1]).copied().unwrap_or(0);
        self.meetings.len() < MAX_SESSIONS
            && (is_known || with_strangers < self.most_with_strangers)
            && parties.iter().all(|party| self.accounts.has_room(now, party))
    }

    /// A session of the initiator and the target, and a token for each.
    pub(super) fn open(
        &mut self,
        now: Time,
        parties: [Fingerprint; 2],
        (carriage, is_known): (Carriage, bool),
        rng: &mut dyn Rng,
    ) -> (Session, [Token; 2]) {
        let session = Session(self.next);
        self.next += 1;
        let tokens = [Token::generate(rng), Token::generate(rng)];
        for (half, token) in tokens.into_iter().enumerate() {
            self.tokens.insert(token, (session, half));
        }
        parties.iter().for_each(|party| self.accounts.begin(now, party));
        if !is_known {
            *self.with_strangers.entry(parties[1]).or_default() += 1;
        }
        let meeting = Meeting { parties, carriage, tokens, sides: [None; 2], is_known, is_ending: false };
        self.meetings.insert(session, meeting);
        (session, tokens)
    }

    /// What becomes of a side that shows `token`.
    pub(super) fn present(&mut self, token: Token, side: Side, quota: &Quota) -> Output {
        if let Some(meeting) = self.sides.get(&side).and_then(|session| self.meetings.get(session)) {
            // A datagram with a token is sent until it is answered. One socket is one side of one session.
            let half = meeting.sides.iter().position(|one| *one == Some(side));
            return match half {
                Some(half) if meeting.tokens[half] == token => match meeting.both() {
                    Some(_) => Output::Again(side),
                    None => Output::Wait(side),
                },
                _ => Output::Reject(side),
            };
        }
        let Some((session, half)) = self.tokens.remove(&token) else { return Output::Reject(side) };
        let Some(meeting) = self.meetings.get_mut(&session) else { return Output::Reject(side) };
        let fits = match side {
            Side::Stream(_) => meeting.carriage == Carriage::Stream,
            Side::Datagrams(_) => meeting.carriage == Carriage::Datagrams,
        };
        if !fits {
            return Output::Reject(side);
        }
        meeting.sides[half] = Some(side);
        self.sides.insert(side, session);
        match meeting.both() {
            None => Output::Wait(side),
            Some(sides) => Output::Join(Joined {
                session,
                sides,
                payer: meeting.parties[1],
                bytes_per_second: quota.bytes_per_second,
            }),
        }
    }

    /// The time of the tokens is over.
    pub(super) fn expire(&mut self, session: Session) -> Option<Output> {
        let meeting = self.meetings.get(&session)?;
        if meeting.both().is_some() {
            return None;
        }
        let left = meeting.sides.iter().flatten().next().copied();
        self.end(session);
        left.map(Output::Reject)
    }

    /// A side that waited has gone.
    pub(super) fn withdraw(&mut self, side: Side) -> Option<Output> {
        let session = *self.sides.get(&side)?;
        // Its token is used up, so the other would wait in vain. Where both were there, the shell ends it.
        let is_joined = self.meetings.get(&session).is_some_and(|meeting| meeting.both().is_some());
        if !is_joined {
            self.end(session);
        }
        None
    }

    /// Counts bytes; the end of the session where a quota is used up.
    pub(super) fn moved(&mut self, now: Time, session: Session, bytes: u64) -> Option<Output> {
        let meeting = self.meetings.get_mut(&session)?;
        let parties = meeting.parties;
        parties.iter().for_each(|party| self.accounts.count(now, party, bytes));
        let is_spent = parties.iter().any(|party| self.accounts.is_spent(now, party));
        (is_spent && !std::mem::replace(&mut meeting.is_ending, true)).then_some(Output::End(session))
    }

    /// Ends the sessions that this node would not serve any more as it did, where it does no more than this for `peer`.
    pub(super) fn regarded(&mut self, peer: &Fingerprint, regard: Regard) -> Vec<Output> {
        let is_over = |meeting: &Meeting| {
            let [initiator, target] = &meeting.parties;
            let loses_place = regard == Regard::Barred || meeting.is_known && regard != Regard::Known;
            target == peer && !regard.is_served() || initiator == peer && loses_place
        };
        let forsaken = self.meetings.iter().filter(|(_, meeting)| is_over(meeting));
        let mut forsaken: Vec<Session> = forsaken.map(|(session, _)| *session).collect();
        forsaken.sort_unstable();
        forsaken.into_iter().filter_map(|session| self.forsake_one(session)).collect()
    }

    fn forsake_one(&mut self, session: Session) -> Option<Output> {
        let meeting = self.meetings.get_mut(&session)?;
        if meeting.both().is_none() {
            return self.expire(session);
        }
        (!std::mem::replace(&mut meeting.is_ending, true)).then_some(Output::End(session))
    }

    /// Forgets a session.
    pub(super) fn end(&mut self, session: Session) {
        let Some(meeting) = self.meetings.remove(&session) else { return };
        for token in &meeting.tokens {
            self.tokens.remove(token);
        }
        for side in meeting.sides.iter().flatten() {
            self.sides.remove(side);
        }
        meeting.parties.iter().for_each(|party| self.accounts.end(party));
        if !meeting.is_known
            && let Some(count) = self.with_strangers.get_mut(&meeting.parties[1])
        {
            *count -= 1;
            if *count == 0 {
                self.with_strangers.remove(&meeting.parties[1]);
            }
        }
    }
}
