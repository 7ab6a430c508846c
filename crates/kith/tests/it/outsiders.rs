//! Invitations against people who speak `invite/1` themselves: in the middle, in a hurry, or gone half-way.

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use kith_connect::{
    Admission, ChangeSignal, Changes, Config, ConnectError, Discovery, Endpoint, Found, Incoming, Protocol,
    Stream, Trust, Via,
};
use kith_identity::invitation::{
    Binding, EXPORTER_LABEL, Introduction, Invitation, MAX_MESSAGE_BYTES, Message, Role, Terms,
};
use kith_identity::{Address, Fingerprint, Identity, Ni};
use kith_sansio::system::{self, OsRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{DEADLINE, Person, Place, free_port};
use crate::invitations::{contacts, interrupt, invite, join, state};

const INVITE: Protocol = Protocol::new("invite/1");

/// Somebody with a key who trusts nobody, and knows where the inviters of links are.
struct Outsider {
    endpoint: Endpoint,
    map: Arc<Map>,
}

#[derive(Default)]
struct Map(Mutex<Vec<(Fingerprint, Vec<Address>)>>, ChangeSignal);

impl Trust for Map {
    fn trusts(&self, _: &Fingerprint, _: &Protocol) -> bool {
        false
    }

    fn knocked(&self, _: &Fingerprint, _: SocketAddr) {}

    fn changed(&self) -> Changes {
        self.1.changes()
    }
}

impl Discovery for Map {
    fn candidates<'a>(
        &'a self,
        target: Fingerprint,
        found: Found,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let all = self.0.lock().unwrap().clone();
        Box::pin(async move {
            for (_, addresses) in all.into_iter().filter(|(who, _)| *who == target) {
                found.hints(addresses).await;
            }
        })
    }
}

impl Outsider {
    async fn new() -> Outsider {
        let map = Arc::<Map>::default();
        let listen = ["tcp://127.0.0.1:0", "quic://127.0.0.1:0"].map(|one| one.parse().unwrap());
        let config = Config { listen: listen.to_vec(), ..Config::default() };
        let identity = Arc::new(Identity::generate(&mut OsRng));
        let endpoint =
            Endpoint::bind(identity, Arc::clone(&map) as _, Arc::clone(&map) as _, config).await.unwrap();
        Outsider { endpoint, map }
    }

    fn ni(&self) -> Ni {
        Ni::new(self.endpoint.fingerprint(), None)
    }

    /// Opens a stream to whom the link names.
    async fn approach(&self, link: &Invitation, via: Via) -> Result<Stream, ConnectError> {
        self.map.0.lock().unwrap().push((link.inviter().fingerprint, link.addresses()));
        soon(self.endpoint.connect_fresh(&link.inviter().fingerprint, &INVITE, via)).await
    }

    /// Joins as far as the inviter's answer.
    async fn join(&self, link: &Invitation) -> (Stream, Message) {
        let mut stream = self.approach(link, Via::Any).await.unwrap();
        let binding = binding(link, &stream, self.endpoint.fingerprint());
        let proof = link.secret().prove(Role::Joiner, &binding);
        let who = Introduction { name: Some("outsider".parse().unwrap()), ..Introduction::default() };
        say(&mut stream, &Message::Join { ticket: link.ticket(), proof, who }).await;
        let answer = hear(&mut stream).await.unwrap();
        if let Message::Welcome { proof, .. } = &answer {
            assert!(link.secret().is_proved_by(proof, Role::Inviter, &binding));
        }
        (stream, answer)
    }

    fn listen(&self) -> Incoming {
        self.endpoint.listen(INVITE, Admission::Anyone).unwrap()
    }

    /// `link` as this outsider would like it: with its own addresses, and its own fingerprint where `as_itself`.
    fn twist(&self, link: &Invitation, as_itself: bool) -> String {
        let terms = Terms {
            inviter: if as_itself { self.ni() } else { link.inviter() },
            addresses: self.endpoint.local_addresses(),
            expires: link.expires(),
            offers: link.offers(),
        };
        Invitation::with(&terms, link.ticket(), link.secret().clone()).ok().unwrap().link().to_string()
    }
}

fn binding(link: &Invitation, stream: &Stream, joiner: Fingerprint) -> Binding {
    let exported = stream.export(EXPORTER_LABEL).unwrap();
    Binding { ticket: link.ticket(), exported, joiner, inviter: link.inviter().fingerprint }
}

async fn soon<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.expect("an end within the deadline")
}

