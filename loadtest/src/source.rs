//! The addresses that the load comes from.
//!
//! A hundred connections share one: with that, neither the gateway's limits per client address (200 connections
//! and a burst of 100 upgrades unless configured otherwise) nor the ports of one address are in the way.

use std::net::{IpAddr, Ipv4Addr};

const CONNECTIONS_PER_SOURCE: usize = 100;

/// The address that connection number `index` to `gateway` is bound to, where we may choose: every address in
/// 127.0.0.0/8 is this machine's own.
pub(crate) fn address(index: usize, gateway: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V4(gateway) = gateway else { return None };
    let source = index / CONNECTIONS_PER_SOURCE;
    let [high, low] = [source / 250 % 250, source % 250].map(|byte| byte as u8);
    gateway.is_loopback().then(|| Ipv4Addr::new(127, 77, high, 1 + low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_carries_more_than_a_hundred_of_19_000_connections() {
        let mut carried = std::collections::HashMap::<_, usize>::new();
        for index in 0..19_000 {
            *carried.entry(address(index, Ipv4Addr::LOCALHOST.into()).unwrap()).or_default() += 1;
        }
        assert!(carried.values().all(|&count| count <= CONNECTIONS_PER_SOURCE));
        assert!(carried.keys().all(Ipv4Addr::is_loopback));
    }

    #[test]
    fn towards_another_machine_the_kernel_chooses() {
        assert_eq!(address(0, Ipv4Addr::new(192, 0, 2, 1).into()), None);
    }
}
