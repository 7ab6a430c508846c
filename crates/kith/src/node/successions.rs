//! The floor of succession: who follows the key of a contact, and telling contacts who follows a key of this home.
//!
//! Statements prove themselves, so anybody may hand them over (`succession/1`): a contact's record set carries them,
//! whoever answers at an old address is asked for one, and a node whose key is new tells its contacts.
//!
//! Wire of `succession/1`, one question to a stream: byte `00` ‖ fingerprint (32 bytes) asks who follows it; the
//! answer is byte `01` ‖ statement, or byte `00`. Byte `01` ‖ statement tells one; the answer is byte `00`, whatever
//! becomes of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use kith_connect::{ConnectError, Protocol, Stream, Via};
use kith_identity::contacts::Contact;
use kith_identity::record::VerifiedRecordSet;
use kith_identity::{Fingerprint, Ni, SUCCESSION_BYTES, Succession, VerifiedSuccession, words};
use kith_sansio::{Timestamp, system};
use kith_store::{Database, StoreError, Table, WriteRows};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Node;
use super::claims::{Claim, Claims, Noted, Stand};
use super::contacts::{Book, on_book, shape};
use crate::api::server::{Answer, Route};
use crate::api::shapes::{self, Decision};
use crate::api::wish::Body;
use crate::failure::{Failure, Result, chain};
use crate::floors::Floor;

const TABLE: Table = Table("successions");
const SUCCESSION: Protocol = Protocol::new("succession/1");
/// First byte of a question for a statement, and of an answer without one.
const ASK: u8 = 0;
/// First byte of a message with a statement.
const TELL: u8 = 1;
/// How long an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) const FLOOR: Floor = Floor {
    name: "succession",
    start: |node| Box::pin(async { start(node) }),
    stop: |_| Box::pin(async {}),
    routes,
    status: |_| None,
    commands: &[],
};

/// A claim's row; the key is old fingerprint ‖ new fingerprint.
#[derive(Serialize, Deserialize)]
struct Row {
    statement: Succession,
    seen: u64,
    stand: Stand,
}

/// Reads the claims of a database; what does not prove itself any more is an error.
pub(super) fn stored(database: &Database) -> Result<Claims> {
    let mut claims = Claims::default();
    let mut broken = false;
    let read = database.read(|tables| {
        tables.scan(TABLE, &[], |key, value| {
            match claim(key, value) {
                Some(claim) => claims.restore(claim),
                None => broken = true,
            }
            ControlFlow::Continue(())
        })
    });
    read.map_err(|error: StoreError| Failure::failed(chain(&error)))?;
    match broken {
        true => Err(Failure::failed("the database cannot be used: a succession in it is damaged")),
        false => Ok(claims),
    }
}

fn claim(key: &[u8], value: &[u8]) -> Option<Claim> {
    let old = Fingerprint::from_bytes(*key.first_chunk()?);
    let row: Row = serde_json::from_slice(value).ok()?;
    let statement = row.statement.verify(&old).ok()?;
    Some(Claim { statement, seen: Timestamp(row.seen), stand: row.stand })
}

/// Writes what differs.
pub(super) fn store(
    tables: &mut WriteRows,
    before: &Claims,
    after: &Claims,
) -> std::result::Result<(), StoreError> {
    for gone in before.iter().filter(|claim| !after.knows(&claim.statement)) {
        tables.remove(TABLE, &key(gone))?;
    }
    for new in after.iter().filter(|claim| !before.iter().any(|other| other == *claim)) {
        let statement = new.statement.as_succession().clone();
        let row = Row { statement, seen: new.seen.0, stand: new.stand };
        tables.put(TABLE, &key(new), &serde_json::to_vec(&row).unwrap_or_default())?;
    }
    Ok(())
}

fn key(claim: &Claim) -> Vec<u8> {
    [*claim.statement.old().as_bytes(), *claim.statement.successor().as_bytes()].concat()
}

