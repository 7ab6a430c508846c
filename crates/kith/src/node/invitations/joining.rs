//! The joiner's side of `invite/1`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kith_connect::{ConnectError, Stream, Via};
use kith_identity::contacts::{Contact, Petname};
use kith_identity::invitation::{Binding, EXPORTER_LABEL, Introduction, Invitation, Message, Role};
use kith_identity::{Ni, words};
use kith_sansio::{Span, Time, system};

use super::{PROTOCOL, hints_of, introduction, met, wire};
use crate::api::invitations::{Joined, NewJoin};
use crate::failure::{Failure, Result, chain};
use crate::node::contacts::shape;
use crate::node::{Node, connect, push};

/// How long a conversation may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What an attempt gets, however little is left of the time to wait.
const LEAST: Span = Span::secs(10);
/// How long it may go on that the inviter's node, or somebody at its address, does not let this node in: it may be
/// starting, or have no room for strangers, or one address of several may have another owner by now.
const TURNED_AWAY: Span = Span::secs(30);
/// How often, and how long in all, the inviter is told once more that its answer is stored.
const TELLING: u32 = 3;
const TELLING_TIME: Duration = Duration::from_secs(10);
/// Nobody waits longer than a day, in milliseconds.
const MAX_WAIT_MS: u64 = 86_400_000;

/// Joins by an invitation: tries until the inviter answers, or the time to wait is over.
pub(super) async fn join(node: &Arc<Node>, wish: &NewJoin) -> Result<Joined> {
    let invitation: Invitation = wish.link.parse().map_err(|error| {
        Failure::usage(chain(&error)).hint("copy the whole link, from 'kith:' to its last character")
    })?;
    let inviter = invitation.inviter();
    if inviter.fingerprint == node.identity.fingerprint() {
        return Err(Failure::usage("this invitation is of this node itself")
            .hint("give the link to somebody else, who runs 'kith join' with it"));
    }
    let called = wish.called.as_deref().map(|name| free_name(node, name, &inviter)).transpose()?;
    let via = connect::via(wish.via.as_deref())?;
    let _guest = node.guests.expect(inviter.clone(), hints_of(&invitation.addresses()));
    let joining = Joining { node, invitation: &invitation, called, via };
    let wait = Span::millis(wish.wait_ms.min(MAX_WAIT_MS));
    let mut patience = Patience::new(system::time(), wait);
    let mut before = None;
    loop {
        let within = patience.within(system::time());
        let setback = match tokio::time::timeout(within, joining.reach()).await {
            Ok(Ok((stream, who))) => match joining.store(stream, who).await {
                Ok(met) => return Ok(joining.settle(met).await),
                Err(failure) => return Err(failure),
            },
            Ok(Err(setback)) => setback,
            // What was said of the last attempt that went to its end says more.
            Err(_) => Setback::Away(before.take().unwrap_or_else(|| broke_off(&"no answer in time"))),
        };
        let pause = patience.after(system::time(), &setback);
        let (Setback::Final(failure) | Setback::TurnedAway(failure) | Setback::Away(failure)) = setback;
        let Some(pause) = pause else { return Err(failure) };
        before = Some(failure);
        tokio::time::sleep(pause).await;
    }
}

/// Why an attempt came to nothing.
enum Setback {
    /// The invitation itself was refused, or something here is wrong.
    Final(Failure),
    /// Somebody is there and does not let this node in, which says nothing of the invitation.
    TurnedAway(Failure),
    /// Nobody is there, or the connection broke off.
    Away(Failure),
}

/// How long it is tried.
struct Patience {
    give_up: Time,
    pause: Duration,
    /// Since when every attempt was turned away.
    turned_away: Option<Time>,
}

impl Patience {
    fn new(now: Time, wait: Span) -> Patience {
        Patience { give_up: now + wait, pause: Duration::from_millis(100), turned_away: None }
    }

    /// How long the next attempt may take.
    fn within(&self, now: Time) -> Duration {
        (self.give_up - now).max(LEAST).into()
    }

    /// How long to rest before the next attempt; `None` where there is none.
    fn after(&mut self, now: Time, setback: &Setback) -> Option<Duration> {
        let is_over = match setback {
            Setback::Final(_) => true,
            Setback::TurnedAway(_) => now - *self.turned_away.get_or_insert(now) >= TURNED_AWAY,
            Setback::Away(_) => {
                self.turned_away = None;
                false
            }
        };
        let pause = self.pause;
        self.pause = (pause * 2).min(Duration::from_secs(1));
        (!is_over && now < self.give_up).then_some(pause)
    }
}

