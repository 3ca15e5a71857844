//! Who is asking: the peer that holds the socket, and the client it speaks for.
//!
//! Behind a proxy the two differ. A header is believed only as far as trusted proxies vouch for it: the walk
//! goes through `X-Forwarded-For` from the right and ends at the first address that is not a trusted proxy.
//! `Forwarded` and everything left of that address is whatever the client liked to write.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_http::header::HeaderMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who holds the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub IpAddr);

/// Whom limits apply to: an IPv4 address, or the /64 network of an IPv6 address, because whoever has one
/// address of a /64 has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientAddr(IpAddr);

/// The networks whose `X-Forwarded-For` is believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl From<SocketAddr> for PeerAddr {
    fn from(addr: SocketAddr) -> Self {
        Self(addr.ip().to_canonical())
    }
}

impl ClientAddr {
    fn of(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(addr) => Self(IpAddr::V4(addr)),
            IpAddr::V6(addr) => Self(IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64))),
        }
    }

    /// The client of this address, or of this /64, as it is shown.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let network = text.strip_suffix("/64");
        let addr = network.unwrap_or(text).parse::<IpAddr>().ok()?;
        (network.is_none() || addr.is_ipv6()).then(|| Self::of(addr))
    }

    /// The address, or the first of the network that stands for it.
    pub(crate) fn network(self) -> IpAddr {
        self.0
    }

    /// Stands for all addresses that cannot be told apart any more.
    pub(crate) const SHARED: Self = Self(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(addr) => addr.fmt(f),
            IpAddr::V6(addr) => write!(f, "{addr}/64"),
        }
    }
}

impl TryFrom<String> for ClientAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("address is `{text}`: expected an IP address, such as 203.0.113.7");
        Self::parse(&text).ok_or_else(wrong)
    }
}

impl From<ClientAddr> for String {
    fn from(addr: ClientAddr) -> Self {
        addr.to_string()
    }
}

impl TrustedProxies {
    /// The proxies of these networks are believed.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The client that `peer` speaks for, by its request's headers.
    pub fn client_of(&self, peer: PeerAddr, headers: &HeaderMap) -> ClientAddr {
        let mut addr = peer.0;
        let mut hops = forwarded_for(headers).into_iter().rev();
        while self.trusts(addr)
            && let Some(hop) = hops.next()
            && let Some(hop) = parse_hop(&hop)
        {
            addr = hop;
        }
        ClientAddr::of(addr)
    }

    fn trusts(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.0.iter().any(|network| network.contains(&addr))
    }
}

/// The hops of all `X-Forwarded-For` headers, in the order they were added.
fn forwarded_for(headers: &HeaderMap) -> Vec<String> {
    // A value that is not text counts as a hop that is no address, so that the walk ends there.
    let values = headers.get_all("x-forwarded-for").map(|value| String::from_utf8_lossy(value.as_bytes()));
    values.flat_map(|value| value.split(',').map(|hop| hop.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| hop.parse().ok().map(|addr: SocketAddr| addr.ip()))
}

#[cfg(test)]
mod tests {
    use actix_http::header::{HeaderName, HeaderValue};

    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded_for: &[&str]) -> String {
        let proxies = TrustedProxies::new(trusted.iter().map(|network| network.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for value in forwarded_for {
            let name = HeaderName::from_static("x-forwarded-for");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers.append(HeaderName::from_static("forwarded"), HeaderValue::from_static("for=6.6.6.6"));
        proxies.client_of(PeerAddr(peer.parse().unwrap()), &headers).to_string()
    }

    #[test]
    fn a_client_is_found_by_its_address_and_as_it_is_shown() {
        for (text, expected) in [
            ("1.2.3.4", Some("1.2.3.4")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("2001:db8:7:0:1::9", Some("2001:db8:7::/64")),
            ("2001:db8:7::/64", Some("2001:db8:7::/64")),
            ("1.2.3.4/64", None),
            ("2001:db8:7::/48", None),
            ("1.2.3.4:80", None),
            ("", None),
        ] {
            let client = ClientAddr::parse(text).map(|client| client.to_string());
            assert_eq!(client.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn nobody_is_believed_unless_trusted() {
        assert_eq!(client(&[], "1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
        assert_eq!(client(&["10.0.0.0/8"], "1.2.3.4", &["9.9.9.9"]), "1.2.3.4");
    }

    #[test]
    fn the_walk_ends_at_the_first_hop_that_is_not_a_proxy() {
        let trusted = ["10.0.0.0/8", "127.0.0.1/32"];
        for (forwarded_for, expected) in [
            (&["1.2.3.4"][..], "1.2.3.4"),
            (&["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            (&["6.6.6.6", "1.2.3.4, 10.1.1.1"], "1.2.3.4"),
            (&["10.9.9.9, 10.1.1.1"], "10.9.9.9"),
            (&["1.2.3.4:5678"], "1.2.3.4"),
            (&["6.6.6.6, spoof, 10.1.1.1"], "10.1.1.1"),
            (&["6.6.6.6", "\u{ff}, 10.1.1.1"], "10.1.1.1"),
            (&[""], "10.0.0.2"),
            (&[], "10.0.0.2"),
            (&["[2001:db8:1:2:3::4]:443"], "2001:db8:1:2::/64"),
        ] {
            assert_eq!(client(&trusted, "10.0.0.2", forwarded_for), expected, "{forwarded_for:?}");
        }
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        assert_eq!(client(&[], "2001:db8:1:2:ffff::1", &[]), client(&[], "2001:db8:1:2::2", &[]));
        assert_ne!(client(&[], "2001:db8:1:2::1", &[]), client(&[], "2001:db8:1:3::1", &[]));
        assert_eq!(client(&[], "::ffff:1.2.3.4", &[]), "1.2.3.4");
    }
}
