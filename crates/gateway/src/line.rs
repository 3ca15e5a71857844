//! Who has sent more than one turn reads, and waits for the next.
//!
//! The runtime gives every task that can go on its turn before any of them has another. That is fair among equals, but
//! five hundred clients that always have more to be read would make everybody else's question wait for five hundred
//! turns. So these wait here, and one of them has its turn whenever all others had theirs: whoever has little to say is
//! heard at once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::socket::Socket;

/// The connections of one worker that wait for their next turn to be read, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: RefCell<VecDeque<Rc<Socket>>>,
    joined: Notify,
}

impl Line {
    /// Has a connection wait until it [is at its turn](Socket::is_in_line). Whoever waits already keeps its place.
    pub(crate) fn join(&self, socket: &Rc<Socket>) {
        if socket.join_line() {
            self.waiting.borrow_mut().push_back(Rc::clone(socket));
            self.joined.notify_one();
        }
    }

    /// Gives one after the other its turn, for as long as it is polled.
    pub(crate) async fn serve(&self) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(socket) => {
                    socket.leave_line();
                    // Its turn, and that of everybody about whom the kernel has news.
                    tokio::task::yield_now().await;
                }
                None => self.joined.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::task::Poll;

    use actix_rt::net::TcpStream;
    use tokio::net::TcpListener;
    use tokio::task::yield_now;

    use super::*;
    use crate::admission::{Admission, AdmissionLimits};
    use crate::client_addr::ClientAddr;
    use crate::tasks;

    const WHO_HAVE_MUCH: usize = 20;

    async fn sockets() -> Vec<Rc<Socket>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admission = Arc::new(Admission::new(AdmissionLimits {
            connections: WHO_HAVE_MUCH,
            connections_per_ip: WHO_HAVE_MUCH,
            upgrades_per_ip_per_second: NonZeroU32::MIN,
            upgrades_per_ip_burst: NonZeroU32::MIN,
        }));
        let mut sockets = Vec::new();
        for _ in 0..WHO_HAVE_MUCH {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let admitted = admission.enter(ClientAddr::parse("127.0.0.1").unwrap()).unwrap();
            sockets.push(Rc::new(Socket::new(stream, admitted).unwrap()));
        }
        sockets
    }

    #[actix_rt::test]
    async fn who_has_little_to_say_waits_for_one_of_those_who_have_much() {
        let line = Rc::new(Line::default());
        let turns = Rc::new(RefCell::new(Vec::new()));
        for (number, socket) in sockets().await.into_iter().enumerate() {
            let (line, turns) = (Rc::clone(&line), Rc::clone(&turns));
            tasks::spawn(poll_fn(move |cx| {
                socket.belongs_to(cx);
                if !socket.is_in_line() {
                    turns.borrow_mut().push(number);
                    line.join(&socket);
                }
                Poll::<()>::Pending
            }));
        }
        // All of them have their first turn at once.
        yield_now().await;
        assert_eq!(turns.take(), (0..WHO_HAVE_MUCH).collect::<Vec<_>>());
        tasks::spawn(async move { line.serve().await });
        let mut in_turn = Vec::new();
        for _ in 0..3 * WHO_HAVE_MUCH {
            yield_now().await;
            let meanwhile = turns.take();
            assert!(meanwhile.len() <= 1, "{meanwhile:?} had a turn between two of ours");
            in_turn.extend(meanwhile);
        }
        let expected: Vec<_> = (0..WHO_HAVE_MUCH).cycle().take(in_turn.len()).collect();
        assert!(in_turn.len() > 2 * WHO_HAVE_MUCH, "they have their turns all the same");
        assert_eq!(in_turn, expected, "one after the other");
    }
}
