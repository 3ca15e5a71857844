//! A gateway and its Redis, as small as they can be and as faulty as a test wants them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command as Program, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use causeway_protocol::frame::{
    DeflateAgreement, Deflater, FrameLimits, FrameReader, Inflater, Message, Role, close,
};
use causeway_protocol::{
    CloseCode, Command, CommandId, ErrorCode, GapReason, Publication, Push, Reply, Topic,
};
use serde_json::Value;

/// What the stub does wrong to its first subscriber, and does only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Lose,
    /// Loses a message, and says so.
    Gap,
    Repeat,
    Swap,
    Close,
    /// Answers every upgrade with 401.
    RefuseUpgrade,
    /// Answers every subscribe with an error.
    RefuseSubscribe,
    /// Lets people in who ask for compression, and compresses nothing.
    StayPlain,
}

/// The message that the fault strikes: another comes before it, and with four in flight others come behind it,
/// however little time the machine gives the test.
const STRUCK: usize = 1;
/// What the stub's `/metrics` counts besides its messages.
pub(crate) const REFUSED: u64 = 7;

/// A running stub. Its threads end with the test's process.
pub(crate) struct Stub {
    pub(crate) gateway: SocketAddr,
    /// Another node on the same Redis.
    pub(crate) sibling: SocketAddr,
    pub(crate) redis: SocketAddr,
    bus: Arc<Mutex<Bus>>,
}

/// Everybody who listens, on either node.
#[derive(Default)]
struct Bus {
    fault: Option<Fault>,
    sockets: Vec<Subscriber>,
    clients: Vec<(Node, TcpStream)>,
    dead: Vec<Node>,
    published: usize,
    held_back: Option<Publication>,
    /// Somebody asked for compression: everybody is sent compressed messages.
    deflater: Option<Deflater>,
}

struct Subscriber {
    topic: String,
    socket: TcpStream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Gateway,
    Sibling,
}

impl Stub {
    pub(crate) fn start(fault: Fault) -> Self {
        let [gateway, sibling, redis] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [gateway_address, sibling_address, redis_address] =
            [&gateway, &sibling, &redis].map(|listener| listener.local_addr().unwrap());
        let bus = Arc::new(Mutex::new(Bus { fault: Some(fault), ..Bus::default() }));
        let stub = Self { gateway: gateway_address, sibling: sibling_address, redis: redis_address, bus };
        let bus = stub.bus.clone();
        thread::spawn(move || {
            for publisher in redis.incoming() {
                let bus = bus.clone();
                thread::spawn(move || serve_publisher(publisher.unwrap(), &bus));
            }
        });
        for (node, listener) in [(Node::Gateway, gateway), (Node::Sibling, sibling)] {
            let bus = stub.bus.clone();
            thread::spawn(move || {
                for client in listener.incoming() {
                    let (client, bus) = (client.unwrap(), bus.clone());
                    if bus.lock().unwrap().dead.contains(&node) {
                        return; // and with the listener goes the address
                    }
                    thread::spawn(move || serve_client(client, node, &bus));
                }
            });
        }
        stub
    }

