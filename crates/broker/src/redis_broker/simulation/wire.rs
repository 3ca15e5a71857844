//! One connection as the network sees it: bytes under way, each way in order, and what can happen to them.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Both ways of a connection.
pub(super) struct Wire {
    /// From the node to Redis.
    pub(super) up: Pipe,
    /// From Redis to the node.
    pub(super) down: Pipe,
    /// Whether the node has dropped its socket.
    pub(super) is_hung_up: bool,
}

/// One way.
pub(super) struct Pipe {
    latency: Duration,
    /// Pieces that were sent, and when they arrive unless something is in the way.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    arrived: Vec<u8>,
    /// Bytes ever sent, and ever read at the other end.
    pub(super) sent: u64,
    pub(super) read: u64,
    obstacle: Obstacle,
    end: Option<ErrorKind>,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    None,
    /// Nothing arrives until it is out of the way.
    Stalled,
    /// Nothing arrives ever again, and nobody says so.
    Vanished,
}

impl Wire {
    pub(super) fn new(latency: Duration) -> Self {
        Self { up: Pipe::new(latency), down: Pipe::new(latency), is_hung_up: false }
    }

    /// From here on nothing arrives either way, and nobody says so.
    pub(super) fn vanish(&mut self) {
        self.up.obstacle = Obstacle::Vanished;
        self.down.obstacle = Obstacle::Vanished;
    }

    /// Ends the connection: of what is under way so many bytes arrive still.
    pub(super) fn cut(&mut self, up_bytes: usize, down_bytes: usize, how: ErrorKind) {
        self.up.cut(up_bytes, how);
        self.down.cut(down_bytes, how);
    }
}

impl Pipe {
    fn new(latency: Duration) -> Self {
        Self {
            latency,
            under_way: VecDeque::new(),
            arrived: Vec::new(),
            sent: 0,
            read: 0,
            obstacle: Obstacle::None,
            end: None,
            reader: None,
        }
    }

    /// Sends a piece. Nobody hears of it when the connection has ended.
    pub(super) fn send(&mut self, bytes: &[u8], delay: Duration) {
        if self.end.is_some() {
            return;
        }
        let earliest = Instant::now() + self.latency + delay;
        let at = self.under_way.back().map_or(earliest, |(before, _)| earliest.max(*before));
        self.under_way.push_back((at, bytes.to_vec()));
        self.sent += bytes.len() as u64;
    }

    /// Lets arrive what is due. Returns when more will.
    pub(super) fn arrive(&mut self) -> Option<Instant> {
        if self.obstacle != Obstacle::None {
            return None;
        }
        let now = Instant::now();
        let before = self.arrived.len();
        while let Some((at, _)) = self.under_way.front() {
            if *at > now {
                break;
            }
            self.arrived.extend(self.under_way.pop_front().into_iter().flat_map(|(_, bytes)| bytes));
        }
        if self.arrived.len() > before || self.is_over() {
            self.wake();
        }
        self.under_way.front().map(|(at, _)| *at)
    }

    /// What has arrived, at Redis's end.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.read += self.arrived.len() as u64;
        mem::take(&mut self.arrived)
    }

    pub(super) fn bytes_under_way(&self) -> usize {
        self.under_way.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    pub(super) fn stall(&mut self) {
        self.obstacle = self.obstacle.max(Obstacle::Stalled);
    }

    /// What was held up goes on, unless it has vanished. Returns whether anything will arrive.
    pub(super) fn go_on(&mut self) -> bool {
        if self.obstacle == Obstacle::Stalled {
            self.obstacle = Obstacle::None;
        }
        self.obstacle == Obstacle::None && self.end.is_none()
    }

    fn cut(&mut self, mut bytes: usize, how: ErrorKind) {
        for (_, piece) in &mut self.under_way {
            piece.truncate(bytes);
            bytes -= piece.len();
        }
        self.under_way.retain(|(_, piece)| !piece.is_empty());
        self.end = Some(how);
        // The news of the end takes the same way.
        if self.obstacle == Obstacle::None {
            self.wake();
        }
    }

    fn is_over(&self) -> bool {
        self.end.is_some() && self.under_way.is_empty()
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The node's end of a wire.
pub(super) struct Socket {
    pub(super) wire: Arc<Mutex<Wire>>,
    /// Told whenever something was sent.
    pub(super) stirred: Arc<Notify>,
}

impl Socket {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap()
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let down = &mut self.wire().down;
        if !down.arrived.is_empty() {
            let count = down.arrived.len().min(buffer.remaining());
            buffer.put_slice(&down.arrived[..count]);
            down.arrived.drain(..count);
            down.read += count as u64;
            return Poll::Ready(Ok(()));
        }
        match down.end {
            Some(ErrorKind::UnexpectedEof) if down.is_over() => Poll::Ready(Ok(())),
            Some(how) if down.is_over() => Poll::Ready(Err(how.into())),
            _ => {
                down.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let wire = &mut *self.wire();
        if wire.down.end == Some(ErrorKind::ConnectionReset) && wire.down.is_over() {
            return Poll::Ready(Err(Error::from(ErrorKind::BrokenPipe)));
        }
        wire.up.send(bytes, Duration::ZERO);
        self.stirred.notify_one();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.wire().is_hung_up = true;
    }
}
