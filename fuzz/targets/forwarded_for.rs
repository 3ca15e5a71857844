//! `X-Forwarded-For`: nothing that a client writes makes it someone else.
#![cfg_attr(fuzzing, no_main)]

use std::net::{IpAddr, Ipv4Addr};

use actix_http::header::{HeaderMap, HeaderName, HeaderValue};
use causeway_gateway::client_addr::{ClientAddr, PeerAddr, TrustedProxies};

const PROXY: PeerAddr = PeerAddr(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
const STRANGER: PeerAddr = PeerAddr(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)));

/// Each line of the input is the value of one header.
pub(crate) fn check(input: &[u8]) {
    let proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network"));
    let proxies = TrustedProxies::new(proxies.to_vec());
    let lines: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    let client_of = |peer, lines: &[&[u8]]| proxies.client_of(peer, &headers(lines));

    assert_eq!(client_of(STRANGER, &lines), addr(STRANGER), "a stranger is who its socket says");
    let by_proxy = client_of(PROXY, &lines);
    assert!(
        by_proxy == addr(PROXY) || lines.iter().any(|line| names(line, by_proxy)),
        "{by_proxy} was made up"
    );
    // What the proxy has appended itself decides, whatever the client had written to the left of it.
    let appended: &[&[u8]] = &[b"203.0.113.9"];
    assert_eq!(client_of(PROXY, &[&lines, appended].concat()), client_of(PROXY, appended));
    let joined =
        [input, b", 203.0.113.9"].concat().into_iter().map(|byte| if byte == b'\n' { b',' } else { byte });
    let joined: Vec<u8> = joined.collect();
    if HeaderValue::from_bytes(&joined).is_ok() {
        assert_eq!(client_of(PROXY, &[&joined]), client_of(PROXY, appended));
    }
}

fn headers(lines: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(HeaderName::from_static("x-forwarded-for"), value);
    }
    headers
}

/// The client that a peer of no headers is.
fn addr(peer: PeerAddr) -> ClientAddr {
    TrustedProxies::default().client_of(peer, &HeaderMap::new())
}

/// Whether `line` has a hop of this address, with or without a port or brackets.
fn names(line: &[u8], client: ClientAddr) -> bool {
    let text = String::from_utf8_lossy(line).into_owned();
    text.split(',').map(str::trim).any(|hop| {
        let bare = hop.strip_prefix('[').and_then(|hop| hop.split(']').next()).unwrap_or(hop);
        let without_port = bare.rsplit_once(':').map_or(bare, |(host, _)| host);
        [bare, without_port]
            .iter()
            .filter_map(|host| host.parse().ok())
            .any(|ip| addr(PeerAddr(ip)) == client)
    })
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| check(input));