    /// Ends a node as a crash does.
    pub(crate) fn kill(&self, node: Node) {
        let mut bus = self.bus.lock().unwrap();
        bus.dead.push(node);
        for (_, socket) in bus.clients.iter().filter(|(of, _)| *of == node) {
            // It may have ended before.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Runs `scenario` against the first node, with further `options` divided by spaces.
    pub(crate) fn run(&self, scenario: &str, options: &str) -> Output {
        Program::new(env!("CARGO_BIN_EXE_causeway-loadtest"))
            .args([scenario, "--json", "--gateway", &format!("http://{}", self.gateway)])
            .args(options.split_whitespace())
            .output()
            .unwrap()
    }

    /// The options that publish through the stub's Redis.
    pub(crate) fn redis(&self) -> String {
        format!(" --redis {} ", self.redis)
    }
}

/// The report of a run that must have ended with `status`.
#[track_caller]
pub(crate) fn report(output: &Output, status: i32) -> Value {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One figure of a report.
#[track_caller]
pub(crate) fn figure(report: &Value, key: &str) -> f64 {
    report["figures"][key].as_f64().unwrap_or_else(|| panic!("no {key} in {report}"))
}

fn serve_client(mut client: TcpStream, node: Node, bus: &Mutex<Bus>) {
    let head = read_head(&client);
    let fault = bus.lock().unwrap().fault;
    if head[0].starts_with("POST ") {
        return serve_post(&mut client, &head, bus);
    }
    if head[0].starts_with("GET /metrics ") {
        return serve_metrics(&mut client, bus);
    }
    if fault == Some(Fault::RefuseUpgrade) {
        // The load tester may have given up.
        let _ = client.write_all(b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"code\":\"unauthenticated\"}");
        return;
    }
    let welcome = Push::Welcome { session: "s", node: "n", ping_interval_ms: 25_000, expires_in_ms: 60_000 };
    let offer = head.iter().find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    let agreement = DeflateAgreement::reach(offer.filter(|_| fault != Some(Fault::StayPlain))).unwrap();
    let (mut reader, mut buffer) = (FrameReader::new(Role::Server), [0; 4096]);
    let mut answer = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
    if let Some(agreement) = agreement {
        answer.push_str(&format!("Sec-WebSocket-Extensions: {}\r\n", agreement.response()));
        reader = reader.with_deflate();
        bus.lock().unwrap().deflater.get_or_insert_default();
    }
    let answer = [answer.as_bytes(), b"\r\n", &welcome.frame()].concat();
    let Ok(()) = client.write_all(&answer) else { return };
    bus.lock().unwrap().clients.push((node, client.try_clone().unwrap()));
    let (mut inflater, limits) = (Inflater::default(), FrameLimits::default());
    while let Ok(len @ 1..) = client.read(&mut buffer) {
        let mut input = &mut buffer[..len];
        while let Some(received) = reader.next(&mut input, &limits).unwrap() {
            match reader.inflate(received, &mut inflater, &limits).unwrap() {
                Message::Text(text) => answer_command(&text, &mut client, bus),
                Message::Close(_) => return,
                other => panic!("{other:?} is no command"),
            }
        }
    }
}

fn read_head(client: &TcpStream) -> Vec<String> {
    let lines = BufReader::with_capacity(1, client).lines().map_while(Result::ok);
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    assert_ne!(head.len(), 0, "an empty request");
    head
}

fn serve_post(client: &mut TcpStream, head: &[String], bus: &Mutex<Bus>) {
    let topic = head[0].strip_prefix("POST /v1/topics/").unwrap().split(' ').next().unwrap();
    let len = head.iter().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; len.parse().unwrap()];
    client.read_exact(&mut body).unwrap();
    bus.lock().unwrap().publish(topic, &String::from_utf8(body).unwrap());
    let _ = client.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
}

fn serve_metrics(client: &mut TcpStream, bus: &Mutex<Bus>) {
    let published = bus.lock().unwrap().published as u64;
    let body = format!(
        "# TYPE causeway_messages_received_total counter\ncauseway_messages_received_total {published}\n\
         causeway_upgrades_refused_total{{reason=\"too_fast\"}} {}\n",
        if published > 0 { REFUSED } else { 0 }
    );
    let _ = write!(client, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
}

fn answer_command(text: &str, client: &mut TcpStream, bus: &Mutex<Bus>) {
    let (id, command) = Command::parse(text).unwrap();
    let mut bus = bus.lock().unwrap();
    let frame = match command {
        Command::Subscribe { topics } => {
            let topics: Vec<_> = topics.iter().map(|topic| &**topic).collect();
            bus.subscribe(&id, &topics, client)
        }
        Command::Publish { topic, data } => {
            bus.publish(topic.as_str(), data);
            Reply::Published { id: &id }.frame().to_vec()
        }
        Command::Ping => Reply::Pong { id: &id }.frame().to_vec(),
        other => panic!("{other:?} is not for the load tester"),
    };
    // The load tester may have what it wanted and be gone.
    let _ = client.write_all(&frame);
}

/// Takes `PUBLISH` after `PUBLISH`, each as the seven lines of a RESP array, until the publisher leaves.
fn serve_publisher(publisher: TcpStream, bus: &Mutex<Bus>) {
    let mut replies = publisher.try_clone().unwrap();
    let mut lines = BufReader::new(publisher).lines().map_while(Result::ok);
    loop {
        let command: Vec<String> = lines.by_ref().take(7).collect();
        let [_, _, _, _, topic, _, payload] = &command[..] else { return };
        bus.lock().unwrap().publish(topic, payload);
        let Ok(()) = replies.write_all(b":1\r\n") else { return };
    }
}

impl Bus {
    fn subscribe(&mut self, id: &CommandId, topics: &[&str], client: &TcpStream) -> Vec<u8> {
        if self.fault == Some(Fault::RefuseSubscribe) {
            let (code, message) = (ErrorCode::Forbidden, "not yours");
            return Reply::Error { id: Some(id), code, message, retryable: false }.frame().to_vec();
        }
        for topic in topics {
            let socket = client.try_clone().unwrap();
            self.sockets.push(Subscriber { topic: (*topic).to_owned(), socket });
        }
        Reply::Subscribed { id, topics, refused: &[] }.frame().to_vec()
    }

    fn publish(&mut self, topic: &str, payload: &str) {
        let publication = Publication::new(Topic::parse(topic).unwrap(), payload.to_owned());
        let deflated = self.deflater.as_mut().and_then(|deflater| publication.deflated_frame(deflater));
        let frame = deflated.unwrap_or(publication.frame()).clone();
        let is_struck = self.published == STRUCK;
        self.published += 1;
        for subscriber in self.sockets.iter_mut().skip(1).filter(|subscriber| subscriber.topic == topic) {
            // The load tester may have what it wanted and be gone.
            let _ = subscriber.socket.write_all(&frame);
        }
        let Some(subscriber) = self.sockets.first_mut().filter(|subscriber| subscriber.topic == topic) else {
            return;
        };
        let mut first = vec![frame.clone()];
        match self.fault {
            Some(Fault::Lose) if is_struck => first.clear(),
            Some(Fault::Gap) if is_struck => {
                first = vec![Push::Gap { topic, reason: GapReason::Overload, lasted_ms: 1 }.frame()];
            }
            Some(Fault::Repeat) if is_struck => first.push(frame),
            Some(Fault::Close) if is_struck => first = vec![close(CloseCode::SlowConsumer)],
            Some(Fault::Swap) if is_struck => {
                self.held_back = Some(publication);
                return;
            }
            _ => first.extend(self.held_back.take().map(|held_back| held_back.frame().clone())),
        }
        for frame in first {
            let _ = subscriber.socket.write_all(&frame);
        }
    }
}
