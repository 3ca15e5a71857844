//! Publishes as any service would: plain `PUBLISH` to Redis.
//!
//! A batch is written at once and its replies are awaited: Redis answers before it turns to the next client, so
//! the wait is Redis's own time, and a publisher that did not read its replies would fill Redis's memory.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long Redis may take over a batch.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection to Redis.
#[derive(Debug)]
pub(crate) struct Publisher {
    stream: BufReader<TcpStream>,
    batch: Vec<u8>,
    batch_len: usize,
}

impl Publisher {
    /// Connects to the Redis at `address` (`HOST:PORT`, with or without `redis://` before it).
    pub(crate) fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address.trim_start_matches("redis://").trim_end_matches('/'))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream), batch: Vec::new(), batch_len: 0 })
    }

    /// Adds one message to the batch.
    pub(crate) fn add(&mut self, channel: &str, payload: &str) {
        self.batch_len += 1;
        write!(self.batch, "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n", channel.len())
            .and_then(|()| write!(self.batch, "${}\r\n{payload}\r\n", payload.len()))
            .expect("writing to memory cannot fail");
    }

    /// Publishes the batch.
    ///
    /// # Errors
    /// The link failed, or Redis refused: its reply is the error's text.
    pub(crate) fn publish(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(&self.batch)?;
        self.batch.clear();
        let mut reply = String::new();
        for _ in 0..std::mem::take(&mut self.batch_len) {
            reply.clear();
            if self.stream.read_line(&mut reply)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !reply.starts_with(':') {
                return Err(io::Error::other(format!("Redis answered {:?} to PUBLISH", reply.trim_end())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// What a Redis that answers `replies` is sent by a batch of two, and what becomes of the batch.
    fn publish_two(replies: &str) -> (String, io::Result<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut publisher =
            Publisher::connect(&format!("redis://{}/", listener.local_addr().unwrap())).unwrap();
        let (mut redis, _) = listener.accept().unwrap();
        redis.write_all(replies.as_bytes()).unwrap();
        publisher.add("a.b", "{}");
        publisher.add("c", "é");
        let outcome = publisher.publish();
        drop(publisher);
        let mut sent = String::new();
        redis.read_to_string(&mut sent).unwrap();
        (sent, outcome)
    }

    #[test]
    fn a_batch_is_plain_redis_commands() {
        let (sent, outcome) = publish_two(":1\r\n:12\r\n");
        outcome.unwrap();
        let expected =
            "*3\r\n$7\r\nPUBLISH\r\n$3\r\na.b\r\n$2\r\n{}\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$2\r\né\r\n";
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_refusal_is_an_error_that_quotes_redis() {
        let (_, outcome) = publish_two(":1\r\n-NOAUTH Authentication required.\r\n");
        assert!(outcome.unwrap_err().to_string().contains("NOAUTH"));
    }
}
