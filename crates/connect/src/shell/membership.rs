use std::io;
use std::net::SocketAddr;

use kith_identity::membership::pledge::VerifiedEvidence;
use kith_identity::membership::tree::{Range, TreeError};
use kith_identity::membership::{
    Block, Epoch, MEMBER_BYTES, Member, MemberLeaf, Request, RevokedLeaf, StatementError, VerifiedEpoch,
};
use kith_identity::{Fingerprint, Identity};
use kith_sansio::Span;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::endpoint::Endpoint;
use super::stream::Stream;
use super::within;
use crate::ConnectError;
use crate::membership::{
    Answer, MAX_QUESTIONS, PROTOCOL, Question, Refusal, SHOW, answer_length, question_length,
};

/// How long one message may take, and the answer to it: the largest needs 14 kB/s.
const PATIENCE: Span = Span::secs(30);

/// Why a question to an issuer, or a certificate shown, came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnquiryError {
    /// The peer cannot be reached, or does not let this node in.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke off, or what came is no message.
    #[error("the conversation broke off: {0}")]
    Lost(#[from] io::Error),
    /// The issuer does not do it.
    #[error("the issuer refuses: {0}")]
    Refused(Refusal),
    /// The answer is one to another question: the issuer's fault.
    #[error("the issuer answers something else")]
    OtherAnswer,
    /// A statement in the answer does not hold: the peer's fault.
    #[error("the answer does not hold: {0}")]
    Statement(#[from] StatementError),
    /// A range in the answer does not hold, or is of another block: the issuer's fault.
    #[error("the answer does not hold: {0}")]
    Tree(#[from] TreeError),
}

/// A conversation with the issuer of a network, from the member's side.
pub struct Enquiry {
    stream: Stream,
    issuer: Fingerprint,
}

impl Enquiry {
    /// Opens a conversation with the issuer.
    pub async fn open(endpoint: &Endpoint, issuer: &Fingerprint) -> Result<Enquiry, EnquiryError> {
        Ok(Enquiry { stream: endpoint.connect(issuer, &PROTOCOL).await?, issuer: *issuer })
    }

    /// Asks to become a member, or for a new certificate in time. The certificate is one of this identity; whether it is
    /// valid at the time here is for the caller to say.
    pub async fn join(&mut self, identity: &Identity) -> Result<(Member, VerifiedEpoch), EnquiryError> {
        let request = Request::sign(identity, &self.issuer);
        let Answer::Admitted(member, epoch) = self.ask(&Question::Join(request)).await? else {
            return Err(EnquiryError::OtherAnswer);
        };
        if member.claimed() != identity.fingerprint() {
            return Err(EnquiryError::OtherAnswer);
        }
        Ok((*member, self.verified(*epoch)?))
    }

    /// The newest epoch.
    pub async fn newest(&mut self) -> Result<VerifiedEpoch, EnquiryError> {
        match self.ask(&Question::Newest).await? {
            Answer::Newest(epoch) => Ok(self.verified(*epoch)?),
            _ => Err(EnquiryError::OtherAnswer),
        }
    }

    /// All members of a block, as of `epoch`.
    pub async fn members(
        &mut self,
        epoch: &VerifiedEpoch,
        block: &Block,
    ) -> Result<Range<MemberLeaf>, EnquiryError> {
        match self.ask(&Question::Members(epoch.facts().epoch, *block)).await? {
            Answer::Members(range) if range.block() == block => {
                epoch.block(&range)?;
                Ok(range)
            }
            _ => Err(EnquiryError::OtherAnswer),
        }
    }

    /// All revocations of `epoch`, in as many ranges as they need.
    pub async fn revocations(
        &mut self,
        epoch: &VerifiedEpoch,
    ) -> Result<Vec<Range<RevokedLeaf>>, EnquiryError> {
        let (mut open, mut ranges) = (vec![Block::WHOLE], Vec::new());
        for _ in 0..MAX_QUESTIONS - 1 {
            let Some(block) = open.pop() else { return Ok(ranges) };
            match self.ask(&Question::Revoked(epoch.facts().epoch, block)).await {
                Ok(Answer::Revoked(range)) if *range.block() == block => {
                    epoch.revoked(&range)?;
                    ranges.push(range);
                }
                Err(EnquiryError::Refused(Refusal::TooLarge)) if block.bits() < u8::MAX => {
                    let bits = block.bits() + 1;
                    open.extend([block.last(), block.first()].map(|id| Block::around(&id, bits)));
                }
                Ok(_) => return Err(EnquiryError::OtherAnswer),
                Err(error) => return Err(error),
            }
        }
        if open.is_empty() { Ok(ranges) } else { Err(EnquiryError::OtherAnswer) }
    }

    /// Brings evidence that a member has broken a pledge.
    pub async fn accuse(&mut self, evidence: &VerifiedEvidence) -> Result<(), EnquiryError> {
        match self.ask(&Question::Accuse(evidence.as_evidence().clone())).await? {
            Answer::Taken => Ok(()),
            _ => Err(EnquiryError::OtherAnswer),
        }
    }

    /// Members that may be called over QUIC, and where, as the issuer says; **not verified**. Others are told in the same
    /// way of this node, which is called at this port; 0 where it cannot be.
    pub async fn meet(&mut self, port: u16) -> Result<Vec<(Member, SocketAddr)>, EnquiryError> {
        match self.ask(&Question::Meet(port)).await? {
            Answer::Met(members) => Ok(members),
            _ => Err(EnquiryError::OtherAnswer),
        }
    }

    fn verified(&self, epoch: Epoch) -> Result<VerifiedEpoch, StatementError> {
        epoch.verify(&self.issuer)
    }

    async fn ask(&mut self, question: &Question) -> Result<Answer, EnquiryError> {
        let stream = &mut self.stream;
        let answer = in_time(async {
            stream.write_all(&question.to_bytes()).await?;
            stream.flush().await?;
            let bytes = read(stream, answer_length).await?;
            Answer::from_bytes(&bytes).map_err(invalid)
        });
        match answer.await? {
            Answer::Refused(refusal) => Err(EnquiryError::Refused(refusal)),
            answer => Ok(answer),
        }
    }
}

/// The next question of a member.
pub async fn hear_question(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Question> {
    let bytes = in_time(read(stream, question_length)).await?;
    Question::from_bytes(&bytes).map_err(invalid)
}

/// Answers a member.
pub async fn say_answer(stream: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    in_time(say(stream, &answer.to_bytes())).await
}

/// Shows the own certificate to `peer`, and takes its own. The peer knows this node as a member when this returns; its
/// certificate is **not verified**.
pub async fn show(endpoint: &Endpoint, peer: &Fingerprint, own: &Member) -> Result<Member, EnquiryError> {
    let mut stream = endpoint.connect(peer, &SHOW).await?;
    in_time(say(&mut stream, &own.to_bytes())).await?;
    Ok(take_certificate(&mut stream).await?)
}

/// Takes a certificate that is shown: the first and only thing that a side of `member/1` says. Whoever accepts it answers
/// with its own.
pub async fn take_certificate(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Member> {
    let mut bytes = [0; MEMBER_BYTES];
    in_time(stream.read_exact(&mut bytes)).await?;
    Member::from_bytes(&bytes).map_err(invalid)
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    within(PATIENCE, work).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    length: impl Fn([u8; 3]) -> Result<usize, crate::membership::MessageError>,
) -> io::Result<Vec<u8>> {
    let mut head = [0; 3];
    stream.read_exact(&mut head).await?;
    let mut bytes = vec![0; length(head).map_err(invalid)?];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