/// The name, where nobody else has it.
fn free_name(node: &Node, name: &str, inviter: &Ni) -> Result<Petname> {
    let wanted: Petname = name.parse().map_err(|error| Failure::usage(chain(&error)))?;
    match node.book.find(name) {
        Ok(holder) if holder.ni.fingerprint != inviter.fingerprint => {
            Err(Failure::usage(format!("the name '{wanted}' belongs to {}", holder.ni)))
        }
        _ => Ok(wanted),
    }
}

/// One `join` command.
struct Joining<'a> {
    node: &'a Arc<Node>,
    invitation: &'a Invitation,
    called: Option<Petname>,
    via: Via,
}

/// An inviter who is a contact now.
struct Stored {
    contact: Contact,
    is_new: bool,
    /// The inviter knows it.
    is_seen: bool,
}

impl Joining<'_> {
    /// Connects and speaks until the inviter has proved that it knows the secret: what it says of itself, and the
    /// stream on which it waits for the answer.
    async fn reach(&self) -> std::result::Result<(Stream, Introduction), Setback> {
        let target = self.invitation.inviter().fingerprint;
        let connected = self.node.endpoint.connect_fresh(&target, &PROTOCOL, self.via).await;
        let mut stream = connected.map_err(|error| self.explain(&error))?;
        match tokio::time::timeout(TIMEOUT, self.converse(&mut stream)).await {
            Ok(said) => said.map(|who| (stream, who)),
            Err(_) => Err(Setback::Away(broke_off(&"no answer in time"))),
        }
    }

    async fn converse(&self, stream: &mut Stream) -> std::result::Result<Introduction, Setback> {
        let lost = |error: io::Error| Setback::Away(broke_off(&error));
        let binding = Binding {
            ticket: self.invitation.ticket(),
            exported: stream.export(EXPORTER_LABEL).map_err(lost)?,
            joiner: self.node.identity.fingerprint(),
            inviter: self.invitation.inviter().fingerprint,
        };
        let secret = self.invitation.secret();
        let proof = secret.prove(Role::Joiner, &binding);
        let join = Message::Join { ticket: binding.ticket, proof, who: introduction(self.node) };
        wire::write(stream, &join).await.map_err(lost)?;
        let (proof, who) = match wire::read(stream).await.map_err(lost)? {
            Message::Welcome { proof, who } => (proof, who),
            Message::Refused => return Err(Setback::Final(self.refused())),
            _ => {
                return Err(Setback::Away(broke_off(&"the inviter says something else than is its turn")));
            }
        };
        if !secret.is_proved_by(&proof, Role::Inviter, &binding) {
            let failure = Failure::not_trusted("the inviter does not know the secret of this invitation")
                .hint("ask for a new one, by a way that nobody else can change");
            return Err(Setback::Final(failure));
        }
        Ok(who)
    }

    /// Makes the inviter a contact, and says so to it.
    async fn store(&self, mut stream: Stream, who: Introduction) -> Result<Stored> {
        let (contact, is_new) = self.meet(who).await?;
        let telling = async {
            wire::write(&mut stream, &Message::Stored).await?;
            wire::read(&mut stream).await
        };
        let answer = tokio::time::timeout(TIMEOUT, telling).await;
        Ok(Stored { contact, is_new, is_seen: matches!(answer, Ok(Ok(Message::Seen))) })
    }

    /// Joins once more; whether the inviter knows now that it is stored.
    async fn is_seen_now(&self) -> bool {
        match self.reach().await {
            Ok((stream, who)) => self.store(stream, who).await.is_ok_and(|again| again.is_seen),
            Err(_) => false,
        }
    }

    async fn meet(&self, who: Introduction) -> Result<(Contact, bool)> {
        let inviter = self.invitation.inviter();
        let mut found = met(self.node, inviter.fingerprint, &who, self.called.clone());
        found.ni.authority = found.ni.authority.or(inviter.authority);
        // What the link says comes from the person; it goes first.
        let mut hints = hints_of(&self.invitation.addresses());
        hints.extend(found.hints.into_iter().filter(|hint| !hints.contains(hint)).collect::<Vec<_>>());
        found.hints = hints;
        found.is_own_word = false;
        self.node.on_disk(move |node| node.book.meet(found)).await
    }

    /// The inviter is stored, so this has worked. Where the inviter has not heard of it, it is told again; where it
    /// cannot be reached any more, it learns at the end of the invitation.
    async fn settle(&self, stored: Stored) -> Joined {
        let Stored { contact, is_new, is_seen } = stored;
        if !is_seen {
            tell_again(TELLING_TIME, || self.is_seen_now()).await;
        }
        push::greet(self.node, contact.ni.fingerprint);
        Joined {
            words: words(&contact.ni.fingerprint).join(" "),
            contact: shape(&self.node.book, &contact),
            new: is_new,
            offers: self.invitation.offers(),
        }
    }

    fn explain(&self, error: &ConnectError) -> Setback {
        let text = format!("cannot reach the inviter: {}", chain(error));
        match error {
            // The inviter's own refusal, and no time left in which it could take it back.
            ConnectError::Refused { .. } if self.is_expired() => Setback::Final(self.refused()),
            ConnectError::Refused { .. } => Setback::TurnedAway(self.refused()),
            ConnectError::WrongPeer { .. } => Setback::TurnedAway(
                Failure::not_trusted(text)
                    .hint("somebody else answers at the inviter's address: ask for a new invitation"),
            ),
            _ => Setback::Away(
                Failure::unreachable(text).hint("is the inviter's node up, and can it be reached from here?"),
            ),
        }
    }

    fn is_expired(&self) -> bool {
        system::utc() >= self.invitation.expires()
    }

    fn refused(&self) -> Failure {
        let why = if self.is_expired() {
            format!("this invitation expired at {}", self.invitation.expires())
        } else {
            "this invitation is not open: used, expired, cancelled or wrong".to_owned()
        };
        Failure::not_trusted(why).hint("ask for a new one: it is good for one person, once")
    }
}

