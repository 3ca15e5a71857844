//! One client's socket, after HTTP has let go of it.
//!
//! Shared by the connection's task, which reads, and by the worker, which writes whatever the hub owes. Both
//! run on the same thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use actix_rt::net::TcpStream;
use causeway_hub::Outbox;
use socket2::SockRef;
use tokio::io::Interest;

use crate::admission::Admitted;
use crate::client_addr::ClientAddr;

/// What the kernel may hold unsent for one client, in bytes (it doubles this for its own needs). The default
/// would let megabytes pile up behind a client that has stopped reading.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How long sent bytes may go unacknowledged before the kernel ends the connection (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket and who is to be woken about it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Its place among the connections of the node, for as long as it is open.
    admitted: Admitted,
    began: Instant,
    /// The connection's task.
    task: RefCell<Option<Waker>>,
    /// Whether the last write found the kernel's buffer full. The task waits for room then.
    is_blocked: Cell<bool>,
    is_half_closed: Cell<bool>,
    /// Whether the task must not read yet, because others have their turn first.
    is_in_line: Cell<bool>,
    /// Whether the connection is over and its task should end.
    is_over: Cell<bool>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// This many bytes left.
    Bytes(usize),
    /// The kernel takes nothing now; the task will be woken when it does.
    Blocked,
    /// The connection is broken.
    Broken,
}

impl Socket {
    /// Takes a socket over.
    ///
    /// # Errors
    /// When an option cannot be set, which means that the peer has gone.
    pub(crate) fn new(stream: TcpStream, admitted: Admitted) -> io::Result<Self> {
        let options = SockRef::from(&stream);
        options.set_tcp_nodelay(true)?;
        options.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        Ok(Self {
            stream,
            admitted,
            began: Instant::now(),
            task: RefCell::default(),
            is_blocked: Cell::new(false),
            is_half_closed: Cell::new(false),
            is_in_line: Cell::new(false),
            is_over: Cell::new(false),
        })
    }

    /// Who is at the other end.
    pub(crate) fn client(&self) -> ClientAddr {
        self.admitted.client()
    }

    /// For how long it has been ours.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Says which task to wake from now on.
    pub(crate) fn belongs_to(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        match &mut *task {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *task = Some(cx.waker().clone()),
        }
    }

    /// Reads what has arrived into `buffer`; zero bytes mean that the client will send no more.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(bytes) if bytes > 0 && bytes < buffer.len() => {
                    self.expect_nothing_more();
                    return Poll::Ready(Ok(bytes));
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// A read that did not fill its buffer has emptied the socket, and epoll tells when there is more (epoll(7),
    /// question 9). Saying so to the runtime saves the read that would find nothing.
    fn expect_nothing_more(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = self.stream.try_io(Interest::READABLE, nothing);
    }

    /// Writes the front of `outbox`, as much as one call takes.
    ///
    /// Several frames are gathered in `buffer` first: copying some small frames costs less than having the
    /// kernel walk a list of them. A frame that fills the buffer alone is written from where it lies.
    pub(crate) fn write(&self, outbox: &Outbox, buffer: &mut [u8]) -> Written {
        let mut frames = outbox.frames();
        let is_only = frames.len() == 1;
        let outcome = match frames.next() {
            Some(first) if is_only || first.len() >= buffer.len() => self.stream.try_write(first),
            first => {
                let gathered = gather(first.into_iter().chain(frames), buffer);
                self.stream.try_write(&buffer[..gathered])
            }
        };
        match outcome {
            Ok(bytes) => Written::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room(),
            Err(_) => Written::Broken,
        }
    }

    /// Writes all of a short answer to a socket on which nothing has been written yet.
    pub(crate) fn write_first(stream: &TcpStream, answer: &[u8]) -> io::Result<()> {
        // The kernel's buffer is empty and larger than any answer: a short write means a broken socket.
        match stream.try_write(answer)? {
            bytes if bytes == answer.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn wait_for_room(&self) -> Written {
        self.is_blocked.set(true);
        if let Some(task) = &*self.task.borrow() {
            match self.stream.poll_write_ready(&mut Context::from_waker(task)) {
                Poll::Pending => {}
                // There is room again already; the task writes at its next turn.
                Poll::Ready(_) => task.wake_by_ref(),
            }
        }
        Written::Blocked
    }

    /// Whether a write that was blocked may be tried again.
    pub(crate) fn poll_unblocked(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_blocked.get() {
            // An error shows at the next read or write.
            let _ = std::task::ready!(self.stream.poll_write_ready(cx));
            self.is_blocked.set(false);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked.get()
    }

    /// Has the task wait for its turn to read; says whether it did not yet.
    pub(crate) fn join_line(&self) -> bool {
        !self.is_in_line.replace(true)
    }

    /// It is the task's turn.
    pub(crate) fn leave_line(&self) {
        self.is_in_line.set(false);
        self.wake();
    }

    pub(crate) fn is_in_line(&self) -> bool {
        self.is_in_line.get()
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Sends FIN: the client will read nothing more, but may still send.
    pub(crate) fn half_close(&self) {
        if !self.is_half_closed.replace(true) {
            // A client that has gone already needs no FIN.
            let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
        }
    }

    /// Ends the connection: its task will drop it.
    pub(crate) fn end(&self) {
        self.is_over.set(true);
        self.wake();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }
}

/// Copies frames one behind the other until `buffer` is full; says how much of it is used.
fn gather<'a>(frames: impl Iterator<Item = &'a [u8]>, buffer: &mut [u8]) -> usize {
    let mut used = 0;
    for frame in frames {
        let room = &mut buffer[used..];
        let len = frame.len().min(room.len());
        room[..len].copy_from_slice(&frame[..len]);
        used += len;
        if len < frame.len() {
            break;
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_gathered_as_far_as_there_is_room() {
        let mut buffer = [0; 8];
        for (frames, gathered) in [
            (&[&b"one"[..], b"two"][..], &b"onetwo"[..]),
            (&[b"one", b"three"], b"onethree"),
            (&[b"one", b"seven77", b"x"], b"oneseven"),
            (&[], b""),
        ] {
            let used = gather(frames.iter().copied(), &mut buffer);
            assert_eq!(&buffer[..used], gathered);
        }
    }
}
