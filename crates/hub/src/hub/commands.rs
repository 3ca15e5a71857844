//! What clients ask for: commands, and the subscriptions that come of them.
//!
//! A subscribe is answered once, when every one of its topics is live or refused; until then it waits, holding
//! its topics, and its subscriptions begin with the answer.

use std::borrow::Cow;
use std::mem;

use bytes::Bytes;
use causeway_protocol::{CloseCode, Command, CommandId, ErrorCode, Refusal, Reply, TOPIC_BYTES_MAX, Topic};
use rustc_hash::FxHashSet;

use super::{Hub, InterestChange, Refused, Request};
use crate::pending::{PendingKey, PendingSubscribe};
use crate::session::{Session, Subscription};
use crate::topics::{TopicKey, TopicState};
use crate::{Moment, SessionKey, SubscribePermit};

impl Hub {
    /// Counts a command against the session's rate. One that goes on regardless is closed.
    pub(super) fn admit_command(&mut self, key: SessionKey, now: Moment) -> bool {
        let Some(session) = self.sessions.get_mut(key.index()) else { return false };
        if session.rate.allow(now, &self.limits) {
            session.too_fast = session.too_fast.saturating_sub(1);
            return true;
        }
        session.too_fast += 1;
        if session.too_fast > self.limits.commands_burst {
            self.close(key, CloseCode::TooManyCommands, now);
        }
        false
    }

    pub(super) fn carry_out(
        &mut self,
        key: SessionKey,
        id: CommandId,
        command: Command<'_>,
        now: Moment,
    ) -> Result<Option<Request>, Refused> {
        if let Command::Subscribe { topics } | Command::Unsubscribe { topics } = &command
            && let Some(session) = self.sessions.get_mut(key.index())
        {
            session.rate.count_topics(topics.len(), &self.limits);
        }
        match command {
            Command::Subscribe { topics } => self.subscribe(key, id, &topics, now)?,
            Command::Unsubscribe { topics } => self.unsubscribe(key, &id, &topics, now)?,
            Command::Publish { topic, data } => return self.request_publish(key, id, topic, data).map(Some),
            Command::Authenticate { token } => {
                return Ok(Some(Request::Authenticate { id, token: token.into_owned() }));
            }
            Command::Ping => self.owe(key, &Reply::Pong { id: &id }.frame(), now),
        }
        Ok(None)
    }

