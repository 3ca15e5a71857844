//! The addresses that the load comes from.
//!
//! Towards loopback, unless told otherwise, a hundred connections share one: with that, neither the gateway's limits
//! per client address (200 connections and a burst of 100 upgrades unless configured otherwise) nor the ports of one
//! address are in the way.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;

const CONNECTIONS_PER_SOURCE: usize = 100;

/// An address of ours, or a network of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceNet(IpNet);

/// Where connections come from.
#[derive(Debug)]
pub(crate) enum Sources {
    /// Out of 127.77.0.0/16 towards loopback, and what the kernel chooses towards anything else.
    Automatic,
    /// These in turn.
    Given(Vec<IpAddr>),
}

/// Why sources cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/24")]
pub(crate) struct SourceError(String);

impl FromStr for SourceNet {
    type Err = SourceError;

    fn from_str(given: &str) -> Result<Self, SourceError> {
        let net = given.parse().or_else(|_| given.parse::<IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_| SourceError(given.to_owned()))
    }
}

impl Sources {
    /// As the command line says. Of a network only as many addresses are used as there are connections for.
    pub(crate) fn new(given: &[SourceNet], connections: usize) -> Self {
        match given {
            [] => Self::Automatic,
            _ => Self::Given(given.iter().flat_map(|net| net.0.hosts().take(connections.max(1))).collect()),
        }
    }

    /// The address that connection number `index` to `gateway` is bound to; `None` where the kernel chooses.
    pub(crate) fn address(&self, index: usize, gateway: IpAddr) -> Option<IpAddr> {
        match self {
            Self::Given(addresses) => Some(addresses[index % addresses.len()]),
            Self::Automatic => {
                let source = index / CONNECTIONS_PER_SOURCE;
                let [high, low] = [source / 250 % 250, source % 250].map(|byte| byte as u8);
                let is_ours = gateway.is_ipv4() && gateway.is_loopback();
                is_ours.then(|| Ipv4Addr::new(127, 77, high, 1 + low).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn no_address_carries_more_than_a_hundred_of_19_000_connections() {
        let mut carried = std::collections::HashMap::<_, usize>::new();
        for index in 0..19_000 {
            *carried.entry(Sources::Automatic.address(index, LOOPBACK).unwrap()).or_default() += 1;
        }
        assert!(carried.values().all(|&count| count <= CONNECTIONS_PER_SOURCE));
        assert!(carried.keys().all(IpAddr::is_loopback));
    }

    #[test]
    fn towards_another_machine_the_kernel_chooses() {
        assert_eq!(Sources::Automatic.address(0, Ipv4Addr::new(192, 0, 2, 1).into()), None);
    }

    #[test]
    fn given_addresses_and_networks_take_turns() {
        let given = ["127.1.0.9", "127.2.0.0/30"].map(|net| net.parse().unwrap());
        let sources = Sources::new(&given, 10);
        let used = [0, 1, 2, 3].map(|index| sources.address(index, LOOPBACK).unwrap().to_string());
        assert_eq!(used, ["127.1.0.9", "127.2.0.1", "127.2.0.2", "127.1.0.9"]);
        assert!("127.1.0".parse::<SourceNet>().is_err());
        let Sources::Given(few) = Sources::new(&["10.0.0.0/8".parse().unwrap()], 3) else { panic!() };
        assert_eq!(few.len(), 3);
    }
}