impl Book {
    /// Takes in statements that were heard somewhere, without waiting for the disk on this thread.
    pub(crate) async fn hear(self: &Arc<Self>, statements: Vec<VerifiedSuccession>) {
        let news: Vec<_> = statements.into_iter().filter(|one| self.is_news(one)).collect();
        if news.is_empty() {
            return;
        }
        let book = Arc::clone(self);
        let noted = tokio::task::spawn_blocking(move || news.into_iter().try_for_each(|one| book.note(one)));
        match noted.await.map_err(Failure::failed) {
            Ok(Ok(())) => {}
            Ok(Err(failure)) | Err(failure) => tracing::error!(%failure, "a succession cannot be noted"),
        }
    }

    /// Takes in the successions that a record set carries.
    pub(crate) async fn hear_set(self: &Arc<Self>, set: &VerifiedRecordSet) {
        self.hear(set.successions()).await;
    }

    /// The contact's key to which `old` led.
    fn heir(&self, old: &Fingerprint) -> Option<Fingerprint> {
        let contacts = self.contacts();
        self.claims().heir(old, |key| contacts.trusts(key))
    }

    fn is_news(&self, statement: &VerifiedSuccession) -> bool {
        !self.claims().knows(statement) && self.heir(&statement.old()).is_some()
    }

    fn note(&self, statement: VerifiedSuccession) -> Result<()> {
        let (old, new) = (statement.old(), statement.successor());
        let noted = self.change_all(|contacts, claims| {
            Ok(match claims.heir(&old, |key| contacts.trusts(key)) {
                Some(current) => claims.note(&current, statement, system::utc()),
                None => Noted::Known,
            })
        })?;
        match noted {
            Noted::Pending => tracing::info!(%old, %new, "a contact says that it has a new key"),
            // Only who holds a contact's key can bring this about, a few times; and somebody should read it.
            Noted::Second => tracing::warn!(
                %old, %new,
                "a second, different key claims to follow a contact's: one of them may be a thief's"
            ),
            Noted::Known | Noted::Loop | Noted::Full => {
                tracing::debug!(%old, %new, ?noted, "a succession is not taken in");
            }
        }
        Ok(())
    }

    /// The claims to follow this contact's key that wait for the person.
    pub(crate) fn open_successions(&self, contact: &Contact) -> Vec<shapes::Succession> {
        let claims = self.claims();
        claims.open(&contact.ni.fingerprint).into_iter().map(|claim| describe(contact, claim)).collect()
    }

    /// Whether the person must say which of several keys is meant.
    pub(crate) fn is_disputed(&self, contact: &Contact) -> bool {
        self.claims().is_disputed(&contact.ni.fingerprint)
    }

    /// Every claim to follow a contact's key, decided or not.
    pub(crate) fn successions(&self) -> Vec<shapes::Succession> {
        let contacts = self.list();
        let claims = self.claims();
        let of = |contact: &Contact| {
            let all = claims.of(&contact.ni.fingerprint);
            all.into_iter().map(|claim| describe(contact, claim)).collect::<Vec<_>>()
        };
        contacts.iter().flat_map(of).collect()
    }

    /// Decides about the claims to follow a contact's key; the contact as it is afterwards.
    pub(crate) fn decide(&self, name: &str, decision: &Decision) -> Result<Contact> {
        let contact = self.find(name)?;
        let named = decision.ni.as_deref().map(str::parse::<Ni>).transpose();
        let named = named.map_err(|error| Failure::usage(chain(&error)))?.map(|ni| ni.fingerprint);
        let current = contact.ni.fingerprint;
        if !decision.confirm {
            let rejected = self.change_all(|_, claims| Ok(claims.reject(&current, named.as_ref())))?;
            return if rejected == 0 { Err(nothing_open(&contact)) } else { Ok(contact) };
        }
        let moved = self.change_all(|contacts, claims| {
            if contacts.by_fingerprint(&current).is_none() {
                return Err(Failure::not_found(format!("there is no contact '{name}' any more")));
            }
            let chosen = choose(claims, &contact, named.as_ref())?;
            claims.confirm(&current, &chosen);
            let moved = contacts.succeed(&contact.ni.to_string(), chosen.successor());
            moved.map_err(|error| {
                Failure::failed(chain(&error)).hint("remove one of the two with 'kith contact remove NAME'")
            })
        })?;
        self.forget_request(&moved.ni.fingerprint)?;
        Ok(moved)
    }
}

