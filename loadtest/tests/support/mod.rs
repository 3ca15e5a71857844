//! A gateway and its Redis, as small as they can be and as faulty as a test wants them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use causeway_protocol::frame::{FrameLimits, FrameReader, Message, Role, close};
use causeway_protocol::{CloseCode, Command, Publication, Push, Reply, Topic};

/// What the stub does wrong to its first subscriber, and does only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Lose,
    Repeat,
    Swap,
    Close,
    /// Answers every upgrade with 401.
    RefuseUpgrade,
    /// Answers every subscribe with an error.
    RefuseSubscribe,
}

/// The message that the fault strikes: another comes before it, and with four in flight others come behind it,
/// however little time the machine gives the test.
const STRUCK: usize = 1;

/// A running stub. Its threads end with the test's process.
pub(crate) struct Stub {
    pub(crate) gateway: SocketAddr,
    pub(crate) redis: SocketAddr,
}

#[derive(Default)]
struct Subscribers {
    sockets: Vec<TcpStream>,
    published: usize,
    held_back: Option<Publication>,
}

impl Stub {
    pub(crate) fn start(fault: Fault) -> Self {
        let [gateway, redis] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let stub = Self { gateway: gateway.local_addr().unwrap(), redis: redis.local_addr().unwrap() };
        let subscribers = Arc::new(Mutex::new(Subscribers::default()));
        let publications = subscribers.clone();
        thread::spawn(move || {
            for publisher in redis.incoming() {
                serve_publisher(publisher.unwrap(), fault, &publications);
            }
        });
        thread::spawn(move || {
            for client in gateway.incoming() {
                let subscribers = subscribers.clone();
                thread::spawn(move || serve_client(client.unwrap(), fault, &subscribers));
            }
        });
        stub
    }
}

fn serve_client(mut client: TcpStream, fault: Fault, subscribers: &Mutex<Subscribers>) {
    read_head(&client);
    if fault == Fault::RefuseUpgrade {
        client.write_all(b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":\"unauthenticated\"}").unwrap();
        return;
    }
    client.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
    let welcome = Push::Welcome { session: "s", node: "n", ping_interval_ms: 25_000, expires_in_ms: 60_000 };
    client.write_all(&welcome.frame()).unwrap();
    let (mut reader, mut buffer) = (FrameReader::new(Role::Server), [0; 4096]);
    while let Ok(len @ 1..) = client.read(&mut buffer) {
        let mut input = &mut buffer[..len];
        while let Some(message) = reader.next(&mut input, &FrameLimits::default()).unwrap() {
            let Message::Text(text) = message else { panic!("{message:?} is no command") };
            subscribe(&text, &mut client, fault, subscribers);
        }
    }
}

fn read_head(client: &TcpStream) {
    let mut lines = BufReader::with_capacity(1, client).lines();
    while !lines.next().unwrap().unwrap().is_empty() {}
}

fn subscribe(text: &str, client: &mut TcpStream, fault: Fault, subscribers: &Mutex<Subscribers>) {
    let (id, command) = Command::parse(text).unwrap();
    let Command::Subscribe { topics } = command else { panic!("{text} is no subscribe") };
    let topics: Vec<_> = topics.iter().map(|topic| &**topic).collect();
    let reply = match fault {
        Fault::RefuseSubscribe => Reply::Error {
            id: Some(&id),
            code: causeway_protocol::ErrorCode::Forbidden,
            message: "not yours",
            retryable: false,
        },
        _ => Reply::Subscribed { id: &id, topics: &topics, refused: &[] },
    };
    let mut subscribers = subscribers.lock().unwrap();
    subscribers.sockets.push(client.try_clone().unwrap());
    client.write_all(&reply.frame()).unwrap();
}

/// Takes `PUBLISH` after `PUBLISH`, each as the seven lines of a RESP array, until the publisher leaves.
fn serve_publisher(publisher: TcpStream, fault: Fault, subscribers: &Mutex<Subscribers>) {
    let mut replies = publisher.try_clone().unwrap();
    let mut lines = BufReader::new(publisher).lines().map_while(Result::ok);
    loop {
        let command: Vec<String> = lines.by_ref().take(7).collect();
        let [_, _, _, _, topic, _, payload] = &command[..] else { return };
        subscribers.lock().unwrap().publish(fault, topic, payload);
        replies.write_all(b":1\r\n").unwrap();
    }
}

impl Subscribers {
    fn publish(&mut self, fault: Fault, topic: &str, payload: &str) {
        let publication = Publication::new(Topic::parse(topic).unwrap(), payload.to_owned());
        let is_struck = self.published == STRUCK;
        self.published += 1;
        for socket in &mut self.sockets[1..] {
            // The load tester may have what it wanted and be gone.
            let _ = socket.write_all(publication.frame());
        }
        let mut first = vec![publication.frame().clone()];
        match fault {
            Fault::Lose if is_struck => first.clear(),
            Fault::Repeat if is_struck => first.push(publication.frame().clone()),
            Fault::Close if is_struck => first = vec![close(CloseCode::SlowConsumer)],
            Fault::Swap if is_struck => {
                self.held_back = Some(publication);
                return;
            }
            _ => first.extend(self.held_back.take().map(|held_back| held_back.frame().clone())),
        }
        for frame in first {
            let _ = self.sockets[0].write_all(&frame);
        }
    }
}
