use kith_sansio::Span;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{Arrival, FrameReader, write_frame};
use crate::error::{SendError, Violation};
use crate::frame::{Frame, Notice, Standing, TransferId, VERSION};

/// How long a notice and its answer may take together.
const EXCHANGE: Span = Span::secs(10);

/// Tells the peer how a transfer stands here, over a stream of its own; how it stands there.
pub async fn notify<S>(mut stream: S, id: TransferId, standing: Standing) -> Result<Standing, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let exchange = async {
        let lost = |source| SendError::ConnectionLost { source };
        write_frame(&mut stream, &Frame::Notice(said(id, standing))).await.map_err(lost)?;
        let answer = FrameReader::new(&mut stream).next().await;
        let theirs = match answer {
            Arrival::Frame(Frame::Notice(notice)) if notice.id == id.0 && notice.version == VERSION => {
                notice.standing
            }
            Arrival::Frame(_) => return Err(Violation::Unexpected("in answer to a notice").into()),
            Arrival::Bad(violation) => return Err(violation.into()),
            Arrival::Lost(source) => return Err(lost(source)),
        };
        let _it_was_all_said = stream.shutdown().await;
        Ok(theirs)
    };
    let late = |_| SendError::ConnectionLost { source: std::io::ErrorKind::TimedOut.into() };
    tokio::time::timeout(EXCHANGE.into(), exchange).await.map_err(late)?
}

/// Answers a notice about this transfer with how it stands here, and ends the stream.
pub async fn answer<S>(mut stream: S, id: TransferId, standing: Standing) -> std::io::Result<()>
where
    S: AsyncWrite + Unpin + Send,
{
    write_frame(&mut stream, &Frame::Notice(said(id, standing))).await?;
    stream.shutdown().await
}

fn said(id: TransferId, standing: Standing) -> Notice {
    Notice { version: VERSION, id: id.0, standing }
}
