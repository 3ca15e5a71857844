//! Publishing as any service would: plain `PUBLISH`, many in one write.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;

use super::{Dialect, UNANSWERED_MAX, dial};

const PORT: &str = "6379";

/// Where a Redis listens and, where it wants that, who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisAddress {
    host: String,
    /// User and password.
    credentials: Option<(String, String)>,
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no Redis address such as HOST:PORT or redis://USER:PASSWORD@HOST:PORT")]
pub(crate) struct RedisAddressError(String);

impl FromStr for RedisAddress {
    type Err = RedisAddressError;

    fn from_str(given: &str) -> Result<Self, RedisAddressError> {
        let error = || RedisAddressError(given.to_owned());
        let rest = given.strip_prefix("redis://").unwrap_or(given);
        // A database number, if there is one, means nothing to pub/sub.
        let rest = rest.split('/').next().unwrap_or_default();
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials.split_once(':').ok_or_else(error)?), host),
            None => (None, rest),
        };
        let has_port = host.rsplit_once(':').is_some() && !host.ends_with(']');
        let host = if has_port { host.to_owned() } else { format!("{host}:{PORT}") };
        if host.starts_with(':') || given.contains("://") && !given.starts_with("redis://") {
            return Err(error());
        }
        let owned = |(user, password): (&str, &str)| (user.to_owned(), password.to_owned());
        Ok(Self { host, credentials: credentials.map(owned) })
    }
}

/// Connects, and says who we are.
pub(super) fn connect(redis: &RedisAddress) -> io::Result<TcpStream> {
    let address = redis.host.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = dial(address)?;
    if let Some((user, password)) = &redis.credentials {
        let mut command = Vec::new();
        match user.is_empty() {
            true => array(&mut command, &["AUTH", password]),
            false => array(&mut command, &["AUTH", user, password]),
        }
        stream.write_all(&command)?;
        let mut answer = String::new();
        BufReader::with_capacity(1, &stream).read_line(&mut answer)?;
        if !answer.starts_with('+') {
            return Err(io::Error::other(format!("Redis answered {:?} to AUTH", answer.trim_end())));
        }
    }
    Ok(stream)
}

/// RESP.
pub(super) struct Redis;

impl Dialect for Redis {
    fn window(&self) -> usize {
        UNANSWERED_MAX
    }

    fn request(&mut self, topic: &str, payload: &str, out: &mut Vec<u8>) {
        array(out, &["PUBLISH", topic, payload]);
    }

    fn answers(&mut self, input: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<usize, String> {
        let whole = input.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let mut answers = 0;
        for line in input[..whole].split_inclusive(|&byte| byte == b'\n') {
            if !line.starts_with(b":") {
                let line = String::from_utf8_lossy(line);
                return Err(format!("Redis answered {:?} to PUBLISH", line.trim_end()));
            }
            answers += 1;
        }
        input.drain(..whole);
        Ok(answers)
    }
}

/// An array of bulk strings, as every command is.
fn array(out: &mut Vec<u8>, parts: &[&str]) {
    write!(out, "*{}\r\n", parts.len()).expect("writing to memory cannot fail");
    for part in parts {
        write!(out, "${}\r\n{part}\r\n", part.len()).expect("writing to memory cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_plain_redis_command() {
        let mut out = Vec::new();
        Redis.request("a.b", "{}", &mut out);
        Redis.request("c", "é", &mut out);
        let expected =
            "*3\r\n$7\r\nPUBLISH\r\n$3\r\na.b\r\n$2\r\n{}\r\n*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$2\r\né\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn answers_may_be_cut_anywhere() {
        let mut input = b":1\r\n:12\r\n:3".to_vec();
        assert_eq!(Redis.answers(&mut input, &mut Vec::new()), Ok(2));
        assert_eq!(input, b":3");
    }

    #[test]
    fn a_refusal_is_an_error_that_quotes_redis() {
        let mut input = b":1\r\n-NOAUTH Authentication required.\r\n".to_vec();
        assert!(Redis.answers(&mut input, &mut Vec::new()).unwrap_err().contains("NOAUTH"));
    }

    #[test]
    fn an_address_may_carry_a_password_and_lack_a_port() {
        let parse = |given: &str| given.parse::<RedisAddress>().unwrap();
        assert_eq!(parse("127.0.0.9:7000"), parse("redis://127.0.0.9:7000/3"));
        assert_eq!(parse("cache").host, "cache:6379");
        let given = parse("redis://me:se@cret@127.0.0.9");
        let credentials = Some(("me".to_owned(), "se@cret".to_owned()));
        assert_eq!(given, RedisAddress { host: "127.0.0.9:6379".to_owned(), credentials });
        for wrong in ["", "http://127.0.0.9", "rediss://127.0.0.9"] {
            assert!(wrong.parse::<RedisAddress>().is_err(), "{wrong}");
        }
    }
}
