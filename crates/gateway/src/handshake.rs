//! The opening handshake (RFC 6455 §4.2): what an upgrade must look like, and its answer.
//!
//! Stricter than the library underneath, which lets HTTP/1.0, doubled keys and `Upgrade: notwebsocketx` pass:
//! one value for each header, tokens compared whole, no body.

use actix_http::header::{self, HeaderMap, HeaderName};
use actix_http::{Method, RequestHead, Version, ws};
use causeway_protocol::SUBPROTOCOL;
use causeway_protocol::frame::DeflateAgreement;

use crate::rejection::Rejection;

/// A client may carry its token in the list of subprotocols, behind this prefix: browsers offer no other place.
const BEARER_PREFIX: &str = "causeway.bearer.";

/// An upgrade that is well formed.
#[derive(Debug)]
pub(crate) struct Handshake {
    accept: [u8; 28],
    /// Whether the client asked for a subprotocol, and must be told which one it is.
    has_subprotocol: bool,
    /// What the client and we can agree on, if it offered compression.
    pub(crate) deflate: Option<DeflateAgreement>,
}

/// Checks the head of a request that is no upgrade to the HTTP machinery, for instance for lack of
/// `Connection: Upgrade`, and must not want to be one.
///
/// # Errors
/// [`Rejection::BadHandshake`].
pub(crate) fn check_absent(head: &RequestHead) -> Result<(), Rejection> {
    let headers = head.headers();
    if headers.contains_key(header::UPGRADE) || headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        return Err(Rejection::BadHandshake(
            "an upgrade needs Upgrade: websocket, Connection: Upgrade and no body",
        ));
    }
    Ok(())
}

/// The token among the offered subprotocols.
pub(crate) fn bearer_subprotocol(headers: &HeaderMap) -> Option<&str> {
    subprotocols(headers).find_map(|offered| offered.strip_prefix(BEARER_PREFIX))
}

impl Handshake {
    /// Checks the head of an upgrade.
    ///
    /// # Errors
    /// [`Rejection::BadHandshake`], [`Rejection::UnsupportedVersion`] or [`Rejection::UnknownSubprotocol`].
    pub(crate) fn check(head: &RequestHead) -> Result<Self, Rejection> {
        let headers = head.headers();
        if head.method != Method::GET {
            return Err(Rejection::BadHandshake("the method must be GET"));
        }
        if head.version != Version::HTTP_11 {
            return Err(Rejection::BadHandshake("the protocol must be HTTP/1.1"));
        }
        if !only(headers, &header::UPGRADE)?.eq_ignore_ascii_case("websocket") {
            return Err(Rejection::BadHandshake("Upgrade must be websocket"));
        }
        if !head.upgrade() {
            return Err(Rejection::BadHandshake("Connection must be Upgrade"));
        }
        if has_body(headers) {
            return Err(Rejection::BadHandshake("an upgrade has no body"));
        }
        if only(headers, &header::SEC_WEBSOCKET_VERSION)? != "13" {
            return Err(Rejection::UnsupportedVersion);
        }
        let key = only(headers, &header::SEC_WEBSOCKET_KEY)?;
        // The one check of the library that is exact: 24 characters of base64 that decode to 16 bytes.
        ws::verify_handshake(head)
            .map_err(|_| Rejection::BadHandshake("Sec-WebSocket-Key must be 16 bytes in base64"))?;
        Ok(Self {
            accept: ws::hash_key(key.as_bytes()),
            has_subprotocol: has_our_subprotocol(headers)?,
            deflate: deflate(headers)?,
        })
    }

    /// The `101` that completes it.
    pub(crate) fn response(&self) -> Vec<u8> {
        let mut response = b"HTTP/1.1 101 Switching Protocols\r\n\
            upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: "
            .to_vec();
        response.extend_from_slice(&self.accept);
        if self.has_subprotocol {
            response.extend_from_slice(b"\r\nsec-websocket-protocol: ");
            response.extend_from_slice(SUBPROTOCOL.as_bytes());
        }
        if let Some(agreement) = self.deflate {
            response.extend_from_slice(b"\r\nsec-websocket-extensions: ");
            response.extend_from_slice(agreement.response().as_bytes());
        }
        response.extend_from_slice(b"\r\n\r\n");
        response
    }
}

/// The value of a header that must be there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Rejection> {
    let mut values = headers.get_all(name);
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(value)), None) => Ok(value.trim()),
        _ => Err(Rejection::BadHandshake(
            "Upgrade, Sec-WebSocket-Key and Sec-WebSocket-Version are needed once each",
        )),
    }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).any(|length| length != "0")
}

/// Whether `causeway.v1` was offered; offering nothing is fine too, offering only others is not.
fn has_our_subprotocol(headers: &HeaderMap) -> Result<bool, Rejection> {
    let mut offered = subprotocols(headers).filter(|offered| !offered.starts_with(BEARER_PREFIX)).peekable();
    if offered.peek().is_none() {
        return Ok(false);
    }
    if offered.any(|offered| offered == SUBPROTOCOL) { Ok(true) } else { Err(Rejection::UnknownSubprotocol) }
}

