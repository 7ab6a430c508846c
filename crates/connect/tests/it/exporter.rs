//! What a stream exports of its TLS session, and bulk over a connection that only the peer could open.

use kith_connect::{Admission, Via};
use kith_identity::Transport;

use crate::nodes::{ECHO, Node, echoes, friends, soon};

const LABEL: &[u8] = b"EXPORTER-kithnet-test";

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_a_stream_export_the_same_and_no_other_session_does() {
    let (one, two) = (Node::new().await, Node::new().await);
    one.meet(&two);
    let mut incoming = two.endpoint.listen(ECHO, Admission::Anyone).unwrap();
    let mut seen = Vec::new();
    for via in [Via::Tcp, Via::Quic, Via::Tcp, Via::Quic] {
        let near = soon(one.endpoint.connect_fresh(&two.fingerprint(), &ECHO, via)).await.unwrap();
        let (_, far) = soon(incoming.next()).await.unwrap();
        let exported = near.export(LABEL).unwrap();
        assert_eq!(exported, far.export(LABEL).unwrap(), "{via:?}");
        assert_ne!(exported, near.export(b"EXPORTER-kithnet-other").unwrap());
        assert!(!seen.contains(&exported), "{via:?}");
        seen.push(exported);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_to_a_peer_that_cannot_be_dialled_takes_the_connection_that_it_opened() {
    let (one, two) = friends().await;
    one.echo(Admission::Contacts);
    let mut opened = soon(one.endpoint.connect_with(&two.fingerprint(), &ECHO, Via::Quic)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut opened, b"x").await.unwrap();
    soon(tokio::io::AsyncReadExt::read_u8(&mut opened)).await.unwrap();
    // Nothing listens there, as with a peer behind a NAT.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for addresses in [vec![], vec![kith_identity::Address::new(Transport::Tcp, nowhere)]] {
        two.believe(&one.fingerprint(), addresses);
        let stream = soon(two.endpoint.connect_with(&one.fingerprint(), &ECHO, Via::Bulk)).await.unwrap();
        assert_eq!(stream.path().transport, Transport::Quic);
        echoes(stream, b"through the door that is open").await;
    }
}