/// The claim that the person means.
fn choose(claims: &Claims, contact: &Contact, named: Option<&Fingerprint>) -> Result<VerifiedSuccession> {
    let current = contact.ni.fingerprint;
    let name = &contact.name;
    if let Some(named) = named {
        let of = claims.of(&current);
        let chosen = of.into_iter().find(|claim| claim.statement.successor() == *named);
        return match chosen {
            Some(claim) if claim.stand == Stand::Confirmed => {
                Err(Failure::usage(format!("{name} followed to {named} already")))
            }
            Some(claim) => Ok(claim.statement.clone()),
            None => Err(Failure::not_found(format!("nobody claims that {named} follows the key of {name}"))
                .hint("see 'kith contact succession list'")),
        };
    }
    let open = claims.open(&current);
    if claims.is_disputed(&current) {
        let keys: Vec<_> = open.iter().map(|claim| claim.statement.successor().to_string()).collect();
        return Err(Failure::not_trusted(format!(
            "different keys claim to follow the key of {name}, one of them may be a thief's; undecided: {}",
            keys.join(", ")
        ))
        .hint(format!(
            "ask {name} by another way which key is theirs, then name it: kith contact succession confirm {name} NI"
        )));
    }
    open.first().map(|claim| claim.statement.clone()).ok_or_else(|| nothing_open(contact))
}

fn nothing_open(contact: &Contact) -> Failure {
    Failure::not_found(format!("no such succession of {}'s key waits for a decision", contact.name))
        .hint("see 'kith contact succession list'")
}

fn describe(contact: &Contact, claim: &Claim) -> shapes::Succession {
    let ni = |key| Ni::new(key, contact.ni.authority.clone()).to_string();
    let new = claim.statement.successor();
    shapes::Succession {
        contact: contact.name.to_string(),
        old: ni(claim.statement.old()),
        new: ni(new),
        words: words(&new).join(" "),
        made: claim.statement.at().to_string(),
        seen: claim.seen.to_string(),
        state: claim.stand,
    }
}

fn routes() -> Vec<Route> {
    vec![("/v1/successions", get(list)), ("/v1/contacts/{name}/succession", post(decide))]
}

async fn list(State(node): State<Arc<Node>>) -> Json<Vec<shapes::Succession>> {
    Json(node.book.successions())
}

async fn decide(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
    Body(decision): Body<Decision>,
) -> Answer<shapes::Contact> {
    on_book(node, move |book| book.decide(&name, &decision).map(|contact| shape(book, &contact)))
        .await
        .map(Json)
}

fn start(node: &Arc<Node>) -> Result<()> {
    node.serve_anyone(SUCCESSION, |node, stream| async move {
        let answered = tokio::time::timeout(TIMEOUT, answer(&node, stream)).await;
        if let Ok(Err(error)) = answered {
            tracing::debug!(%error, "an exchange about a succession broke off");
        }
    })?;
    super::old_keys::start(node)
}

async fn answer(node: &Arc<Node>, mut stream: Stream) -> std::io::Result<()> {
    match stream.read_u8().await? {
        ASK => {
            let mut asked = [0; 32];
            stream.read_exact(&mut asked).await?;
            match node.old_keys.statement(&Fingerprint::from_bytes(asked)) {
                Some(statement) => {
                    stream.write_u8(TELL).await?;
                    stream.write_all(&statement.as_succession().to_bytes()).await?;
                }
                None => stream.write_u8(ASK).await?,
            }
            stream.flush().await?;
            stream.shutdown().await
        }
        TELL => {
            let mut statement = [0; SUCCESSION_BYTES];
            stream.read_exact(&mut statement).await?;
            // The answer comes first, so that it says nothing of whom this node knows.
            stream.write_u8(ASK).await?;
            stream.flush().await?;
            stream.shutdown().await?;
            told(node, &statement).await;
            Ok(())
        }
        other => Err(std::io::Error::other(format!("no message about a succession begins with {other}"))),
    }
}

