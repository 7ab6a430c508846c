//! The issuer of a network, those who ask it, and members who meet: at the desk alone, and over real sockets.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use kith_connect::membership::{
    Answer, CLOCK_SLACK_SECS, Caller, Desk, Enquiry, EnquiryError, MAX_MET, PROTOCOL, Question, Refusal,
    SHOW, hear_question, say_answer, show, take_certificate,
};
use kith_connect::{Admission, ConnectError, Peer};
use kith_identity::membership::pledge::{Kind, Pledge, Slot, VerifiedEvidence};
use kith_identity::membership::{
    Adopted, Block, Epoch, Issuer, Member, Members, MemoryLedger, NodeId, Request, Terms, VerifiedEpoch,
};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::system::{self, OsRng};
use kith_sansio::{SeededRng, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::nodes::{DEADLINE, ECHO, Node, echoes, soon};

const NOW: Timestamp = Timestamp(1_769_860_800);

fn identity(seed: u64) -> Identity {
    Identity::generate(&mut SeededRng::new(seed))
}

fn desk_of(issuer: &Identity, now: Timestamp) -> Desk<MemoryLedger> {
    let issuer = Issuer::new(issuer.clone(), Terms::default(), MemoryLedger::default());
    Desk::open(issuer, now, |_, _, _| [7; 32]).unwrap()
}

fn join(desk: &mut Desk<MemoryLedger>, seed: u64, may_join: bool) -> Answer {
    let (joining, network) = (identity(seed), desk.issuer().network().id());
    let question = Question::Join(Request::sign(&joining, &network));
    let caller = Caller { peer: joining.fingerprint(), from: None, may_join };
    desk.answer(&caller, &question, NOW).unwrap()
}

fn ask(desk: &mut Desk<MemoryLedger>, seed: u64, question: &Question) -> Answer {
    ask_from(desk, seed, None, question, NOW)
}

fn ask_from(
    desk: &mut Desk<MemoryLedger>,
    seed: u64,
    from: Option<IpAddr>,
    question: &Question,
    now: Timestamp,
) -> Answer {
    let caller = Caller { peer: identity(seed).fingerprint(), from, may_join: false };
    desk.answer(&caller, question, now).unwrap()
}

#[test]
fn who_is_invited_joins_and_renews_and_nobody_else_does() {
    let mut desk = desk_of(&identity(9), NOW);
    assert_eq!(join(&mut desk, 1, false), Answer::Refused(Refusal::Uninvited));
    assert_eq!(ask(&mut desk, 1, &Question::Newest), Answer::Refused(Refusal::NoMember));
    let admitted = join(&mut desk, 1, true);
    let Answer::Admitted(member, epoch) = &admitted else { panic!("{admitted:?}") };
    let epoch = epoch.clone().verify(&identity(9).fingerprint()).unwrap();
    // A clock that is behind the issuer's does not keep the member waiting.
    let behind = NOW.minus_secs(CLOCK_SLACK_SECS);
    assert!(member.clone().verify(epoch.network(), behind).is_ok());
    assert_eq!(join(&mut desk, 1, false), admitted, "no invitation is needed for what is there");
    assert!(matches!(ask(&mut desk, 1, &Question::Newest), Answer::Newest(_)));
}

#[test]
fn somebody_elses_request_is_of_no_use() {
    let mut desk = desk_of(&identity(9), NOW);
    let network = desk.issuer().network().id();
    for request in
        [Request::sign(&identity(2), &network), Request::sign(&identity(1), &identity(8).fingerprint())]
    {
        let caller = Caller { peer: identity(1).fingerprint(), from: None, may_join: true };
        let answer = desk.answer(&caller, &Question::Join(request), NOW).unwrap();
        assert_eq!(answer, Answer::Refused(Refusal::Unsound));
    }
}

#[test]
fn ranges_are_those_of_the_newest_epoch_and_hold() {
    let mut desk = desk_of(&identity(9), NOW);
    (1..=20).for_each(|seed| drop(join(&mut desk, seed, true)));
    let first = desk.epoch().clone();
    desk.roll(NOW).unwrap();
    let (epoch, number) = (desk.epoch().clone(), desk.epoch().facts().epoch);
    assert_eq!((first.facts().members, epoch.facts().members, number), (0, 20, 2));
    let Answer::Members(range) = ask(&mut desk, 1, &Question::Members(number, Block::WHOLE)) else {
        panic!()
    };
    assert_eq!(epoch.block(&range).unwrap().len(), 20);
    assert!(first.block(&range).is_err());
    let old = ask(&mut desk, 1, &Question::Members(number - 1, Block::WHOLE));
    assert_eq!(old, Answer::Refused(Refusal::OtherEpoch));
}

/// That the key has said two things about one slot.
fn evidence(signer: &Identity, network: Fingerprint) -> VerifiedEvidence {
    let slot = Slot::numbered(Kind::from_bytes(*b"test            ").unwrap(), network, 1);
    let pledges = [&b"one"[..], b"other"].map(|said| Pledge::new(slot, said));
    let [one, other] = pledges.map(|pledge| (pledge, pledge.sign(signer)));
    VerifiedEvidence::of(&signer.public(), (&one.0, &one.1), (&other.0, &other.1)).unwrap()
}

#[test]
fn evidence_revokes_and_who_is_revoked_gets_nothing_any_more() {
    let mut desk = desk_of(&identity(9), NOW);
    (1..=2).for_each(|seed| drop(join(&mut desk, seed, true)));
    let broken = |network| evidence(&identity(1), network);
    let network = desk.issuer().network().id();
    let elsewhere = Question::Accuse(broken(identity(8).fingerprint()).as_evidence().clone());
    assert_eq!(ask(&mut desk, 2, &elsewhere), Answer::Refused(Refusal::Unsound));
    let accusation = Question::Accuse(broken(network).as_evidence().clone());
    assert_eq!(ask(&mut desk, 2, &accusation), Answer::Taken);
    assert_eq!(join(&mut desk, 1, true), Answer::Refused(Refusal::Revoked));
    assert_eq!(ask(&mut desk, 1, &Question::Newest), Answer::Refused(Refusal::Revoked));
    desk.roll(NOW).unwrap();
    let asked = Question::Revoked(desk.epoch().facts().epoch, Block::WHOLE);
    let Answer::Revoked(range) = ask(&mut desk, 2, &asked) else { panic!() };
    assert_eq!(desk.epoch().revoked(&range).unwrap()[0].0, identity(1).fingerprint());
    assert_eq!(desk.revoked(), 1);
}

#[test]
fn an_epoch_begins_when_the_last_is_over_and_when_the_clock_was_set_back() {
    let mut desk = desk_of(&identity(9), NOW);
    assert!(!desk.is_due(NOW) && !desk.is_due(NOW.plus_secs(3599)));
    assert!(desk.is_due(NOW.plus_secs(3600)) && desk.is_due(NOW.minus_secs(1)));
    desk.roll(NOW.minus_secs(1)).unwrap();
    assert_eq!(desk.epoch().facts().epoch, 2);
    assert!(!desk.is_due(NOW));
}

/// Whom the desk names to whoever asks.
fn met(answer: &Answer) -> Vec<(Fingerprint, String)> {
    let Answer::Met(members) = answer else { panic!("{answer:?}") };
    members.iter().map(|(member, at)| (member.claimed(), at.to_string())).collect()
}

#[test]
fn members_learn_from_their_issuer_where_others_are_called() {
    let mut desk = desk_of(&identity(9), NOW);
    assert_eq!(ask(&mut desk, 1, &Question::Meet(1)), Answer::Refused(Refusal::NoMember));
    for seed in 1..=4 {
        join(&mut desk, seed, true);
    }
    let name = |seed| identity(seed).fingerprint();
    let from = |last| Some(IpAddr::from([192, 0, 2, last]));
    let mut say = |seed, from, port, now| met(&ask_from(&mut desk, seed, from, &Question::Meet(port), now));
    assert_eq!(say(1, from(1), 71, NOW), []);
    assert_eq!(say(2, from(2), 72, NOW), [(name(1), "192.0.2.1:71".to_owned())]);
    // Whoever comes through a relay, or cannot be called, is told and not told of.
    let both = [(name(2), "192.0.2.2:72".to_owned()), (name(1), "192.0.2.1:71".to_owned())];
    assert_eq!(say(3, None, 73, NOW), both);
    assert_eq!(say(3, from(3), 0, NOW), both);
    // The newest word counts, and goes first.
    assert_eq!(say(1, Some("::ffff:192.0.2.9".parse().unwrap()), 79, NOW), both[..1]);
    assert_eq!(say(3, None, 0, NOW), [(name(1), "192.0.2.9:79".to_owned()), both[0].clone()]);
    desk.revoke(&name(1), NOW).unwrap();
    assert_eq!(met(&ask(&mut desk, 3, &Question::Meet(0))), both[..1]);
    let later = NOW.plus_secs(2 * u64::from(desk.epoch().facts().seconds) + 1);
    assert_eq!(met(&ask_from(&mut desk, 3, None, &Question::Meet(0), later)), []);
}

#[test]
fn messages_are_read_as_they_were_written_and_no_other_way() {
    let mut desk = desk_of(&identity(9), NOW);
    let (network, admitted) = (desk.issuer().network().id(), join(&mut desk, 1, true));
    desk.roll(NOW).unwrap();
    let block = Block::around(&NodeId::from_bytes([0xff; 32]), 3);
    let questions = [
        Question::Accuse(evidence(&identity(3), network).as_evidence().clone()),
        Question::Join(Request::sign(&identity(1), &network)),
        Question::Newest,
        Question::Members(2, block),
        Question::Revoked(2, block),
        Question::Meet(7117),
    ];
    let mut answers: Vec<_> = questions.iter().map(|question| ask(&mut desk, 1, question)).collect();
    let met = ask_from(&mut desk, 1, Some([127, 0, 0, 1].into()), &Question::Meet(7117), NOW);
    assert_eq!(met, Answer::Met(Vec::new()));
    let Answer::Admitted(other, _) = join(&mut desk, 2, true) else { panic!("admitted") };
    answers.extend([ask(&mut desk, 2, &Question::Meet(0)), met]);
    let v6 = "[2001:db8::1]:7117".parse().unwrap();
    answers.push(Answer::Met(vec![((*other).clone(), v6); MAX_MET]));
    answers.extend([admitted, Answer::Taken, Answer::Refused(Refusal::Trouble)]);
    for question in questions {
        let bytes = question.to_bytes();
        assert_eq!(Question::from_bytes(&bytes[3..]), Ok(question));
        assert!(Question::from_bytes(&[&bytes[3..], &[0]].concat()).is_err());
        assert!(Question::from_bytes(&bytes[3..bytes.len() - 1]).is_err());
    }
    for answer in answers {
        let bytes = answer.to_bytes();
        assert_eq!(Answer::from_bytes(&bytes[3..]), Ok(answer));
        assert!(Answer::from_bytes(&[&bytes[3..], &[0]].concat()).is_err());
        assert!(Answer::from_bytes(&bytes[3..bytes.len() - 1]).is_err());
    }
    assert!(Answer::from_bytes(&[5, 8]).is_err() && Question::from_bytes(&[5]).is_err());
}

/// An issuer that answers whom its book trusts; whom it trusts it invites.
fn issue(node: &Node) -> Arc<Mutex<Desk<MemoryLedger>>> {
    let desk = Arc::new(Mutex::new(desk_of(&node.identity, system::utc())));
    let mut incoming = node.endpoint.listen(PROTOCOL, Admission::Contacts).unwrap();
    let answering = Arc::clone(&desk);
    tokio::spawn(async move {
        while let Some((Peer::Known(peer), mut stream)) = incoming.next().await {
            let desk = Arc::clone(&answering);
            tokio::spawn(async move {
                let from = Some(stream.path().remote.ip());
                let caller = Caller { peer, from, may_join: true };
                while let Ok(question) = hear_question(&mut stream).await {
                    let answer = desk.lock().unwrap().answer(&caller, &question, system::utc()).unwrap();
                    say_answer(&mut stream, &answer).await.unwrap();
                }
            });
        }
    });
    desk
}

/// A node with its certificate and what it knows of the others.
struct Joined {
    node: Node,
    issuer: Fingerprint,
    certificate: Member,
    members: Arc<Mutex<Members>>,
}

impl Joined {
    async fn join(issuer: &Node) -> Joined {
        let node = Node::new().await;
        node.meet(issuer);
        issuer.book.add(&node);
        let mut enquiry = soon(Enquiry::open(&node.endpoint, &issuer.fingerprint())).await.unwrap();
        let (certificate, epoch) = soon(enquiry.join(&node.identity)).await.unwrap();
        let members = Arc::new(Mutex::new(Members::new(epoch, 8)));
        let joined = Joined { node, issuer: issuer.fingerprint(), certificate, members };
        joined.takes_certificates();
        joined.node.echo(Admission::Members);
        joined
    }

    /// Whoever shows a certificate is a member to this node from then on, and gets its own.
    fn takes_certificates(&self) {
        let mut incoming = self.node.endpoint.listen(SHOW, Admission::Anyone).unwrap();
        let (members, own) = (Arc::clone(&self.members), self.certificate.to_bytes());
        let book = Arc::clone(&self.node.book);
        tokio::spawn(async move {
            while let Some((peer, mut stream)) = incoming.next().await {
                let Peer::Known(peer) = peer else { continue };
                let shown = take_certificate(&mut stream).await.unwrap();
                if members.lock().unwrap().show(&peer, shown, system::utc()).is_ok() {
                    book.enrol_peer(peer);
                    stream.write_all(&own).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
        });
    }

    async fn shows(&self, other: &Joined) -> Result<(), EnquiryError> {
        self.node.meet(&other.node);
        let peer = other.node.fingerprint();
        let theirs = soon(show(&self.node.endpoint, &peer, &self.certificate)).await?;
        self.members.lock().unwrap().show(&peer, theirs, system::utc()).unwrap();
        self.node.book.enrol(&other.node);
        Ok(())
    }

    /// Asks for the newest epoch and its revocations, and cuts off whom they name.
    async fn follow(&self, known: &[&Joined]) -> VerifiedEpoch {
        let mut enquiry = soon(Enquiry::open(&self.node.endpoint, &self.issuer)).await.unwrap();
        let epoch = soon(enquiry.newest()).await.unwrap();
        let ranges = soon(enquiry.revocations(&epoch)).await.unwrap();
        let mut members = self.members.lock().unwrap();
        assert_eq!(members.adopt(epoch.clone()), Ok(Adopted::Newest));
        ranges.iter().for_each(|range| members.revoke(range).unwrap());
        for other in known {
            if !members.is_member(&other.node.fingerprint(), system::utc()) {
                self.node.book.expel(&other.node);
            }
        }
        epoch
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_are_nobodys_contacts_meet_and_one_that_is_revoked_is_cut_off_at_the_next_epoch() {
    let issuer = Node::new().await;
    let desk = issue(&issuer);
    let (one, two) = (Joined::join(&issuer).await, Joined::join(&issuer).await);
    one.node.meet(&two.node);
    let peer = two.node.fingerprint();
    let early = soon(one.node.endpoint.connect(&peer, &ECHO)).await;
    assert!(matches!(early, Err(ConnectError::Refused { .. })), "{early:?}");
    one.shows(&two).await.unwrap();
    let stream = soon(one.node.endpoint.connect(&peer, &ECHO)).await.unwrap();
    echoes(stream, b"by certificate alone").await;
    // And the other way, without a word more.
    two.node.meet(&one.node);
    let stream = soon(two.node.endpoint.connect(&one.node.fingerprint(), &ECHO)).await.unwrap();
    echoes(stream, b"for both").await;

    let mut open = soon(one.node.endpoint.connect(&peer, &ECHO)).await.unwrap();
    desk.lock().unwrap().revoke(&one.node.fingerprint(), system::utc()).unwrap();
    desk.lock().unwrap().roll(system::utc()).unwrap();
    let epoch = two.follow(&[&one]).await;
    assert_eq!((epoch.facts().epoch, epoch.facts().members), (2, 1));
    let end = tokio::time::timeout(DEADLINE, open.read_u8()).await.unwrap();
    assert!(end.is_err(), "{end:?}");
    let late = soon(one.node.endpoint.connect(&peer, &ECHO)).await;
    assert!(matches!(late, Err(ConnectError::Refused { .. })), "{late:?}");
    assert!(one.shows(&two).await.is_err(), "the certificate is of no use any more");
    let mut enquiry = soon(Enquiry::open(&one.node.endpoint, &one.issuer)).await.unwrap();
    let refused = soon(enquiry.newest()).await;
    assert!(matches!(refused, Err(EnquiryError::Refused(Refusal::Revoked))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_member_opened_ends_when_it_hears_that_the_other_one_is_revoked() {
    let issuer = Node::new().await;
    let desk = issue(&issuer);
    let (one, two) = (Joined::join(&issuer).await, Joined::join(&issuer).await);
    one.shows(&two).await.unwrap();
    let mut open = soon(one.node.endpoint.connect(&two.node.fingerprint(), &ECHO)).await.unwrap();
    desk.lock().unwrap().revoke(&two.node.fingerprint(), system::utc()).unwrap();
    desk.lock().unwrap().roll(system::utc()).unwrap();
    // The revoked one asks nobody, and serves on.
    one.follow(&[&two]).await;
    let end = tokio::time::timeout(DEADLINE, open.read_u8()).await.unwrap();
    assert!(end.is_err(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_a_member_brings_to_the_issuer_cuts_the_accused_off_at_the_next_epoch() {
    let issuer = Node::new().await;
    let desk = issue(&issuer);
    let (one, two) = (Joined::join(&issuer).await, Joined::join(&issuer).await);
    one.shows(&two).await.unwrap();
    let mut open = soon(one.node.endpoint.connect(&two.node.fingerprint(), &ECHO)).await.unwrap();
    let mut enquiry = soon(Enquiry::open(&one.node.endpoint, &one.issuer)).await.unwrap();
    let elsewhere = evidence(&two.node.identity, identity(8).fingerprint());
    let refused = soon(enquiry.accuse(&elsewhere)).await;
    assert!(matches!(refused, Err(EnquiryError::Refused(Refusal::Unsound))), "{refused:?}");
    // About somebody who is no member there is nothing to do.
    let refused = soon(enquiry.accuse(&evidence(&identity(8), one.issuer))).await;
    assert!(matches!(refused, Err(EnquiryError::Refused(Refusal::Unsound))), "{refused:?}");
    soon(enquiry.accuse(&evidence(&two.node.identity, one.issuer))).await.unwrap();
    soon(enquiry.accuse(&evidence(&two.node.identity, one.issuer))).await.unwrap();
    desk.lock().unwrap().roll(system::utc()).unwrap();
    let epoch = one.follow(&[&two]).await;
    assert_eq!((epoch.facts().epoch, epoch.facts().members), (2, 1));
    let end = tokio::time::timeout(DEADLINE, open.read_u8()).await.unwrap();
    assert!(end.is_err(), "{end:?}");
}

#[tokio::test]
async fn an_issuer_that_says_what_is_not_its_own_is_not_believed() {
    let (issuer, member) = (Node::new().await, Node::new().await);
    member.meet(&issuer);
    issuer.book.add(&member);
    let foreign = Identity::generate(&mut OsRng);
    let mut incoming = issuer.endpoint.listen(PROTOCOL, Admission::Contacts).unwrap();
    let epoch: Epoch = desk_of(&foreign, system::utc()).epoch().as_epoch().clone();
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            while hear_question(&mut stream).await.is_ok() {
                say_answer(&mut stream, &Answer::Newest(Box::new(epoch.clone()))).await.unwrap();
            }
        }
    });
    let mut enquiry = soon(Enquiry::open(&member.endpoint, &issuer.fingerprint())).await.unwrap();
    assert!(matches!(soon(enquiry.newest()).await, Err(EnquiryError::Statement(_))));
    let joined = soon(enquiry.join(&member.identity)).await;
    assert!(matches!(joined, Err(EnquiryError::OtherAnswer)), "an epoch is no certificate");
}
