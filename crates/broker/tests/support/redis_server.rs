//! A real `redis-server`, on a loopback address of its own: no port has to be fixed, and none can be taken by an
//! outgoing connection of somebody else's.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use redis::{Connection, FromRedisValue};

use super::PATIENCE;

/// A Redis server that ends with the test.
pub(crate) struct RedisServer {
    address: SocketAddrV4,
    process: Option<Child>,
}

impl RedisServer {
    /// A server that is up.
    pub(crate) fn start() -> Self {
        let mut server = Self::down();
        server.bring_up();
        server
    }

    /// A server that is not up yet, but has its address.
    pub(crate) fn down() -> Self {
        let listener = TcpListener::bind((own_address(), 0)).unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("an IPv4 address was bound");
        };
        Self { address, process: None }
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn bring_up(&mut self) {
        let child = Command::new("redis-server")
            .args(["--bind", &self.address.ip().to_string(), "--port", &self.address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(child);
        let since = Instant::now();
        while self.connect().is_err() {
            assert!(since.elapsed() < PATIENCE, "redis-server does not answer");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL: no farewell.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT after [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// The server's address as a url.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// What a plain Redis client gets for a command, given as words.
    pub(crate) fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut self.connect().unwrap()).unwrap()
    }

    /// Publishes with a plain Redis client.
    pub(crate) fn publish(&self, channel: &str, payload: &str) {
        let _receivers: i64 = self.command(&["PUBLISH", channel, payload]);
    }

    /// How many connections are subscribed to `channel`.
    pub(crate) fn subscribers(&self, channel: &str) -> u32 {
        let (_, count): (String, u32) = self.command(&["PUBSUB", "NUMSUB", channel]);
        count
    }

    /// A plain connection, for a series of commands.
    pub(crate) fn connect(&self) -> redis::RedisResult<Connection> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(PATIENCE)?;
        redis::cmd("PING").exec(&mut connection)?;
        Ok(connection)
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().expect("the server is up").id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success(), "kill {signal} {pid}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address in 127.0.0.0/8 that no other test uses: made of this process's number and a count.
pub(crate) fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 254, low, COUNT.fetch_add(1, Ordering::Relaxed))
}
