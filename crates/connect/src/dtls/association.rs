use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use dimpl::{Dtls, DtlsCertificate};
use kith_identity::Fingerprint;
use kith_identity::tls::{Leaf, leaf_key};
use kith_sansio::{Now, Span, Time, Timestamp, system};

use super::size::Size;
use super::{
    ALIVE, ANSWER, DATAGRAM, FIRST_HELLO, HELLO, LAST_HELLO, MAX_MESSAGE_BYTES, MAX_PACKET_BYTES,
    OVERHEAD_BYTES, PROBE, PROBED, RECORD_BYTES, record, time_of,
};
use crate::defaults;
use crate::protocol::{ADMITTED, MAX_PROTOCOL_BYTES, REFUSED};

/// How many times what came from an address may go there before it is proved.
const MAX_AMPLIFICATION: usize = 3;
/// How long a refusal is repeated for whoever did not hear it.
const LINGER: Span = Span::secs(1);

/// Why an association is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Somebody else is at the other end, and proved it.
    WrongPeer(Fingerprint),
    /// The handshake broke off.
    Broken(String),
    /// The system says that nobody is there.
    Unreachable(String),
    /// The library panicked.
    Flaw,
    /// Nothing was heard for too long.
    Silent(Span),
    /// The peer ended it, or this side.
    Closed,
}

/// What an association wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Send this packet.
    Transmit(Bytes),
    /// The handshake is done and the peer's key proved.
    Reached(Fingerprint),
    /// The peer's hello, at a target; the answer to it, at an initiator.
    Heard(Bytes),
    /// A datagram for the floors above.
    Datagram(Bytes),
    /// Datagrams of so many bytes go through from now on, and no larger ones.
    Size(usize),
    /// It is over, and says nothing more.
    Over(End),
}

/// How far an association has come.
#[derive(Debug)]
enum Stage {
    /// No key is proved yet.
    Handshake,
    /// An initiator that has nothing to say yet, or a target that was told nothing.
    Reached,
    /// An initiator waits for the answer.
    Asking {
        hello: Bytes,
        next: Time,
        wait: Span,
    },
    /// A target was asked and has not decided.
    Asked,
    /// Admitted: datagrams flow.
    Open,
    /// Refused, and said so.
    Refused,
    Over,
}

/// One association with one peer: the handshake, the hello and its answer, and then datagrams.
pub(crate) struct Association {
    dtls: Box<Dtls>,
    /// Whom an initiator wants; a target takes anybody.
    pin: Option<Fingerprint>,
    shown: Option<Fingerprint>,
    stage: Stage,
    /// When it is over without the next stage.
    deadline: Time,
    patience: Span,
    heard: Time,
    spoke: Time,
    library: Time,
    proven: bool,
    /// Bytes that came from an address that nobody has proved yet, and bytes that went there.
    asked: usize,
    answered: usize,
    /// Room for what the library writes, kept once there are keys.
    buffer: Vec<u8>,
    size: Size,
    outputs: VecDeque<Said>,
}

impl Association {
    /// The initiator's side, which wants `target` and nobody else.
    pub(crate) fn connect(
        now: Now,
        config: Arc<dimpl::Config>,
        leaf: &Leaf,
        target: Fingerprint,
        patience: Span,
    ) -> Association {
        let mut association = Association::new(now, config, leaf, Some(target), patience);
        association.dtls.set_active(true);
        association.handle_timeout(now);
        association
    }

    /// The target's side, for whoever comes.
    pub(crate) fn accept(now: Now, config: Arc<dimpl::Config>, leaf: &Leaf, patience: Span) -> Association {
        let mut association = Association::new(now, config, leaf, None, patience);
        association.handle_timeout(now);
        association
    }

