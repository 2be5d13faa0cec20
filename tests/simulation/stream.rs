//! [`SimStream`]: a machine's end of a connection, and [`SimConnector`], which opens it.

use super::outbox::{Emission, Link, Outbox};
use async_trait::async_trait;
use layercache::{Connector, RedisStream};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Asks the simulated network for connections.
#[derive(Debug)]
pub(crate) struct SimConnector {
    pub(crate) outbox: Outbox,
}

#[async_trait]
impl Connector for SimConnector {
    async fn connect(&self, host: &str, _port: u16) -> io::Result<RedisStream> {
        let (reply, answer) = oneshot::channel();
        self.outbox.emit(Emission::Connect {
            host: host.to_owned(),
            reply,
        });
        let lost = |_| io::Error::from(io::ErrorKind::ConnectionReset);
        let stream = answer.await.map_err(lost)??;
        Ok(Box::pin(stream))
    }
}

/// A machine's end of a connection.
#[derive(Debug)]
pub(crate) struct SimStream {
    link: Link,
    outbox: Outbox,
    inbox: Inbox,
}

/// The bytes that have arrived at a machine's end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox(Arc<Mutex<Arrived>>);

#[derive(Debug, Default)]
struct Arrived {
    bytes: VecDeque<u8>,
    end: Option<End>,
    reader: Option<Waker>,
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// The server has closed it.
    Closed,
    Reset,
}

impl SimStream {
    pub(crate) const fn new(link: Link, outbox: Outbox, inbox: Inbox) -> Self {
        Self {
            link,
            outbox,
            inbox,
        }
    }
}

impl Inbox {
    pub(crate) fn deliver(&self, bytes: &[u8]) {
        let mut arrived = self.0.lock().unwrap();
        arrived.bytes.extend(bytes);
        if let Some(reader) = arrived.reader.take() {
            reader.wake();
        }
    }

    pub(crate) fn end(&self, end: End) {
        let mut arrived = self.0.lock().unwrap();
        arrived.end.get_or_insert(end);
        if let Some(reader) = arrived.reader.take() {
            reader.wake();
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut arrived = self.inbox.0.lock().unwrap();
        if matches!(arrived.end, Some(End::Reset)) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = arrived.bytes.len().min(buffer.remaining());
        if count > 0 {
            let bytes: Vec<_> = arrived.bytes.drain(..count).collect();
            buffer.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        if arrived.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        arrived.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.inbox.0.lock().unwrap().end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.outbox.emit(Emission::Bytes(self.link, bytes.to_vec()));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // A killed machine drops its streams outside of its runtime, which has no time any more.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.outbox.emit(Emission::Close(self.link));
        }
    }
}
