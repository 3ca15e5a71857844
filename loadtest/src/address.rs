//! Where the gateway under test listens.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A resolved gateway address and the name it was called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayAddress {
    /// Where to connect.
    pub(crate) socket: SocketAddr,
    /// The `Host` header: as the address was given.
    pub(crate) host: String,
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    /// TLS would measure the TLS library on both sides.
    #[error("only ws:// and http:// addresses can be measured, not {0}")]
    Scheme(String),
    /// The name does not resolve, or there is no port number behind the colon.
    #[error("{0} is not an address: {1}")]
    Unresolved(String, std::io::Error),
}

impl FromStr for GatewayAddress {
    type Err = AddressError;

    /// Reads `http://HOST:PORT` (as `causeway serve` prints it), `ws://HOST:PORT` or `HOST:PORT`; the port is 80
    /// where there is none, and a path is ignored.
    fn from_str(given: &str) -> Result<Self, AddressError> {
        let rest = match given.split_once("://") {
            Some(("http" | "ws", rest)) => rest,
            Some(_) => return Err(AddressError::Scheme(given.to_owned())),
            None => given,
        };
        let host = rest.split('/').next().unwrap_or_default();
        let has_port =
            host.rsplit_once(':').is_some_and(|(name, _)| !name.is_empty() && !host.ends_with(']'));
        let name = if has_port { host.to_owned() } else { format!("{host}:80") };
        let unresolved = |error| AddressError::Unresolved(given.to_owned(), error);
        let socket = name.to_socket_addrs().map_err(unresolved)?.next();
        let socket = socket.ok_or_else(|| unresolved(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self { socket, host: host.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_url_or_a_host_and_port() {
        for (given, socket, host) in [
            ("http://127.0.0.5:8080", "127.0.0.5:8080", "127.0.0.5:8080"),
            ("ws://127.0.0.5:8080/v1/connect", "127.0.0.5:8080", "127.0.0.5:8080"),
            ("127.0.0.5", "127.0.0.5:80", "127.0.0.5"),
            ("[::1]", "[::1]:80", "[::1]"),
            ("[::1]:9", "[::1]:9", "[::1]:9"),
        ] {
            let expected = GatewayAddress { socket: socket.parse().unwrap(), host: host.to_owned() };
            assert_eq!(given.parse::<GatewayAddress>().unwrap(), expected, "{given}");
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for given in ["wss://127.0.0.5", "ftp://127.0.0.5", "127.0.0.5:port", ""] {
            assert!(given.parse::<GatewayAddress>().is_err(), "{given}");
        }
    }
}