/// Somebody handed over a statement; it counts where it proves itself and concerns a contact.
async fn told(node: &Arc<Node>, bytes: &[u8]) {
    let Ok(statement) = Succession::from_bytes(bytes) else { return };
    let old = statement.claimed_old();
    // Signatures are looked at only where something hangs on them.
    if node.book.heir(&old).is_none() {
        return;
    }
    if let Ok(statement) = statement.verify(&old) {
        node.book.hear(vec![statement]).await;
    }
}

impl Node {
    /// A connection to a contact failed: what this says about keys that follow others is exchanged, then the failure
    /// as a person reads it.
    pub(crate) async fn explain(self: &Arc<Self>, peer: &Fingerprint, error: &ConnectError) -> Failure {
        match error {
            ConnectError::WrongPeer { target, found, address, .. } => {
                let asked = async {
                    let stream =
                        self.endpoint.connect_anonymous(address, found, &SUCCESSION).await.map_err(broken)?;
                    ask(stream, target).await
                };
                match tokio::time::timeout(TIMEOUT, asked).await {
                    Ok(Ok(statement)) => self.book.hear(statement.into_iter().collect()).await,
                    Ok(Err(error)) => tracing::debug!(%error, "who answers was not asked for a succession"),
                    Err(_) => tracing::debug!("who answers did not say whether it follows a key"),
                }
            }
            ConnectError::Refused { .. } => {
                let _heard = self.tell(peer).await;
            }
            _ => {}
        }
        let failure = super::connect::explain(&self.book.name_of(peer), error);
        let contact = self.book.contact_of(peer);
        let open = contact.as_ref().map(|contact| self.book.open_successions(contact)).unwrap_or_default();
        match (open.as_slice(), contact) {
            ([], _) if matches!(error, ConnectError::Refused { .. }) && self.old_keys.is_followed() => failure
                .hint("this home's key is new: they must run 'kith contact succession confirm' first"),
            ([], _) | (_, None) => failure,
            ([one], Some(contact)) if !self.book.is_disputed(&contact) => failure.hint(format!(
                "{name} says that {} follows its key: compare it with them, then 'kith contact succession confirm {name}'",
                one.new,
                name = contact.name
            )),
            (_, Some(contact)) => failure.hint(format!(
                "different keys claim to follow the key of {}: see 'kith contact succession list'",
                contact.name
            )),
        }
    }

    /// Tells a contact who followed the keys that this home had; whether it has heard all of them.
    pub(super) async fn tell(self: &Arc<Self>, peer: &Fingerprint) -> bool {
        for statement in self.old_keys.statements() {
            let telling = async {
                let stream =
                    self.endpoint.connect_fresh(peer, &SUCCESSION, Via::Any).await.map_err(broken)?;
                tell(stream, &statement).await
            };
            match tokio::time::timeout(TIMEOUT, telling).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a contact could not be told of the new key");
                    return false;
                }
                Err(_) => return false,
            }
        }
        true
    }
}

fn broken(error: ConnectError) -> std::io::Error {
    std::io::Error::other(error)
}

async fn tell(mut stream: Stream, statement: &VerifiedSuccession) -> std::io::Result<()> {
    stream.write_u8(TELL).await?;
    stream.write_all(&statement.as_succession().to_bytes()).await?;
    stream.flush().await?;
    stream.read_u8().await?;
    stream.shutdown().await
}

/// Asks who follows `old`; `None` where the peer does not know, or says what proves nothing.
async fn ask(mut stream: Stream, old: &Fingerprint) -> std::io::Result<Option<VerifiedSuccession>> {
    stream.write_u8(ASK).await?;
    stream.write_all(old.as_bytes()).await?;
    stream.flush().await?;
    if stream.read_u8().await? != TELL {
        return Ok(None);
    }
    let mut statement = [0; SUCCESSION_BYTES];
    stream.read_exact(&mut statement).await?;
    Ok(Succession::from_bytes(&statement).and_then(|statement| statement.verify(old)).ok())
}