    fn new(
        now: Now,
        config: Arc<dimpl::Config>,
        leaf: &Leaf,
        pin: Option<Fingerprint>,
        patience: Span,
    ) -> Association {
        let certificate =
            DtlsCertificate { certificate: leaf.der().to_vec(), private_key: leaf.private_key().to_vec() };
        Association {
            dtls: Box::new(Dtls::new_13(config, certificate, system::instant(now.time))),
            pin,
            shown: None,
            stage: Stage::Handshake,
            deadline: now.time + patience,
            patience,
            heard: now.time,
            spoke: now.time,
            library: now.time,
            proven: false,
            asked: 0,
            answered: 0,
            buffer: Vec::new(),
            size: Size::new(now.time),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in a packet of the peer, or of anybody.
    pub(crate) fn handle_packet(&mut self, now: Now, packet: &[u8]) {
        if self.is_over() || packet.len() > MAX_PACKET_BYTES {
            return;
        }
        // Once there are keys, nothing is said in the clear.
        if !matches!(self.stage, Stage::Handshake) && record::kinds(packet).clear {
            return;
        }
        if !self.proven {
            self.asked = self.asked.saturating_add(packet.len());
        }
        let at = system::instant(now.time);
        self.drive(now, |dtls| {
            dtls.handle_timeout(at)?;
            dtls.handle_packet(packet)
        });
    }

    /// Lets timers fire that are due.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if self.is_over() {
            return;
        }
        let at = system::instant(now.time);
        self.drive(now, |dtls| dtls.handle_timeout(at));
        match &mut self.stage {
            Stage::Open if now.time >= self.heard + defaults::IDLE_TIMEOUT => {
                self.end(End::Silent(defaults::IDLE_TIMEOUT));
            }
            Stage::Open => {
                self.try_sizes(now);
                if now.time >= self.spoke + defaults::KEEP_ALIVE {
                    self.whisper(now, &[ALIVE]);
                }
            }
            Stage::Refused if now.time >= self.deadline => self.close(now),
            Stage::Refused | Stage::Over => {}
            _ if now.time >= self.deadline => self.end(End::Silent(self.patience)),
            Stage::Asking { hello, next, wait } if now.time >= *next => {
                *wait = wait.times(2).min(LAST_HELLO);
                *next = now.time + *wait;
                let hello = hello.clone();
                self.whisper(now, &hello);
            }
            _ => {}
        }
    }

    /// An initiator names the protocol.
    pub(crate) fn ask(&mut self, now: Now, hello: &[u8]) {
        if matches!(self.stage, Stage::Reached) && self.pin.is_some() {
            let hello = Bytes::from([&[HELLO], hello].concat());
            self.whisper(now, &hello);
            self.deadline = now.time + self.patience;
            self.stage = Stage::Asking { hello, next: now.time + FIRST_HELLO, wait: FIRST_HELLO };
        }
    }

    /// A target says whether the initiator is admitted.
    pub(crate) fn answer(&mut self, now: Now, is_admitted: bool) {
        if matches!(self.stage, Stage::Asked) {
            self.stage = if is_admitted { Stage::Open } else { Stage::Refused };
            (self.heard, self.deadline) = (now.time, now.time + LINGER);
            self.repeat_answer(now);
            if is_admitted {
                self.open(now);
            }
        }
    }

    /// Sends a datagram; `false` where it is too large, or none can be sent.
    pub(crate) fn send(&mut self, now: Now, datagram: &[u8]) -> bool {
        let is_possible = matches!(self.stage, Stage::Open) && datagram.len() <= self.most_bytes();
        if is_possible {
            self.whisper(now, &[&[DATAGRAM], datagram].concat());
        }
        is_possible
    }

    /// Ends it and tells the peer; a refusal stays for a moment, for an initiator that did not hear it.
    pub(crate) fn close(&mut self, now: Now) {
        match self.stage {
            Stage::Over => return,
            Stage::Refused if now.time < self.deadline => return,
            Stage::Handshake => {}
            _ => self.drive(now, Dtls::close),
        }
        self.end(End::Closed);
    }

