//! Random histories of workers, a link and a pretend Redis, played against the interest table.
//!
//! Whatever happens: a worker is told "live" only with the ticket of its latest wish and never before Redis has
//! confirmed on the present link; a message published while it is live reaches it, in order, unless it leaves
//! or the link is lost; and once things calm down, exactly what is wanted is live and subscribed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::seeds;

/// What is on its way between the node and Redis, each way in order.
#[derive(Default)]
struct Link {
    commands: VecDeque<Command>,
    subscribed: BTreeSet<Topic>,
    answers: VecDeque<Answer>,
}

enum Command {
    Subscribe(Vec<Topic>),
    Unsubscribe(Vec<Topic>),
}

enum Answer {
    Confirmed(Topic),
    Refused(Topic),
    Message(Topic, u32),
}

/// What a worker may rely on since it was told that a topic is live.
struct Promise {
    /// The last message published before. Such a one may still come, for it may have been on its way.
    after: u32,
    /// The messages published since that it has not got yet.
    owed: VecDeque<u32>,
}

struct World {
    random: StdRng,
    now: Instant,
    table: InterestTable,
    link: Option<Link>,
    /// What each worker wants, and with which ticket it asked last.
    wishes: BTreeMap<(WorkerId, Topic), Ticket>,
    /// What each worker was told is live.
    live: BTreeMap<(WorkerId, Topic), Promise>,
    tickets: u64,
    messages: u32,
    refusing: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            now: Instant::now(),
            table: InterestTable::default(),
            link: None,
            wishes: BTreeMap::new(),
            live: BTreeMap::new(),
            tickets: 0,
            messages: 0,
            refusing: true,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..20 => self.want(),
            20..37 => self.leave(),
            37..52 => self.send(),
            52..67 => self.carry_out(),
            67..85 => self.read(),
            85..93 => self.publish(),
            93..96 => self.now += Duration::from_millis(self.random.random_range(0..1500)),
            96 => self.lose(),
            _ => self.connect(),
        }
    }

    fn someone(&mut self) -> (WorkerId, Topic) {
        (WorkerId(self.random.random_range(0..3)), self.a_topic())
    }

    fn a_topic(&mut self) -> Topic {
        Topic::parse(&format!("t{}", self.random.random_range(0..5))).unwrap()
    }

    fn want(&mut self) {
        let (worker, topic) = self.someone();
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.wishes.insert((worker, topic.clone()), ticket);
        self.live.remove(&(worker, topic.clone()));
        if self.table.want(worker, topic.clone(), ticket) {
            self.told_live(worker, topic, ticket);
        }
    }

    fn leave(&mut self) {
        let (worker, topic) = self.someone();
        self.wishes.remove(&(worker, topic.clone()));
        self.live.remove(&(worker, topic.clone()));
        self.table.leave(worker, topic, self.now);
    }

    fn told_live(&mut self, worker: WorkerId, topic: Topic, ticket: Ticket) {
        assert_eq!(self.wishes.get(&(worker, topic.clone())), Some(&ticket), "live answers the latest wish");
        let link = self.link.as_ref().expect("nothing is live without a link");
        assert!(link.subscribed.contains(&topic), "live only when Redis has it");
        self.live.insert((worker, topic), Promise { after: self.messages, owed: VecDeque::new() });
    }

    fn connect(&mut self) {
        self.link.get_or_insert_default();
    }

    fn lose(&mut self) {
        if self.link.take().is_some() {
            assert_eq!(
                self.table.lost(self.now),
                !self.live.is_empty(),
                "told exactly when there is something to tell"
            );
            self.live.clear();
        }
    }

    /// The node hands Redis a batch of each kind, as the supervisor does.
    fn send(&mut self) {
        let Some(link) = &mut self.link else { return };
        let count_max = self.random.random_range(1..4);
        let given_up = self.table.next_unsubscribes(count_max, self.now);
        if !given_up.is_empty() {
            link.commands.push_back(Command::Unsubscribe(given_up));
        }
        self.table.requeue_due(self.now);
        let asked = self.table.next_subscribes(count_max);
        if !asked.is_empty() {
            link.commands.push_back(Command::Subscribe(asked));
        }
    }

    /// Redis carries out the oldest command.
    fn carry_out(&mut self) {
        let Some(link) = &mut self.link else { return };
        match link.commands.pop_front() {
            None => {}
            Some(Command::Unsubscribe(topics)) => topics.iter().for_each(|t| _ = link.subscribed.remove(t)),
            Some(Command::Subscribe(mut topics))
                if self.refusing && topics.len() == 1 && self.random.random_bool(0.2) =>
            {
                link.answers.push_back(Answer::Refused(topics.remove(0)));
            }
            Some(Command::Subscribe(topics)) => {
                link.subscribed.extend(topics.iter().cloned());
                link.answers.extend(topics.into_iter().map(Answer::Confirmed));
            }
        }
    }

    /// The node reads the oldest thing that Redis sent.
    fn read(&mut self) {
        match self.link.as_mut().and_then(|link| link.answers.pop_front()) {
            None => {}
            Some(Answer::Refused(topic)) => _ = self.table.refused(&topic, self.now),
            Some(Answer::Confirmed(topic)) => {
                let told: Vec<_> = self
                    .table
                    .confirmed(topic.as_str(), self.now)
                    .map(|(_, wanting)| wanting.iter().collect())
                    .unwrap_or_default();
                for (worker, ticket) in told {
                    self.told_live(worker, topic.clone(), ticket);
                }
            }
            Some(Answer::Message(topic, number)) => self.deliver(&topic, number),
        }
    }

    fn deliver(&mut self, topic: &Topic, number: u32) {
        if let Some((_, wanting)) = self.table.wanting(topic.as_str()) {
            for (worker, _) in wanting.iter() {
                if let Some(promise) = self.live.get_mut(&(worker, topic.clone()))
                    && number > promise.after
                {
                    assert_eq!(promise.owed.pop_front(), Some(number), "each once, and in order");
                }
            }
        }
        let passed_by =
            self.live.iter().find(|((_, t), promise)| t == topic && promise.owed.contains(&number));
        assert_eq!(passed_by.map(|(who, _)| who), None, "message {number} passed a worker by");
    }

    fn publish(&mut self) {
        let topic = self.a_topic();
        self.messages += 1;
        for ((_, live), promise) in &mut self.live {
            if *live == topic {
                promise.owed.push_back(self.messages);
            }
        }
        if let Some(link) = &mut self.link
            && link.subscribed.contains(&topic)
        {
            link.answers.push_back(Answer::Message(topic, self.messages));
        }
    }

    /// Nobody changes their mind any more, the link holds, and nothing is refused.
    fn calm_down(&mut self) {
        self.refusing = false;
        self.connect();
        for _ in 0..100 {
            self.now += LINGER;
            self.send();
            self.carry_out();
            self.carry_out();
            for _ in 0..10 {
                self.read();
            }
        }
    }

    fn assert_settled(&self) {
        let wanted: BTreeSet<_> = self.wishes.keys().map(|(_, topic)| topic.clone()).collect();
        let link = self.link.as_ref().unwrap();
        assert!(self.live.keys().eq(self.wishes.keys()), "what is wanted is live, and only that");
        assert!(self.live.values().all(|promise| promise.owed.is_empty()), "nothing is owed to anybody");
        assert_eq!(link.subscribed, wanted, "Redis has what is wanted, and only that");
        assert_eq!((self.table.len(), self.table.next_due()), (wanted.len(), None));
    }
}

#[test]
fn no_history_makes_a_topic_live_unconfirmed_or_leaves_one_behind() {
    seeds::play("no_history_makes_a_topic_live", 1000, |seed| {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.calm_down();
        world.assert_settled();
    });
}
