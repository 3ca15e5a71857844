//! What the nodes count themselves: `/metrics` on their admin listeners, before and after.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::address::GatewayAddress;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a worker keeps what it has counted to itself.
const SETTLING: Duration = Duration::from_millis(400);
const SETTLING_LOOKS_MAX: u32 = 10;
const SENT: &str = "causeway_messages_sent_total";

/// The sum over all labels of each series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Asks the admin listener at `address`.
    pub(crate) fn take(address: &GatewayAddress) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address.socket, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", address.host)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(Self::parse(body)),
            _ => Err(io::Error::other(format!(
                "/metrics was answered with {:?}",
                answer.lines().next().unwrap_or_default()
            ))),
        }
    }

    /// Asks until nothing more is sent: a worker adds what it has counted to the node's counters only now and then.
    pub(crate) fn take_settled(address: &GatewayAddress) -> io::Result<Self> {
        let mut last = Self::take(address)?;
        for _ in 0..SETTLING_LOOKS_MAX {
            thread::sleep(SETTLING);
            let next = Self::take(address)?;
            if next.growth(&last, SENT).unwrap_or(0.0) == 0.0 {
                return Ok(next);
            }
            last = next;
        }
        Ok(last)
    }

    /// Reads Prometheus' text format; what is no sample is passed over.
    fn parse(text: &str) -> Self {
        let mut series = BTreeMap::<_, f64>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let family = name.split('{').next().unwrap_or_default();
            *series.entry(family.to_owned()).or_default() += value.parse().unwrap_or(0.0);
        }
        Self(series)
    }

    /// By how much the counter `name` has grown since `earlier`; `None` if there is none of that name.
    pub(crate) fn growth(&self, earlier: &Self, name: &str) -> Option<f64> {
        let now = self.0.get(name)?;
        Some(now - earlier.0.get(name).copied().unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels_and_compared() {
        let before = Scrape::parse("# TYPE closed counter\nclosed{code=\"1000\"} 2\nsent 10\n");
        let after = Scrape::parse("closed{code=\"1000\"} 3\nclosed{code=\"4413\"} 4\nsent 1e3\nnew 5\n");
        assert_eq!(after.growth(&before, "closed"), Some(5.0));
        assert_eq!(after.growth(&before, "sent"), Some(990.0));
        assert_eq!(after.growth(&before, "new"), Some(5.0), "a label may be new");
        assert_eq!(after.growth(&before, "gone"), None);
    }
}