/// What can be agreed on of what the client offers. Its list must be one even where nothing of it is wanted
/// (RFC 6455 §9.1).
fn deflate(headers: &HeaderMap) -> Result<Option<DeflateAgreement>, Rejection> {
    let malformed = Rejection::BadHandshake("Sec-WebSocket-Extensions must be a list of extensions");
    let offered = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    // What is not text is no list either.
    let offered = offered.map(|value| value.to_str().unwrap_or("\u{fffd}"));
    DeflateAgreement::reach(offered).map_err(|_| malformed)
}

/// What is offered, in its order.
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|offered| !offered.is_empty())
}

#[cfg(test)]
mod tests {
    use actix_http::test::TestRequest;
    use actix_http::{HttpMessage as _, Request};

    use super::*;

    fn upgrade(change: impl FnOnce(&mut TestRequest)) -> Request {
        let mut request = TestRequest::default();
        request
            .insert_header((header::UPGRADE, "websocket"))
            .insert_header((header::CONNECTION, "Upgrade"))
            .insert_header((header::SEC_WEBSOCKET_VERSION, "13"))
            .insert_header((header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="));
        change(&mut request);
        request.finish()
    }

    fn refusal(change: impl FnOnce(&mut TestRequest)) -> u16 {
        Handshake::check(upgrade(change).head()).map_or_else(|rejection| rejection.status().as_u16(), |_| 101)
    }

    #[test]
    fn the_example_of_the_rfc_is_answered() {
        // RFC 6455 §1.3.
        let request = upgrade(|request| {
            request.insert_header((header::SEC_WEBSOCKET_PROTOCOL, "causeway.bearer.a.b.c, causeway.v1"));
        });
        let response = Handshake::check(request.head()).unwrap().response();
        let response = String::from_utf8(response).unwrap();
        assert!(response.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
        assert!(response.contains("sec-websocket-protocol: causeway.v1\r\n"), "{response}");
        assert_eq!(bearer_subprotocol(request.headers()), Some("a.b.c"));
    }

    #[test]
    fn offers_of_compression_are_one_list_however_many_headers_they_come_in() {
        let request = upgrade(|request| {
            request
                .append_header((header::SEC_WEBSOCKET_EXTENSIONS, "foo, permessage-deflate; bar"))
                .append_header((
                    header::SEC_WEBSOCKET_EXTENSIONS,
                    "permessage-deflate; server_max_window_bits=\"10\"",
                ));
        });
        let response = String::from_utf8(Handshake::check(request.head()).unwrap().response()).unwrap();
        let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10";
        assert!(response.contains(&format!("sec-websocket-extensions: {agreed}\r\n")), "{response}");
        let request = upgrade(|_| ());
        let response = String::from_utf8(Handshake::check(request.head()).unwrap().response()).unwrap();
        assert!(!response.contains("extensions"), "{response}");
    }

    #[test]
    fn loose_upgrades_are_refused() {
        type Change = fn(&mut TestRequest);
        let cases: &[(u16, Change)] = &[
            (101, |_| ()),
            (101, |request| {
                request.insert_header((header::CONTENT_LENGTH, "0"));
            }),
            (101, |request| {
                request.insert_header((header::SEC_WEBSOCKET_PROTOCOL, "causeway.bearer.x"));
            }),
            (400, |request| {
                request.version(Version::HTTP_10);
            }),
            (400, |request| {
                request.method(Method::POST);
            }),
            (400, |request| {
                request.insert_header((header::UPGRADE, "notwebsocketx"));
            }),
            (400, |request| {
                request.append_header((header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="));
            }),
            (400, |request| {
                request.append_header((header::SEC_WEBSOCKET_VERSION, "8"));
            }),
            (400, |request| {
                request.insert_header((header::SEC_WEBSOCKET_KEY, "c2hvcnQ="));
            }),
            (400, |request| {
                request.insert_header((header::CONTENT_LENGTH, "5"));
            }),
            (400, |request| {
                request.insert_header((header::TRANSFER_ENCODING, "chunked"));
            }),
            (400, |request| {
                request.insert_header((header::SEC_WEBSOCKET_PROTOCOL, "graphql-ws"));
            }),
            (101, |request| {
                request.insert_header((
                    header::SEC_WEBSOCKET_EXTENSIONS,
                    "x-webkit-deflate-frame; a=\"b\", foo",
                ));
            }),
            (400, |request| {
                request.insert_header((header::SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate;"));
            }),
            (400, |request| {
                request.insert_header((header::SEC_WEBSOCKET_EXTENSIONS, "foo, =bar"));
            }),
            (426, |request| {
                request.insert_header((header::SEC_WEBSOCKET_VERSION, "8"));
            }),
        ];
        for (at, (expected, change)) in cases.iter().enumerate() {
            assert_eq!(refusal(change), *expected, "case {at}");
        }
    }
}
