//! The demo page that `causeway dev` serves: one file, no build step, nothing from outside.

use std::net::IpAddr;

use bytes::Bytes;

/// The page with a token in it.
#[derive(Debug)]
pub struct DemoPage {
    pub(crate) html: Bytes,
}

impl DemoPage {
    /// What the page may do: its own script and style, and this node's sockets.
    pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
        connect-src 'self' ws: wss:; img-src data:";

    /// Whether a request for this `Host` asks for the page by a name of this machine.
    pub(crate) fn is_for(host: &str) -> bool {
        let name =
            host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
        let addr = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name == "localhost" || addr.is_ok_and(|addr| addr.is_loopback())
    }

    /// The page, ready to connect with `token`.
    pub fn new(token: &str) -> Self {
        Self { html: include_str!("dev/page.html").replace("{{TOKEN}}", token).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_given_to_this_machine_only() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"] {
            assert!(DemoPage::is_for(host), "{host}");
        }
        for host in ["", "evil.test", "evil.test:8080", "localhost.evil.test", "10.0.0.1:80", "[::2]:80"] {
            assert!(!DemoPage::is_for(host), "{host}");
        }
    }
}