    pub(super) fn subscribe(
        &mut self,
        key: SessionKey,
        id: CommandId,
        names: &[Cow<'_, str>],
        now: Moment,
    ) -> Result<(), Refused> {
        self.check_names(self.names_waiting(key) + names.len())?;
        let mut refused = Vec::new();
        let mut topics = Vec::new();
        let mut has: FxHashSet<TopicKey> =
            self.session(key).into_iter().flat_map(|s| self.topics_of(s)).collect();
        for name in names {
            match self.permit(key, name, &has) {
                Ok(permit) => {
                    let topic = self.hold(permit.topic(), &mut topics);
                    has.insert(topic);
                }
                Err((code, message)) => refused.push(refusal(name, code, message)),
            }
        }
        let missing =
            topics.iter().filter(|&&topic| self.topics.get(topic).state != TopicState::Live).count();
        let pending = PendingSubscribe { session: key, id, topics, missing, refused };
        if missing == 0 {
            self.answer(pending, now);
        } else {
            self.wait(key, pending, now);
        }
        Ok(())
    }

    /// Refuses a command by which too many names would be under way: a name costs time at once and, while its
    /// command waits, memory. No session has use for more than twice the topics it may have.
    fn check_names(&self, count: usize) -> Result<(), Refused> {
        let most = self.limits.topics_per_session.saturating_mul(2);
        if count <= most {
            return Ok(());
        }
        let message =
            format!("at most {most} topics may be named by one command and those before it that wait");
        Err((ErrorCode::LimitExceeded, message.into()))
    }

    /// How many names the session's waiting commands hold, refused ones included.
    pub(super) fn names_waiting(&self, key: SessionKey) -> usize {
        let pending = self.session(key).into_iter().flat_map(|session| &session.pending);
        let waiting = pending.filter_map(|&pending| self.pendings.get(pending));
        waiting.map(|pending| pending.topics.len() + pending.refused.len()).sum()
    }

    /// The topics that `session` is subscribed to or waiting for; one that is both comes twice.
    pub(super) fn topics_of(&self, session: &Session) -> impl Iterator<Item = TopicKey> {
        let waiting = session.pending.iter().filter_map(|&pending| self.pendings.get(pending));
        (session.subscriptions.iter().map(|subscription| subscription.topic))
            .chain(waiting.flat_map(|pending| pending.topics.iter().copied()))
    }

    /// The permit to subscribe to `name`, for a session that `has` these topics.
    pub(super) fn permit(
        &self,
        key: SessionKey,
        name: &str,
        has: &FxHashSet<TopicKey>,
    ) -> Result<SubscribePermit, Refused> {
        let topic = Topic::parse(name).map_err(|fault| (ErrorCode::BadTopic, fault.to_string().into()))?;
        let session =
            self.session(key).ok_or((ErrorCode::Internal, Cow::Borrowed("the session has ended")))?;
        let permit = session
            .policy
            .permit_subscribe(topic)
            .ok_or((ErrorCode::Forbidden, Cow::Borrowed("the token does not grant this topic")))?;
        let limit = self.limits.topics_per_session;
        if has.len() >= limit && !self.topics.find(name).is_some_and(|topic| has.contains(&topic)) {
            let message = format!("a connection has at most {limit} topics");
            return Err((ErrorCode::LimitExceeded, message.into()));
        }
        Ok(permit)
    }

    /// Holds a topic for a subscribe command, once.
    pub(super) fn hold(&mut self, name: &Topic, topics: &mut Vec<TopicKey>) -> TopicKey {
        let (topic, is_new) = self.topics.hold(name);
        if is_new {
            let class = (0..).zip(&*self.classes).find(|(_, class)| class.matches(name, ""));
            self.topics.get_mut(topic).class = class.map(|(number, _)| number);
            self.interest.push(InterestChange::Want(name.clone(), self.topics.get(topic).ticket));
        }
        if topics.contains(&topic) {
            self.release(topic);
        } else {
            topics.push(topic);
        }
        topic
    }

    pub(super) fn wait(&mut self, key: SessionKey, pending: PendingSubscribe, now: Moment) {
        let topics = pending.topics.clone();
        let pending = self.pendings.insert(pending, now + self.limits.subscribe_timeout);
        for topic in topics {
            let entry = self.topics.get_mut(topic);
            if entry.state != TopicState::Live {
                entry.add_waiter(pending, |waiter| self.pendings.get(waiter).is_some());
            }
        }
        if let Some(session) = self.session_mut(key) {
            session.pending.push(pending);
        }
    }

    /// One topic that a command waited for is live or withdrawn.
    pub(super) fn one_topic_less(&mut self, key: PendingKey, now: Moment) {
        let Some(pending) = self.pendings.get_mut(key) else { return };
        pending.missing -= 1;
        if pending.missing == 0
            && let Some(pending) = self.take_pending(key)
        {
            self.answer(pending, now);
        }
    }

    /// Time is up: what is not live by now is refused.
    pub(super) fn give_up(&mut self, key: PendingKey, now: Moment) {
        let Some(mut pending) = self.take_pending(key) else { return };
        for topic in mem::take(&mut pending.topics) {
            let entry = self.topics.get(topic);
            if entry.state == TopicState::Live {
                pending.topics.push(topic);
            } else {
                let message = Cow::Borrowed("the broker did not confirm in time");
                pending.refused.push(refusal(entry.name.as_str(), ErrorCode::BrokerUnavailable, message));
                self.release(topic);
            }
        }
        self.answer(pending, now);
    }

    pub(super) fn take_pending(&mut self, key: PendingKey) -> Option<PendingSubscribe> {
        let pending = self.pendings.remove(key)?;
        if let Some(session) = self.session_mut(pending.session) {
            session.pending.retain(|&other| other != key);
            if session.pending.is_empty() {
                // Few sessions wait a second time, and a list keeps its room.
                session.pending = Vec::new();
            }
        }
        Some(pending)
    }

    /// Answers a subscribe command; its subscriptions begin.
    pub(super) fn answer(&mut self, pending: PendingSubscribe, now: Moment) {
        let PendingSubscribe { session, id, topics, refused, .. } = pending;
        for &topic in &topics {
            self.begin_subscription(session, topic);
            self.release(topic);
        }
        let names: Vec<&str> = topics.iter().map(|&topic| self.topics.get(topic).name.as_str()).collect();
        let reply = Reply::Subscribed { id: &id, topics: &names, refused: &refused }.frame();
        self.owe(session, &reply, now);
    }

    pub(super) fn begin_subscription(&mut self, key: SessionKey, topic: TopicKey) {
        let Some(session) = self.sessions.get_mut(key.index()) else { return };
        if !session.is_subscribed(topic) {
            let place = self.topics.add(topic, key);
            session.subscriptions.reserve_exact(1);
            session.subscriptions.push(Subscription { topic, place });
            self.subscriptions += 1;
            if let Some(class) = self.topics.get(topic).class {
                self.class_counts[usize::from(class)].subscriptions += 1;
            }
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        key: SessionKey,
        id: &CommandId,
        names: &[Cow<'_, str>],
        now: Moment,
    ) -> Result<(), Refused> {
        self.check_names(names.len())?;
        for name in names {
            self.leave(key, name, now);
        }
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        self.owe(key, &Reply::Unsubscribed { id, topics: &names }.frame(), now);
        Ok(())
    }

    /// Ends the session's subscription to the topic of this name, and its waiting for it.
    pub(super) fn leave(&mut self, key: SessionKey, name: &str, now: Moment) {
        if let Some(topic) = self.topics.find(name) {
            self.withdraw(key, topic, now);
        }
        // Gone, if nobody else waited for it.
        if let Some(topic) = self.topics.find(name) {
            self.end_subscription(key, topic);
        }
    }

    /// Takes `topic` out of the session's subscribe commands that wait.
    pub(super) fn withdraw(&mut self, key: SessionKey, topic: TopicKey, now: Moment) {
        let Some(session) = self.session(key) else { return };
        for pending_key in session.pending.clone() {
            let Some(pending) = self.pendings.get_mut(pending_key) else { continue };
            let Some(at) = pending.topics.iter().position(|&other| other == topic) else { continue };
            pending.topics.remove(at);
            let entry = self.topics.get_mut(topic);
            entry.waiters.retain(|&waiter| waiter != pending_key);
            let was_missing = entry.state != TopicState::Live;
            self.release(topic);
            if was_missing {
                self.one_topic_less(pending_key, now);
            }
        }
    }

    pub(super) fn end_subscription(&mut self, key: SessionKey, topic: TopicKey) {
        let Some(session) = self.session_mut(key) else { return };
        let Some(at) = session.subscriptions.iter().position(|subscription| subscription.topic == topic)
        else {
            return;
        };
        let place = session.subscriptions.swap_remove(at).place;
        self.forget_subscriber(topic, place);
    }

    /// Takes a subscriber out of a topic, and the topic away if it was the last.
    pub(super) fn forget_subscriber(&mut self, topic: TopicKey, place: u32) {
        self.subscriptions -= 1;
        if let Some(class) = self.topics.get(topic).class {
            self.class_counts[usize::from(class)].subscriptions -= 1;
        }
        if let Some(moved) = self.topics.remove(topic, place) {
            let subscriptions = &mut self.sessions[moved.index()].subscriptions;
            let moved = subscriptions.iter_mut().find(|subscription| subscription.topic == topic);
            moved.expect("a topic's subscriber is subscribed to it").place = place;
        }
        if let Some(name) = self.topics.remove_if_abandoned(topic) {
            self.interest.push(InterestChange::Leave(name));
        }
    }

    /// Ends a hold on a topic, and takes the topic away if it was the last.
    pub(super) fn release(&mut self, topic: TopicKey) {
        if let Some(name) = self.topics.release(topic) {
            self.interest.push(InterestChange::Leave(name));
        }
    }

    fn request_publish(
        &self,
        key: SessionKey,
        id: CommandId,
        topic: Topic,
        data: &str,
    ) -> Result<Request, Refused> {
        if data.len() > self.limits.publish_bytes {
            let message = format!("data is longer than {} bytes", self.limits.publish_bytes);
            return Err((ErrorCode::TooLarge, message.into()));
        }
        let permit = self.session(key).and_then(|session| session.policy.permit_publish(topic));
        let permit =
            permit.ok_or((ErrorCode::Forbidden, Cow::Borrowed("the token does not grant this topic")))?;
        Ok(Request::Publish { id, permit, data: Bytes::copy_from_slice(data.as_bytes()) })
    }

    pub(super) fn is_still_allowed(&self, key: SessionKey) -> bool {
        let Some(session) = self.session(key) else { return true };
        self.topics_of(session).all(|topic| session.policy.still_allows(&self.topics.get(topic).name))
    }

    /// Ends every subscription and every wait of a session.
    pub(super) fn leave_all(&mut self, key: SessionKey) {
        let Some(session) = self.session_mut(key) else { return };
        let waiting = mem::take(&mut session.pending);
        let subscriptions = mem::take(&mut session.subscriptions);
        for Subscription { topic, place } in subscriptions {
            self.forget_subscriber(topic, place);
        }
        for pending in
            waiting.into_iter().filter_map(|pending| self.pendings.remove(pending)).collect::<Vec<_>>()
        {
            for topic in pending.topics {
                self.release(topic);
            }
        }
    }
}

fn refusal(name: &str, code: ErrorCode, message: Cow<'static, str>) -> Refusal {
    let shown = &name[..name.floor_char_boundary(TOPIC_BYTES_MAX)];
    Refusal { topic: shown.into(), code, message: message.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use causeway_protocol::Pattern;

    use super::*;
    use crate::{Grants, HubLimits, Policy};

    #[test]
    fn a_topic_that_is_lost_for_long_keeps_no_commands_that_gave_up_on_it() {
        let limits = HubLimits {
            ping_interval: Duration::from_secs(86_400),
            outbox_bytes: usize::MAX,
            ..HubLimits::default()
        };
        let mut hub = Hub::new("a", 0, limits, 1);
        let grants = Grants { subscribe: Box::new([Pattern::parse("**").unwrap()]), publish: Box::default() };
        let policy = Policy::new("alice", Arc::new(grants));
        let mut now = Moment::default();
        let alice = hub.connect(policy, Moment::NEVER, now);
        let subscribe = r#"{"id":1,"op":"subscribe","topics":["a"]}"#;
        hub.command(alice, subscribe, now);
        let topic = hub.topics.find("a").unwrap();
        hub.topic_live(&Topic::parse("a").unwrap(), hub.topics.get(topic).ticket, now);
        hub.link_lost(Duration::ZERO, now);
        for _ in 0..1000 {
            hub.command(alice, subscribe, now);
            now = now + Duration::from_secs(6);
            hub.tick(now);
        }
        assert!(hub.topics.get(topic).waiters.capacity() <= 8);
    }
}
