//! Who may look and act on the admin listener (`/admin/…`). Probes, metrics and the empty page are open to all who
//! reach it.
//!
//! With a token in the configuration, whoever presents it may. No browser presents it by itself, so a foreign page
//! cannot. Without one, only a listener on loopback lets anybody act, and then no page of a browser on that machine but
//! its own: a page cannot leave out `Origin` where it acts or opens a WebSocket, nor `Sec-Fetch-Site` where it only asks,
//! and a name that was made to resolve to loopback shows in `Host`.

use std::borrow::Cow;
use std::hint::black_box;
use std::net::SocketAddr;

use actix_http::header::{self, HeaderMap};
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::Secret;
use crate::dev::DemoPage;
use crate::entrance::bearer;
use crate::handshake::subprotocols;
use crate::node::Node;
use crate::rejection::Rejection;

/// A browser can give a WebSocket no header but the list of subprotocols. Behind this prefix it holds the token, in
/// base64url: not every character of a token may stand in that list (RFC 6455 §4.1).
const BEARER_PREFIX: &str = "causeway.bearer64.";

/// What it takes to act.
#[derive(Clone, Debug)]
pub(crate) enum AdminAccess {
    /// This token.
    Token(Secret),
    /// Being on this machine, and no page.
    Loopback,
    /// Nobody may: the listener can be reached from elsewhere and there is no token.
    Closed,
}

impl AdminAccess {
    /// As the configuration means it for a listener at `addr`.
    pub(crate) fn new(token: Option<Secret>, addr: SocketAddr) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None if addr.ip().is_loopback() => Self::Loopback,
            None => Self::Closed,
        }
    }

    /// Whether a request with these headers may act.
    ///
    /// # Errors
    /// [`Rejection::AdminTokenNeeded`] or [`Rejection::AdminForbidden`].
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        match self {
            Self::Token(Secret(token)) => match presented(headers) {
                Some(presented) if is_equal(&presented, token.as_bytes()) => Ok(()),
                _ => Err(Rejection::AdminTokenNeeded),
            },
            Self::Loopback => check_no_foreign_page(headers),
            Self::Closed => Err(Rejection::AdminForbidden(
                "admin_listen is not a loopback address: set admin.token or admin.token_file to act here",
            )),
        }
    }
}

/// The token in a header, or among the subprotocols that a WebSocket offers.
fn presented(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    if let Some(token) = bearer(headers) {
        return Some(token.as_bytes().into());
    }
    let token = subprotocols(headers).find_map(|offered| offered.strip_prefix(BEARER_PREFIX))?;
    URL_SAFE_NO_PAD.decode(token).ok().map(Cow::from)
}

/// Refuses requests that pages of other origins could have made a browser send.
fn check_no_foreign_page(headers: &HeaderMap) -> Result<(), Rejection> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if !DemoPage::is_for(host) {
        return Err(Rejection::AdminForbidden("the Host is no name of this machine"));
    }
    let is_foreign =
        headers.contains_key(header::ORIGIN) && text(header::ORIGIN) != Some(&format!("http://{host}"));
    // `none` is a person who typed the address.
    let fetch_site = header::HeaderName::from_static("sec-fetch-site");
    let comes_from_elsewhere =
        headers.contains_key(&fetch_site) && !matches!(text(fetch_site), Some("same-origin" | "none"));
    if is_foreign || comes_from_elsewhere {
        Err(Rejection::AdminForbidden("a page of another origin may not act here"))
    } else {
        Ok(())
    }
}

/// Compares in a time that tells nothing of where two secrets of one length differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| black_box(differing | (a ^ b))) == 0
}

/// Stands in front of every route that acts.
pub(crate) async fn guard<B: MessageBody>(
    node: web::Data<Node>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    if let Err(rejection) = node.settings().admin_access.check(request.headers()) {
        node.tell_refused("admin", request.head(), &rejection);
        return Err(rejection.into());
    }
    next.call(request).await
}

#[cfg(test)]
mod tests {
    use actix_http::header::{HeaderName, HeaderValue};

    use super::*;

    fn status(access: &AdminAccess, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        access.check(&map).map_or_else(|rejection| rejection.status().as_u16(), |()| 200)
    }

    #[test]
    fn with_a_token_only_its_holder_may_act() {
        let access = AdminAccess::new(Some(Secret("0123".to_owned())), ([127, 0, 0, 1], 1).into());
        assert_eq!(status(&access, &[("authorization", "Bearer 0123")]), 200);
        for headers in [
            &[][..],
            &[("host", "127.0.0.1")],
            &[("authorization", "Bearer 0124")],
            &[("authorization", "Bearer 012")],
            &[("authorization", "Bearer 01234")],
            &[("authorization", "Bearer")],
            &[("authorization", "Basic 0123")],
        ] {
            assert_eq!(status(&access, headers), 401, "{headers:?}");
        }
    }

    #[test]
    fn a_websocket_presents_the_token_as_a_subprotocol() {
        let access = AdminAccess::new(Some(Secret("a/b=c d".to_owned())), ([10, 0, 0, 1], 1).into());
        for (offered, expected) in [
            ("causeway.feed.v1, causeway.bearer64.YS9iPWMgZA", 200),
            ("causeway.feed.v1, causeway.bearer64.YS9iPWMgZB", 401),
            ("causeway.feed.v1, causeway.bearer64.YS9iPWMg", 401),
            ("causeway.feed.v1, causeway.bearer64.?", 401),
            ("causeway.feed.v1, causeway.bearer64.", 401),
            ("causeway.feed.v1, causeway.bearer.a/b=c d", 401),
            ("causeway.feed.v1", 401),
        ] {
            assert_eq!(status(&access, &[("sec-websocket-protocol", offered)]), expected, "{offered}");
        }
    }

    #[test]
    fn without_a_token_loopback_may_act_and_no_page_of_another_origin() {
        let access = AdminAccess::new(None, ([127, 0, 0, 1], 1).into());
        assert_eq!(status(&access, &[("host", "127.0.0.1:9090")]), 200);
        assert_eq!(status(&access, &[("host", "localhost:9090"), ("origin", "http://localhost:9090")]), 200);
        for site in ["same-origin", "none"] {
            assert_eq!(status(&access, &[("host", "127.0.0.1:9090"), ("sec-fetch-site", site)]), 200);
        }
        for headers in [
            &[][..],
            &[("host", "evil.test:9090")],
            &[("host", "127.0.0.1:9090"), ("origin", "https://evil.test")],
            &[("host", "127.0.0.1:9090"), ("origin", "null")],
            &[("host", "127.0.0.1:9090"), ("origin", "http://127.0.0.1:8080")],
            &[("host", "127.0.0.1:9090"), ("sec-fetch-site", "cross-site")],
            // Another port of this machine is the same site.
            &[("host", "127.0.0.1:9090"), ("sec-fetch-site", "same-site")],
        ] {
            assert_eq!(status(&access, headers), 403, "{headers:?}");
        }
    }

    #[test]
    fn without_a_token_nobody_may_act_from_elsewhere() {
        for addr in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
            let access = AdminAccess::new(None, addr.parse().unwrap());
            assert_eq!(status(&access, &[("host", "127.0.0.1:1")]), 403, "{addr}");
        }
    }
}
