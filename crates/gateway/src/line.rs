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