    /// Ends it without a word.
    pub(crate) fn end(&mut self, why: End) {
        if !self.is_over() {
            self.stage = Stage::Over;
            self.outputs.push_back(Said::Over(why));
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Said> {
        self.outputs.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let own = match &self.stage {
            Stage::Over => return None,
            Stage::Open => (self.heard + defaults::IDLE_TIMEOUT)
                .min(self.spoke + defaults::KEEP_ALIVE)
                .min(self.size.due()),
            Stage::Asking { next, .. } => self.deadline.min(*next),
            _ => self.deadline,
        };
        Some(own.min(self.library))
    }

    /// Whether the peer has shown that it gets what is sent to its address.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether no key is proved yet.
    pub(crate) fn is_in_handshake(&self) -> bool {
        matches!(self.stage, Stage::Handshake)
    }

    /// Whether datagrams flow.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// The largest datagram that is sent, in bytes.
    fn most_bytes(&self) -> usize {
        self.size.found() - OVERHEAD_BYTES
    }

    /// Datagrams flow from now on.
    fn open(&mut self, now: Now) {
        self.stage = Stage::Open;
        self.heard = now.time;
        self.size = Size::new(now.time);
        self.try_sizes(now);
    }

    fn try_sizes(&mut self, now: Now) {
        let before = self.most_bytes();
        for size in self.size.probes(now.time) {
            let mut words = vec![0; usize::from(size) - RECORD_BYTES];
            words[0] = PROBE;
            words[1..3].copy_from_slice(&size.to_be_bytes());
            self.whisper(now, &words);
        }
        self.tell_size(before);
    }

    fn tell_size(&mut self, before: usize) {
        if self.most_bytes() != before {
            self.outputs.push_back(Said::Size(self.most_bytes()));
        }
    }

    /// Sends what this layer says.
    fn whisper(&mut self, now: Now, words: &[u8]) {
        self.spoke = now.time;
        self.drive(now, |dtls| dtls.send_application_data(words).map(drop));
    }

    fn repeat_answer(&mut self, now: Now) {
        match self.stage {
            Stage::Open => self.whisper(now, &[ANSWER, ADMITTED]),
            Stage::Refused => self.whisper(now, &[ANSWER, REFUSED]),
            _ => {}
        }
    }

    /// Has the library do something, and takes what comes of it.
    fn drive(&mut self, now: Now, work: impl FnOnce(&mut Dtls) -> Result<(), dimpl::Error>) {
        // A certificate comes out whole or panics; later there is none.
        let most = if self.is_in_handshake() { MAX_MESSAGE_BYTES } else { MAX_PACKET_BYTES };
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < most {
            buffer.resize(most, 0);
        }
        let (dtls, mut events) = (&mut *self.dtls, Vec::new());
        // The library is young: where it should panic over what somebody sent, that costs this association alone.
        let driven = catch_unwind(AssertUnwindSafe(|| {
            let done = work(dtls);
            (done, drain(dtls, &mut buffer, &mut events))
        }));
        for event in events {
            self.take(now, event);
        }
        match driven {
            Ok((done, library)) => {
                self.library = library;
                if let Err(error) = done {
                    self.end(End::Broken(format!("{error:?}")));
                }
            }
            Err(_) => self.end(End::Flaw),
        }
        // What a handshake takes, a stranger does not get to keep.
        if matches!(self.stage, Stage::Open) && buffer.len() <= MAX_PACKET_BYTES {
            self.buffer = buffer;
        }
    }

    fn take(&mut self, now: Now, event: Event) {
        if self.is_over() {
            return;
        }
        match event {
            Event::Packet(packet) => {
                self.proven |= record::kinds(&packet).sealed;
                if self.may_answer(packet.len()) {
                    self.outputs.push_back(Said::Transmit(packet));
                }
            }
            Event::Certificate(certificate) => self.look_at(now.utc, &certificate),
            Event::Connected if self.is_in_handshake() => self.reach(now),
            Event::Connected => {}
            Event::Words(words) => self.listen(now, &words),
            Event::Closed => self.end(End::Closed),
        }
    }

    /// Whether the address may be sent so much: what an initiator calls its own may be somebody else's.
    fn may_answer(&mut self, bytes: usize) -> bool {
        if self.proven || self.pin.is_some() {
            return true;
        }
        let has_room = self.answered + bytes <= self.asked.saturating_mul(MAX_AMPLIFICATION);
        self.answered += if has_room { bytes } else { 0 };
        has_room
    }

    fn look_at(&mut self, now: Timestamp, certificate: &[u8]) {
        match leaf_key(certificate, now) {
            Ok(key) => self.shown = Some(key.fingerprint()),
            Err(error) => self.end(End::Broken(error.to_string())),
        }
    }

    /// The key that was shown is proved. An initiator has not shown its own before: what it sends comes after this.
    fn reach(&mut self, now: Now) {
        match (self.shown, self.pin) {
            (None, _) => self.end(End::Broken("the peer shows no certificate".to_owned())),
            (Some(shown), Some(pin)) if shown != pin => self.end(End::WrongPeer(shown)),
            (Some(shown), _) => {
                self.stage = Stage::Reached;
                self.deadline = now.time + self.patience;
                self.outputs.push_back(Said::Reached(shown));
            }
        }
    }

    /// Hears what the peer says under the keys of the association.
    fn listen(&mut self, now: Now, words: &Bytes) {
        self.heard = now.time;
        let is_target = self.pin.is_none();
        match (words.first(), &self.stage) {
            (Some(&DATAGRAM), Stage::Open) => self.outputs.push_back(Said::Datagram(words.slice(1..))),
            // The answer is late or lost; who is not admitted gets no datagrams.
            (Some(&DATAGRAM), Stage::Asking { .. }) => {
                self.admitted(now);
                self.outputs.push_back(Said::Datagram(words.slice(1..)));
            }
            (Some(&HELLO), Stage::Reached) if is_target && words.len() <= 2 + MAX_PROTOCOL_BYTES => {
                self.stage = Stage::Asked;
                self.outputs.push_back(Said::Heard(words.slice(1..)));
            }
            (Some(&HELLO), Stage::Open | Stage::Refused) if is_target => self.repeat_answer(now),
            (Some(&PROBE), Stage::Open) => {
                let told = words.get(1..3).filter(|told| **told == size_of_packet(words));
                if let Some([high, low]) = told {
                    self.whisper(now, &[PROBED, *high, *low]);
                }
            }
            (Some(&PROBED), Stage::Open) => {
                if let Some([high, low]) = words.get(1..) {
                    let before = self.most_bytes();
                    self.size.heard(now.time, u16::from_be_bytes([*high, *low]));
                    self.tell_size(before);
                }
            }
            (Some(&ANSWER), Stage::Asking { .. }) => match words.get(1..) {
                Some([ADMITTED]) => self.admitted(now),
                Some([REFUSED]) => {
                    self.stage = Stage::Reached;
                    self.outputs.push_back(Said::Heard(Bytes::from_static(&[REFUSED])));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn admitted(&mut self, now: Now) {
        self.outputs.push_back(Said::Heard(Bytes::from_static(&[ADMITTED])));
        self.open(now);
    }
}

/// How large the packet was that these words came in.
fn size_of_packet(words: &[u8]) -> [u8; 2] {
    u16::try_from(words.len() + RECORD_BYTES).unwrap_or(0).to_be_bytes()
}

/// What the library has to say.
enum Event {
    Packet(Bytes),
    Certificate(Bytes),
    Connected,
    Words(Bytes),
    Closed,
}

/// Takes all that the library has to say, and when it wants to be woken.
fn drain(dtls: &mut Dtls, buffer: &mut Vec<u8>, events: &mut Vec<Event>) -> Time {
    loop {
        events.push(match dtls.poll_output(buffer) {
            dimpl::Output::Packet(packet) => Event::Packet(Bytes::copy_from_slice(packet)),
            dimpl::Output::PeerCert(der) => Event::Certificate(Bytes::copy_from_slice(der)),
            dimpl::Output::Connected => Event::Connected,
            dimpl::Output::ApplicationData(words) => Event::Words(Bytes::copy_from_slice(words)),
            dimpl::Output::CloseNotify => Event::Closed,
            dimpl::Output::BufferTooSmall { needed } if needed <= MAX_MESSAGE_BYTES => {
                buffer.resize(needed, 0);
                continue;
            }
            dimpl::Output::Timeout(at) => return time_of(at),
            // Keying material for a media protocol that nobody asked for.
            dimpl::Output::KeyingMaterial(..) => continue,
            _ => return Time(u64::MAX),
        });
    }
}
