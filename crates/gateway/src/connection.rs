//! One client's connection: a small task that reads, and ends the session when it is dropped.
//!
//! It keeps no buffer of its own. What is owed to the client is written by the worker; the task takes part only
//! when the socket was full and has room again.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use causeway_hub::SessionKey;
use causeway_protocol::CloseCode;
use causeway_protocol::frame::{FrameReader, Message, Received};

use crate::socket::Socket;
use crate::worker::Worker;

pub(crate) struct Connection {
    worker: Rc<Worker>,
    socket: Rc<Socket>,
    key: SessionKey,
    reader: FrameReader,
}

impl Connection {
    pub(crate) fn new(worker: Rc<Worker>, socket: Rc<Socket>, key: SessionKey, reader: FrameReader) -> Self {
        Self { worker, socket, key, reader }
    }

    /// Acts on bytes that came from the client.
    pub(crate) fn receive(&mut self, mut bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        self.worker.hub.borrow_mut().heard(self.key);
        while !self.is_flood() {
            let limits = self.worker.frame_limits.get();
            let outcome = match self.reader.next(&mut bytes, &limits) {
                Ok(None) => break,
                // Whoever is being closed is not worth the time.
                Ok(Some(Received::Deflated(_))) if !self.is_open() => continue,
                Ok(Some(received)) => {
                    self.reader.inflate(received, &mut self.worker.inflater.borrow_mut(), &limits)
                }
                Err(violation) => Err(violation),
            };
            match outcome {
                Ok(message) => self.act_on(&message),
                Err(violation) => {
                    let code = violation.close_code();
                    if self.worker.node.repeats.may_tell("violation", code.name()) {
                        let client = self.socket.client();
                        tracing::info!(session = self.name(), %client, %violation, "a client broke the protocol");
                    }
                    self.close(code);
                    break;
                }
            }
        }
        self.worker.pass_interest_on();
        self.worker.flush(self.key);
    }

    fn act_on(&self, message: &Message<'_>) {
        let worker = &self.worker;
        let now = worker.now();
        match message {
            Message::Text(text) => {
                // Apart from the match, so that the hub is free again when the request is carried out.
                let request = worker.hub.borrow_mut().command(self.key, text, now);
                if let Some(request) = request {
                    worker.carry_out(self.key, request);
                }
            }
            Message::Binary(_) => self.close(CloseCode::UnsupportedData),
            Message::Ping(payload) => worker.hub.borrow_mut().pinged(self.key, payload, now),
            Message::Pong(_) => worker.hub.borrow_mut().ponged(self.key, now),
            Message::Close(code) => worker.hub.borrow_mut().closed_by_client(self.key, *code, now),
        }
    }

    fn is_open(&self) -> bool {
        self.worker.hub.borrow().is_open(self.key)
    }

    /// Then what comes is thrown away unread, until the client has gone or its time to go is over.
    fn is_flood(&self) -> bool {
        self.worker.hub.borrow().is_flooded_by(self.key)
    }

    fn close(&self, code: CloseCode) {
        self.worker.hub.borrow_mut().close(self.key, code, self.worker.now());
    }

    fn name(&self) -> String {
        self.worker.hub.borrow().session_name(self.key)
    }

    /// Reads what has arrived, no more than the buffer takes before others have their turn; ready when the client has
    /// gone.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let worker = Rc::clone(&self.worker);
        let mut buffer = worker.read_buffer.borrow_mut();
        while !self.socket.is_in_line() {
            match std::task::ready!(self.socket.poll_read(cx, &mut buffer)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(bytes) => {
                    self.receive(&mut buffer[..bytes]);
                    if bytes == buffer.len() {
                        worker.line.join(&self.socket);
                    }
                }
            }
            if self.socket.is_over() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.socket.belongs_to(cx);
        if this.socket.poll_unblocked(cx).is_ready() {
            this.worker.flush(this.key);
        }
        if this.socket.is_over() {
            return Poll::Ready(());
        }
        this.poll_receive(cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(ended) = self.worker.disconnect(self.key) {
            tracing::info!(
                session = self.name(),
                subject = &*ended.subject,
                client = %self.socket.client(),
                lasted_ms = self.socket.age().as_millis() as u64,
                messages = ended.messages_sent,
                bytes = ended.bytes_sent,
                code = ended.code,
                why = why(ended.code),
                "connection ended"
            );
        }
    }
}

/// What a close code means.
fn why(code: u16) -> &'static str {
    match CloseCode::ALL.iter().find(|known| known.code() == code) {
        Some(known) => known.name(),
        None if code == 1006 => "no close frame",
        None => "the client's own code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks;

    #[test]
    fn counting_a_task_makes_it_no_larger() {
        fn output_bytes<T, O>(_: impl Fn(T) -> O) -> usize {
            size_of::<O>()
        }
        assert_eq!(output_bytes(tasks::counted::<Connection>), size_of::<Connection>());
    }

    #[test]
    fn nothing_is_larger_than_the_documents_say() {
        let document = include_str!("../../../docs/performance.md");
        for (what, bytes) in
            [("the connection's task", size_of::<Connection>()), ("the socket", size_of::<Socket>())]
        {
            let row = format!("| {what} | {bytes} B |");
            assert!(document.contains(&row), "docs/performance.md should say: {row}");
        }
    }
}
