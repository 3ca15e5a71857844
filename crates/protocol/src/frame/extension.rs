//! Agreeing on permessage-deflate in the opening handshake (RFC 6455 §9.1, RFC 7692 §7.1).
//!
//! The server always answers with `server_no_context_takeover`, because it sends all clients the same bytes, and with
//! `client_no_context_takeover`, which every client must support (RFC 7692 §7.1.1.2): otherwise each connection would
//! need a window of its own.

use std::borrow::Cow;

use super::deflate::WINDOW_BITS;

const NAME: &str = "permessage-deflate";
/// What an offer may be qualified by, each at most once.
const PARAMETERS: [&str; 4] = [
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
];

/// permessage-deflate as it was agreed on with one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateAgreement {
    /// The largest window that the client inflates with, where it said so, as a power of two.
    server_window_bits: Option<u8>,
}

/// A `Sec-WebSocket-Extensions` that is no list of extensions: the handshake must fail (RFC 6455 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Extensions is no list of extensions with parameters")]
pub struct MalformedExtensions;

impl DeflateAgreement {
    /// The first offer among those of a `Sec-WebSocket-Extensions` that a server can accept; several such headers count
    /// as one list. Other extensions are passed over, and so are offers with a parameter that is unknown, there twice
    /// or not what it may be (RFC 7692 §7.1).
    ///
    /// # Errors
    /// [`MalformedExtensions`], also where a good offer came before the fault.
    pub fn reach<'h>(
        headers: impl IntoIterator<Item = &'h str>,
    ) -> Result<Option<Self>, MalformedExtensions> {
        let mut agreed = None;
        for header in headers {
            let mut list = Scanner(header);
            loop {
                // RFC 7230 §7: elements of a list may be empty.
                while list.takes(b',') {}
                if list.0.is_empty() {
                    break;
                }
                agreed = agreed.or(list.extension()?);
                if !list.0.is_empty() && !list.takes(b',') {
                    return Err(MalformedExtensions);
                }
            }
        }
        Ok(agreed)
    }

    /// What the server answers in its own `Sec-WebSocket-Extensions`.
    pub fn response(self) -> String {
        let mut response = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_window_bits {
            response.push_str(&format!("; server_max_window_bits={}", bits.min(WINDOW_BITS)));
        }
        response
    }

    /// The longest message that may be sent compressed to this client, in bytes before. Nothing in a message refers
    /// farther back than the message is long, so short ones suit the smallest window.
    pub fn message_bytes_max(self) -> usize {
        match self.server_window_bits {
            Some(bits) if bits < WINDOW_BITS => 1 << bits,
            _ => usize::MAX,
        }
    }
}

/// An offer while its parameters are read.
#[derive(Clone, Copy, Default)]
struct Offer {
    /// One bit for each of [`PARAMETERS`].
    seen: u8,
    server_window_bits: Option<u8>,
}

impl Offer {
    /// With one more parameter; `None` where that makes it unacceptable.
    fn with(mut self, name: &str, value: Option<&str>) -> Option<Self> {
        let at = PARAMETERS.iter().position(|known| *known == name)?;
        if self.seen & 1 << at != 0 {
            return None;
        }
        self.seen |= 1 << at;
        match (name, value) {
            ("server_max_window_bits", value) => self.server_window_bits = Some(window_bits(value?)?),
            ("client_max_window_bits", Some(value)) => {
                window_bits(value)?;
            }
            (_, Some(_)) => return None,
            (_, None) => {}
        }
        Some(self)
    }
}

/// 8 to 15, without a leading zero (RFC 7692 §7.1.2.1).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits: &u8| (8..=15).contains(bits))?;
    (value == bits.to_string()).then_some(bits)
}

/// What is left of a header.
struct Scanner<'h>(&'h str);

impl<'h> Scanner<'h> {
    /// One extension with its parameters, and what can be agreed on if it is ours.
    fn extension(&mut self) -> Result<Option<DeflateAgreement>, MalformedExtensions> {
        let mut offer = (self.token()? == NAME).then(Offer::default);
        while self.takes(b';') {
            let name = self.token()?;
            let value = if self.takes(b'=') { Some(self.value()?) } else { None };
            offer = offer.and_then(|offer| offer.with(name, value.as_deref()));
        }
        Ok(offer.map(|offer| DeflateAgreement { server_window_bits: offer.server_window_bits }))
    }

