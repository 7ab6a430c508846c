//! Protocols for the members of a network, who need be nobody's contacts.

use kith_connect::{Admission, ConnectError, Protocol, Via};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::nodes::{DEADLINE, ECHO, Node, echoes, soon};

const GUARDED: Protocol = Protocol::new("guarded/1");

async fn refused(one: &Node, two: &Node, protocol: &Protocol, via: Via) {
    let answer = soon(one.endpoint.connect_with(&two.fingerprint(), protocol, via)).await;
    assert!(matches!(answer, Err(ConnectError::Refused { .. })), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_admitted_where_members_are_and_nowhere_else() {
    for via in [Via::Tcp, Via::Quic] {
        let (one, two) = (Node::new().await, Node::new().await);
        one.meet(&two);
        two.echo(Admission::Members);
        let _contacts_only = two.endpoint.listen(GUARDED, Admission::Contacts).unwrap();
        refused(&one, &two, &ECHO, via).await;
        // Nobody whom a person would make a contact of for that.
        assert!(two.book.knocks().is_empty());
        two.book.enrol(&one);
        let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        echoes(stream, b"a member").await;
        refused(&one, &two, &GUARDED, via).await;
        assert_eq!(two.book.knocks(), [one.fingerprint()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_is_no_member_is_not_admitted_where_members_are() {
    for via in [Via::Tcp, Via::Quic] {
        let (one, two) = (Node::new().await, Node::new().await);
        one.meet(&two);
        two.book.add(&one);
        two.echo(Admission::Members);
        refused(&one, &two, &ECHO, via).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_revoked_is_cut_off_within_a_second_and_a_contact_is_not() {
    for via in [Via::Tcp, Via::Quic] {
        let (one, two) = (Node::new().await, Node::new().await);
        one.meet(&two);
        two.book.enrol(&one);
        two.book.add(&one);
        let mut members = two.endpoint.listen(ECHO, Admission::Members).unwrap();
        let mut contacts = two.endpoint.listen(GUARDED, Admission::Contacts).unwrap();
        let mut gone = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        let mut stays = soon(one.endpoint.connect_with(&two.fingerprint(), &GUARDED, via)).await.unwrap();
        let (mut here, mut there) =
            (soon(members.next()).await.unwrap().1, soon(contacts.next()).await.unwrap().1);
        two.book.expel(&one);
        let ends = async { tokio::join!(gone.read_u8(), here.read_u8()) };
        let (far, near) = tokio::time::timeout(DEADLINE, ends).await.unwrap();
        assert!(far.is_err() && near.is_err(), "{far:?} {near:?}");
        refused(&one, &two, &ECHO, via).await;
        let (sent, read) = soon(async { tokio::join!(stays.write_u8(7), there.read_u8()) }).await;
        assert!(sent.is_ok());
        assert_eq!(read.unwrap(), 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_to_a_member_ends_when_the_member_is_revoked_at_the_side_that_opened_it() {
    for via in [Via::Tcp, Via::Quic] {
        let (one, two) = (Node::new().await, Node::new().await);
        one.meet(&two);
        one.book.add(&two);
        one.echo(Admission::Members);
        let mut members = two.endpoint.listen(ECHO, Admission::Anyone).unwrap();
        let mut contacts = two.endpoint.listen(GUARDED, Admission::Anyone).unwrap();
        // Not known as a member when it is opened: whether it goes on is the peer's to say.
        let mut early = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        let mut early_there = soon(members.next()).await.unwrap().1;
        one.book.enrol(&two);
        let mut gone = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, via)).await.unwrap();
        let mut gone_there = soon(members.next()).await.unwrap().1;
        let mut stays = soon(one.endpoint.connect_with(&two.fingerprint(), &GUARDED, via)).await.unwrap();
        let mut stays_there = soon(contacts.next()).await.unwrap().1;
        one.book.expel(&two);
        let ends = async { tokio::join!(gone.read_u8(), gone_there.read_u8()) };
        let (near, far) = tokio::time::timeout(DEADLINE, ends).await.unwrap();
        assert!(near.is_err() && far.is_err(), "{near:?} {far:?}");
        for (here, there) in [(&mut early, &mut early_there), (&mut stays, &mut stays_there)] {
            let (sent, read) = soon(async { tokio::join!(here.write_u8(7), there.read_u8()) }).await;
            assert_eq!((sent.is_ok(), read.unwrap()), (true, 7));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_for_members_over_streams_and_for_contacts_over_datagrams_needs_both() {
    let (one, two) = (Node::new().await, Node::new().await);
    one.meet(&two);
    two.echo(Admission::Members);
    let _datagrams = two.endpoint.listen_datagrams(ECHO, Admission::Contacts).unwrap();
    two.book.enrol(&one);
    refused(&one, &two, &ECHO, Via::Quic).await;
    two.book.expel(&one);
    two.book.add(&one);
    refused(&one, &two, &ECHO, Via::Quic).await;
    two.book.enrol(&one);
    let stream = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    echoes(stream, b"both").await;
}
