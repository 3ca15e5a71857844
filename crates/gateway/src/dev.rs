//! The demo page that `causeway dev` serves: one file, no build step, nothing from outside.

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

    /// The page, ready to connect with `token`.
    pub fn new(token: &str) -> Self {
        Self { html: include_str!("dev/page.html").replace("{{TOKEN}}", token).into() }
    }
}
