//! What every scenario can be told on the command line, and what it means.

use std::time::Duration;

use clap::Args;

use crate::address::GatewayAddress;
use crate::conductor::Shard;
use crate::crowd::Entrance;
use crate::pace::Pace;
use crate::publish::{Destination, RedisAddress, Via};
use crate::source::{SourceNet, Sources};
use crate::stamp::PAYLOAD_BYTES_MIN;
use crate::token::{TokenArgs, Tokens};

/// The gateway under test, and how to get there.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Where it listens, for example http://127.0.0.1:8080. Given several times, connections are spread over all.
    #[arg(long = "gateway", value_name = "ADDRESS", required = true)]
    pub(crate) gateways: Vec<GatewayAddress>,
    /// Its admin listener: adds what the node counted itself. Once for each node.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Vec<GatewayAddress>,
    /// Its process id, if it runs on this machine: adds what it costs. Once for each node.
    #[arg(long = "server-pid", value_name = "PID")]
    pub(crate) server_pids: Vec<u32>,
    #[command(flatten)]
    pub(crate) token: TokenArgs,
    /// Where connections come from: addresses or networks of this machine, in turn [default towards loopback:
    /// 127.77.0.0/16, a hundred connections to an address].
    #[arg(long = "source-ip", value_name = "ADDRESS|NETWORK", value_delimiter = ',')]
    pub(crate) sources: Vec<SourceNet>,
    /// How many connections may begin in a second [default: as many as the gateway takes, 64 at a time].
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub(crate) ramp: Option<f64>,
    /// Ask the kernel again and again instead of sleeping: takes a whole CPU, and no gateway on this machine pays for
    /// waking the load tester.
    #[arg(long)]
    pub(crate) busy_poll: bool,
    /// Offer permessage-deflate, inflate what comes and, over WebSocket, compress what is published. A gateway that does not
    /// agree is a failure.
    #[arg(long)]
    pub(crate) compress: bool,
    /// How many processes share the work.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,
    /// Which of those processes this is.
    #[arg(long, hide = true)]
    pub(crate) shard: Option<Shard>,
    /// The number that all processes of a run share.
    #[arg(long, hide = true)]
    pub(crate) run: Option<u64>,
}

/// What is published, and how.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The road that messages take.
    #[arg(long, value_enum, default_value_t = Via::Redis)]
    pub(crate) via: Via,
    /// The Redis that the gateway listens to: HOST:PORT or redis://USER:PASSWORD@HOST:PORT.
    #[arg(long, value_name = "ADDRESS", required_if_eq("via", "redis"))]
    pub(crate) redis: Option<RedisAddress>,
    /// The gateway's `redis.topic_prefix`.
    #[arg(long, default_value = "")]
    pub(crate) topic_prefix: String,
    /// Open loop: so many messages a second, whatever becomes of them. Latency is counted from when each was due.
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "in_flight", value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Closed loop: so many messages on their way at once; the next follows when one was heard by all.
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: Option<u32>,
    /// How many connections publish [default: 1 to Redis, 8 to gateways].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) publishers: Option<u32>,
    /// Payload of a message, at least 88 bytes.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(PAYLOAD_BYTES_MIN as i64..))]
    pub(crate) payload_bytes: u32,
    /// A message heard later than this is counted as late.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) late_after: Duration,
    /// When nobody has heard anything for so long, what is still on its way is given up: a node that has lost Redis takes
    /// some seconds until it can announce it.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) patience: Duration,
}

impl GatewayArgs {
    /// This process's place.
    pub(crate) fn shard(&self) -> Shard {
        self.shard.unwrap_or(Shard::WHOLE)
    }

    /// The way in for the members `first` and on of a crowd of `total`.
    pub(crate) fn entrance(
        &self,
        first: usize,
        total: usize,
        topic: impl Fn(usize) -> Option<String> + 'static,
    ) -> Entrance {
        Entrance {
            gateways: self.gateways.clone(),
            tokens: Tokens::new(&self.token),
            sources: Sources::new(&self.sources, total),
            first,
            stride: 0,
            topic: Box::new(topic),
            busy_poll: self.busy_poll,
            compress: self.compress,
        }
    }
}

impl PublishArgs {
    /// The pace of one process of `count`; `otherwise` is that of all together, where the command line names none.
    pub(crate) fn pace(&self, shard: Shard, otherwise: Pace) -> Pace {
        match (self.rate, self.in_flight) {
            (Some(rate), _) => Pace::open(rate),
            (None, Some(in_flight)) => Pace::Closed(in_flight as usize),
            (None, None) => otherwise,
        }
        .share(shard.count)
    }

    /// How many connections publish.
    pub(crate) fn links(&self) -> usize {
        let usual = if self.via == Via::Redis { 1 } else { 8 };
        self.publishers.unwrap_or(usual) as usize
    }

    /// Where they connect to.
    pub(crate) fn destination<'a>(
        &'a self,
        gateway: &'a GatewayArgs,
    ) -> Result<Destination<'a>, jsonwebtoken::errors::Error> {
        let token = Tokens::new(&gateway.token).publisher()?;
        let (via, redis) = (self.via, self.redis.as_ref());
        Ok(Destination { via, redis, gateways: &gateway.gateways, token, compress: gateway.compress })
    }

    /// What `topic` is called on the road that messages take.
    pub(crate) fn name(&self, topic: &str) -> String {
        match self.via {
            Via::Redis => format!("{}{topic}", self.topic_prefix),
            Via::Http | Via::Websocket => topic.to_owned(),
        }
    }
}

/// Reads a duration; a bare number is seconds.
pub(crate) fn duration(given: &str) -> Result<Duration, humantime::DurationError> {
    match given.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(given),
    }
}

/// Reads a number above zero.
pub(crate) fn positive(given: &str) -> Result<f64, String> {
    let number = given.replace('_', "").parse::<f64>().map_err(|error| error.to_string())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("must be above zero".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_or_are_seconds() {
        assert_eq!(duration("8"), Ok(Duration::from_secs(8)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err());
    }

    #[test]
    fn rates_are_above_zero() {
        assert_eq!(positive("250_000"), Ok(250_000.0));
        for wrong in ["0", "-1", "inf", "NaN", "fast"] {
            assert!(positive(wrong).is_err(), "{wrong}");
        }
    }
}