    /// Whether `separator` comes next, which is then passed, and white space around it.
    fn takes(&mut self, separator: u8) -> bool {
        self.skip_space();
        let is_next = self.0.as_bytes().first() == Some(&separator);
        if is_next {
            self.0 = &self.0[1..];
            self.skip_space();
        }
        is_next
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn token(&mut self) -> Result<&'h str, MalformedExtensions> {
        let end = self.0.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(MalformedExtensions) } else { Ok(token) }
    }

    /// A token, quoted or not; unquoted it must be one too (RFC 6455 §9.1).
    fn value(&mut self) -> Result<Cow<'h, str>, MalformedExtensions> {
        if !self.0.starts_with('"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = String::new();
        let mut rest = self.0[1..].chars();
        loop {
            match rest.next().ok_or(MalformedExtensions)? {
                '"' => break,
                '\\' => value.push(rest.next().ok_or(MalformedExtensions)?),
                other => value.push(other),
            }
        }
        self.0 = rest.as_str();
        let is_token = !value.is_empty() && value.bytes().all(is_token_byte);
        if is_token { Ok(Cow::Owned(value)) } else { Err(MalformedExtensions) }
    }
}

/// RFC 7230 §3.2.6.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is answered to a header.
    fn answer(header: &str) -> String {
        match DeflateAgreement::reach([header]) {
            Ok(Some(agreement)) => agreement.response(),
            Ok(None) => "declined".to_owned(),
            Err(MalformedExtensions) => "malformed".to_owned(),
        }
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn what_browsers_and_libraries_offer_is_accepted() {
        for (offered, bits) in [
            // Firefox, Safari.
            ("permessage-deflate", None),
            // Chromium, npm's ws.
            ("permessage-deflate; client_max_window_bits", None),
            // Python's websockets, by its version and settings.
            ("permessage-deflate; server_max_window_bits=12; client_max_window_bits=12", Some(12)),
            ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", None),
            ("permessage-deflate;server_max_window_bits=15", Some(12)),
            ("permessage-deflate; server_max_window_bits=8", Some(8)),
        ] {
            let bits = bits.map(|bits| format!("; server_max_window_bits={bits}")).unwrap_or_default();
            assert_eq!(answer(offered), format!("{PLAIN}{bits}"), "{offered}");
        }
    }

    #[test]
    fn an_offer_that_is_not_what_it_may_be_is_declined() {
        for offered in [
            "",
            "x-webkit-deflate-frame",
            "Permessage-Deflate",
            "permessage-deflate; x",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=\"true\"",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        ] {
            assert_eq!(answer(offered), "declined", "{offered}");
        }
    }

    #[test]
    fn the_first_offer_that_can_be_accepted_is() {
        let offers = "foo; a=\"b\", permessage-deflate; x=1, permessage-deflate; server_max_window_bits=10, permessage-deflate";
        assert_eq!(answer(offers), format!("{PLAIN}; server_max_window_bits=10"));
        let headers = ["permessage-deflate; x", "", " , permessage-deflate"];
        assert_eq!(DeflateAgreement::reach(headers).unwrap().unwrap().response(), PLAIN);
    }

    #[test]
    fn values_may_be_quoted_and_space_may_stand_around_them() {
        for offered in [
            "permessage-deflate;server_max_window_bits=\"10\"",
            "permessage-deflate ;\tserver_max_window_bits = \"1\\0\" ,",
        ] {
            assert_eq!(answer(offered), format!("{PLAIN}; server_max_window_bits=10"), "{offered}");
        }
    }

    #[test]
    fn what_is_no_list_of_extensions_fails_the_handshake() {
        for header in [
            ";",
            "=",
            "permessage-deflate;",
            "permessage-deflate; =10",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=\"1 0\"",
            "permessage-deflate; server_max_window_bits=\"10\\",
            "permessage-deflate x",
            "permessage-deflate, @",
            "permessage-deflate; a=b=c",
            "\"permessage-deflate\"",
            "permessage-deflate; \u{e9}",
        ] {
            assert_eq!(answer(header), "malformed", "{header}");
        }
    }

    #[test]
    fn a_small_window_is_sent_short_messages_compressed() {
        let longest = |offered| DeflateAgreement::reach([offered]).unwrap().unwrap().message_bytes_max();
        assert_eq!(longest("permessage-deflate; server_max_window_bits=9"), 512);
        assert_eq!(longest("permessage-deflate; server_max_window_bits=12"), usize::MAX);
        assert_eq!(longest("permessage-deflate"), usize::MAX);
    }

    proptest! {
        #[test]
        fn any_header_at_all_is_survived(header in "(permessage-deflate|[;=,\" \\\\a-c0-9é]|_bits){0,20}") {
            let _ = answer(&header);
        }
    }
}