/// Tries some times, and `time` in all, to have the inviter see that it is stored.
async fn tell_again<A: Future<Output = bool>>(time: Duration, mut attempt: impl FnMut() -> A) {
    let telling = async {
        for _ in 0..TELLING {
            if attempt().await {
                return;
            }
        }
    };
    let _learns_at_the_end = tokio::time::timeout(time, telling).await;
}

fn broke_off(error: &dyn std::fmt::Display) -> Failure {
    Failure::unreachable(format!("the connection to the inviter broke off: {error}"))
        .hint("run the same command again: it goes on where it stopped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned_away() -> Setback {
        Setback::TurnedAway(Failure::not_trusted("no"))
    }

    fn away() -> Setback {
        Setback::Away(Failure::unreachable("nobody"))
    }

    /// When it is given up, where every attempt ends at once and like this.
    fn end(patience: &mut Patience, setback: &Setback) -> Time {
        let mut now = Time(0);
        while let Some(pause) = patience.after(now, setback) {
            now += pause.into();
        }
        now
    }

    #[test]
    fn a_connection_that_is_refused_is_tried_again_for_a_while() {
        let mut long = Patience::new(Time(0), Span::secs(3_600));
        let end_of_long = end(&mut long, &turned_away());
        assert!(end_of_long >= Time(0) + TURNED_AWAY && end_of_long <= Time(0) + Span::secs(32));
        let mut short = Patience::new(Time(0), Span::secs(5));
        let end_of_short = end(&mut short, &turned_away());
        assert!(end_of_short >= Time(0) + Span::secs(5) && end_of_short <= Time(0) + Span::secs(6));
        assert!(Patience::new(Time(0), Span::ZERO).after(Time(0), &turned_away()).is_none());
    }

    #[test]
    fn a_refused_invitation_is_final_and_a_node_that_is_away_is_waited_for() {
        let mut patience = Patience::new(Time(0), Span::secs(3_600));
        assert!(patience.after(Time(0), &Setback::Final(Failure::not_trusted("used"))).is_none());
        // Whoever is away in between may turn away as long again.
        for minute in 0..59 {
            let now = Time(0) + Span::secs(60 * minute);
            let setback = if minute % 2 == 0 { turned_away() } else { away() };
            assert!(patience.after(now, &setback).is_some(), "{minute}");
        }
        assert!(patience.after(Time(0) + Span::secs(3_600), &away()).is_none());
    }

    #[test]
    fn no_attempt_takes_longer_than_what_is_left_of_the_time() {
        let patience = Patience::new(Time(0), Span::secs(60));
        assert_eq!(patience.within(Time(0)), Duration::from_secs(60));
        assert_eq!(patience.within(Time(0) + Span::secs(45)), Duration::from_secs(15));
        assert_eq!(patience.within(Time(0) + Span::secs(59)), Duration::from(LEAST));
    }

    #[tokio::test]
    async fn an_inviter_that_says_nothing_does_not_keep_the_joiner() {
        let told = tell_again(Duration::from_millis(20), std::future::pending);
        tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
        let mut attempts = 0;
        tell_again(Duration::from_secs(60), || {
            attempts += 1;
            std::future::ready(attempts == 2)
        })
        .await;
        assert_eq!(attempts, 2);
    }
}