async fn say(stream: &mut Stream, message: &Message) {
    let bytes = message.to_bytes();
    let frame = [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
    stream.write_all(&frame).await.unwrap();
    stream.flush().await.unwrap();
}

async fn hear(stream: &mut Stream) -> io::Result<Message> {
    let length = soon(stream.read_u16()).await?;
    let mut bytes = vec![0; usize::from(length).min(MAX_MESSAGE_BYTES)];
    soon(stream.read_exact(&mut bytes)).await?;
    Ok(Message::from_bytes(&bytes).unwrap())
}

fn parse(link: &str) -> Invitation {
    link.parse().ok().unwrap()
}

/// A node at a port that stays its own over restarts.
fn settled(place: &Place, name: &str) -> Person {
    let mut person = place.person(name, &["--name", name]);
    let port = free_port();
    let listen =
        format!("name = \"{name}\"\nlisten = [\"quic://127.0.0.1:{port}\", \"tcp://127.0.0.1:{port}\"]\n");
    fs::write(person.home.join("kith.toml"), listen).unwrap();
    person.up_with(&["up"]);
    person
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_takes_the_inviters_place_on_the_network_is_found_out_before_anything_is_said() {
    let place = Place::new();
    let (north, south) = (place.stranger("north"), place.stranger("south"));
    let (id, link) = invite(&north, &[]);
    let middle = Outsider::new().await;
    let mut incoming = middle.listen();
    for via in ["tcp", "quic"] {
        let twisted = middle.twist(&parse(&link), false);
        south.run(&["join", &twisted, "--via", via]).fails(4, "somebody else answers");
    }
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(1), incoming.next()).await;
    assert!(nobody.is_err(), "nothing was said to it");
    assert!(contacts(&south).is_empty());
    // It cost nothing: the invitation is as good as before.
    assert_eq!(state(&north, &id), "open");
    join(&south, &link).ok();
}

/// The man in the middle ends both TLS sessions with a key of his own, the joiner believes that he is the inviter, and
/// he passes on every byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_man_in_the_middle_who_passes_the_proof_on_fails_on_both_sides() {
    for via in [Via::Tcp, Via::Quic] {
        let place = Place::new();
        let (north, south) = (place.stranger("north"), place.stranger("south"));
        let inviting = north.command(&["invite"]);
        let link = inviting.line("kith:");
        let middle = Arc::new(Outsider::new().await);
        let twisted = middle.twist(&parse(&link), true);
        let mut incoming = middle.listen();
        let (relay, target) = (Arc::clone(&middle), parse(&link));
        let relaying = tokio::spawn(async move {
            let (_, mut joiner) = incoming.next().await.unwrap();
            let mut inviter = relay.approach(&target, via).await.unwrap();
            let asked = hear(&mut joiner).await.unwrap();
            say(&mut inviter, &asked).await;
            let answer = hear(&mut inviter).await.unwrap();
            say(&mut joiner, &answer).await;
            joiner.shutdown().await.unwrap();
            // What the joiner does with it is the test's; the stream stays until then.
            let _ = joiner.read_u8().await;
            answer
        });
        join(&south, &twisted).fails(4, "not open");
        assert!(matches!(soon(relaying).await.unwrap(), Message::Refused));
        inviting.finish().fails(4, "wrong secret");
        assert!(contacts(&north).is_empty() && contacts(&south).is_empty());
        join(&south, &link).fails(4, "not open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inviter_who_does_not_know_the_secret_becomes_no_contact() {
    let place = Place::new();
    let (north, south) = (place.stranger("north"), place.stranger("south"));
    let (_, link) = invite(&north, &[]);
    let impostor = Outsider::new().await;
    let mut incoming = impostor.listen();
    let twisted = impostor.twist(&parse(&link), true);
    let answering = tokio::spawn(async move {
        let (_, mut joiner) = incoming.next().await.unwrap();
        let Message::Join { proof, .. } = hear(&mut joiner).await.unwrap() else { panic!("no join") };
        // The joiner's own proof is the only one that it has.
        say(&mut joiner, &Message::Welcome { proof, who: Introduction::default() }).await;
        assert!(hear(&mut joiner).await.is_err(), "the joiner says no more");
    });
    join(&south, &twisted).fails(4, "does not know the secret");
    soon(answering).await.unwrap();
    assert!(contacts(&south).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_lost_before_it_stored_may_come_again_and_nobody_else_also_after_the_node_was_killed() {
    let place = Place::new();
    let mut north = settled(&place, "north");
    let (id, link) = invite(&north, &[]);
    let invitation = parse(&link);
    let (joiner, other) = (Outsider::new().await, Outsider::new().await);
    for killed in [false, true] {
        let (stream, answer) = joiner.join(&invitation).await;
        assert!(matches!(answer, Message::Welcome { .. }));
        drop(stream);
        assert_eq!(state(&north, &id), "joining");
        assert!(matches!(other.join(&invitation).await.1, Message::Refused));
        assert_eq!(contacts(&north), ["outsider"]);
        if killed {
            north.crash();
            north.up_with(&["up"]);
        }
    }
    let (mut stream, _) = joiner.join(&invitation).await;
    say(&mut stream, &Message::Stored).await;
    assert!(matches!(hear(&mut stream).await.unwrap(), Message::Seen));
    assert_eq!(state(&north, &id), "joined");
    assert_eq!(contacts(&north), ["outsider"]);
    // It is over, for the one who joined too.
    for late in [&joiner, &other] {
        assert!(matches!(late.join(&invitation).await.1, Message::Refused));
    }
    assert_eq!(contacts(&north), ["outsider"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_removed_before_all_was_done_does_not_come_back_by_joining_again() {
    let place = Place::new();
    let north = place.stranger("north");
    let (_, link) = invite(&north, &[]);
    let joiner = Outsider::new().await;
    drop(joiner.join(&parse(&link)).await);
    north.run(&["contact", "remove", "outsider"]).ok();
    assert!(matches!(joiner.join(&parse(&link)).await.1, Message::Refused));
    assert!(contacts(&north).is_empty());
}

/// Whoever has the link is a contact once he is answered, also where he keeps silent about it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_an_invitation_back_too_late_is_told_who_joined() {
    let place = Place::new();
    let north = place.stranger("north");
    let thief = Outsider::new().await;
    let (id, link) = invite(&north, &[]);
    drop(thief.join(&parse(&link)).await);
    north.run(&["invite", "cancel", &id]).fails(1, "outsider joined before");
    assert_eq!(state(&north, &id), "joined");
    assert!(matches!(thief.join(&parse(&link)).await.1, Message::Refused));
    north.run(&["contact", "remove", "outsider"]).ok();
    let inviting = north.command(&["invite"]);
    drop(thief.join(&parse(&inviting.line("kith:"))).await);
    interrupt(&inviting);
    inviting.finish().fails(1, "kith contact remove outsider");
    assert_eq!(contacts(&north), ["outsider"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_comes_again_until_the_inviter_has_heard_of_it() {
    let place = Place::new();
    let south = place.stranger("south");
    let inviter = Outsider::new().await;
    let terms = Terms {
        inviter: inviter.ni(),
        addresses: inviter.endpoint.local_addresses(),
        expires: system::utc().plus_secs(600),
        offers: false,
    };
    let invitation = Invitation::new(&terms, &mut OsRng).ok().unwrap();
    let link = invitation.link().to_string();
    let mut incoming = inviter.listen();
    let inviting = tokio::spawn(async move {
        // It dies after each message in turn.
        for messages in 0..4 {
            let (peer, mut stream) = incoming.next().await.unwrap();
            let joiner = *peer.fingerprint().unwrap();
            let Message::Join { proof, .. } = hear(&mut stream).await.unwrap() else { panic!("no join") };
            let binding = binding(&invitation, &stream, joiner);
            assert!(invitation.secret().is_proved_by(&proof, Role::Joiner, &binding));
            if messages == 0 {
                continue;
            }
            let proof = invitation.secret().prove(Role::Inviter, &binding);
            say(&mut stream, &Message::Welcome { proof, who: Introduction::default() }).await;
            if messages > 1 {
                assert!(matches!(hear(&mut stream).await.unwrap(), Message::Stored));
            }
            if messages > 2 {
                say(&mut stream, &Message::Seen).await;
                stream.shutdown().await.unwrap();
                let _ = stream.read_u8().await;
            }
        }
    });
    let joined = join(&south, &link).ok().json();
    soon(inviting).await.unwrap();
    assert_eq!(joined["contact"]["ni"], inviter.ni().to_string());
    assert_eq!(contacts(&south).len(), 1);
}

/// They take all places that their network has, until their time is over.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_say_nothing_or_nonsense_keep_nobody_from_joining() {
    let place = Place::new();
    let (north, south) = (place.stranger("north"), place.stranger("south"));
    let (id, link) = invite(&north, &[]);
    let stranger = Outsider::new().await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(stranger.approach(&parse(&link), Via::Quic).await.unwrap());
    }
    let mut noise = stranger.approach(&parse(&link), Via::Tcp).await.unwrap();
    let _refused_or_not = noise.write_all(&[0xff; 64]).await;
    join(&south, &link).ok();
    assert_eq!(state(&north, &id), "joined");
    assert_eq!(contacts(&north), ["south"]);
}
