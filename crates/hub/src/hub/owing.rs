//! What is owed: frames on their way into outboxes, and the last frame of a session.

use std::mem;
use std::time::Duration;

use bytes::Bytes;
use causeway_protocol::{CloseCode, CommandId, ErrorCode, GapReason, Push, Reply};

use super::{Hub, millis};
use crate::listed::Listed;
use crate::outbox::SharedFrame;
use crate::session::{Phase, Session};
use crate::topics::TopicKey;
use crate::{Moment, SessionKey};

impl Hub {
    pub(super) fn refuse(
        &mut self,
        key: SessionKey,
        id: Option<&CommandId>,
        code: ErrorCode,
        message: &str,
        now: Moment,
    ) {
        self.owe(key, &Reply::error(id, code, message).frame(), now);
    }

    /// Puts one frame into one outbox.
    pub(super) fn owe(&mut self, key: SessionKey, frame: &Bytes, now: Moment) {
        let Some(session) = self.sessions.get_mut(key.index()).filter(|session| session.key == key) else {
            return;
        };
        let frame = SharedFrame::new(frame.clone(), &self.frame_bytes);
        match offer(session, &mut self.listed, 1, &frame, self.limits.outbox_bytes) {
            Offered::Queued => self.frames_waiting += 1,
            Offered::Closing => {}
            Offered::NoRoom => self.cut(key, CloseCode::SlowConsumer, now),
        }
    }

    /// Puts one frame into the outbox of every subscriber of a topic. Says how many there are.
    pub(super) fn fan_out(&mut self, topic: TopicKey, frame: &SharedFrame, now: Moment) -> usize {
        self.fan_out_by(topic, |_| frame, now)
    }

    /// The same where not all are owed the same.
    pub(super) fn fan_out_by<'f>(
        &mut self,
        topic: TopicKey,
        mut frame_for: impl FnMut(&Session) -> &'f SharedFrame,
        now: Moment,
    ) -> usize {
        let subscribers = &self.topics.get(topic).subscribers;
        let count = subscribers.len();
        let mut slow = Vec::new();
        for &key in subscribers {
            let session = &mut self.sessions[key.index()];
            let frame = frame_for(session);
            match offer(session, &mut self.listed, count, frame, self.limits.outbox_bytes) {
                Offered::Queued => self.frames_waiting += 1,
                Offered::Closing => {}
                Offered::NoRoom => slow.push(key),
            }
        }
        for key in slow {
            self.cut(key, CloseCode::SlowConsumer, now);
        }
        count
    }

    /// Says how many were told.
    pub(super) fn announce_gap(
        &mut self,
        topic: TopicKey,
        reason: GapReason,
        lasted: Duration,
        now: Moment,
    ) -> usize {
        let entry = self.topics.get(topic);
        let gap = Push::Gap { topic: entry.name.as_str(), reason, lasted_ms: millis(lasted) };
        let frame = SharedFrame::new(gap.frame(), &self.frame_bytes);
        let told = self.fan_out(topic, &frame, now);
        self.counters.gaps.count(reason, told);
        told
    }

    pub(super) fn begin_closing(
        &mut self,
        key: SessionKey,
        code: u16,
        frame: &Bytes,
        by_client: bool,
        now: Moment,
    ) {
        self.leave_all(key);
        let until = now + self.limits.close_timeout;
        let frame = SharedFrame::new(frame.clone(), &self.frame_bytes);
        let Some(session) = self.session_mut(key) else { return };
        session.outbox.append(frame);
        session.phase = Phase::Closing { code, until, by_client };
        self.frames_waiting += 1;
        self.hasten_deadline(key);
        self.list(key);
    }

    pub(super) fn list(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key.index()).filter(|session| session.key == key) {
            list(session, &mut self.listed, 1);
        }
    }
}

/// What became of a frame that was offered to a session.
enum Offered {
    /// It waits in the outbox.
    Queued,
    /// A session that is closing is owed nothing more.
    Closing,
    /// More waits than may.
    NoRoom,
}

/// Puts a frame into a session's outbox and lists the session. `together` are offered the same frame.
fn offer(
    session: &mut Session,
    listed: &mut Listed,
    together: usize,
    frame: &SharedFrame,
    bytes_max: usize,
) -> Offered {
    if !session.is_open() {
        return Offered::Closing;
    }
    if session.outbox.push(frame.clone(), bytes_max).is_err() {
        return Offered::NoRoom;
    }
    list(session, listed, together);
    Offered::Queued
}

fn list(session: &mut Session, listed: &mut Listed, together: usize) {
    if !mem::replace(&mut session.is_listed, true) {
        listed.push(session.key, together);
    }
}
