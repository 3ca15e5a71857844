//! One client connection: its upgrade, then its frames.
//!
//! It owns its socket and keeps bytes only while something is incomplete: an answer to the upgrade, a frame cut
//! in two, a command the kernel has no room for. Reading happens in a [`Scratch`] that all connections share.
//!
//! It judges the gateway's speed, not its manners: that the upgrade is answered with the right
//! `Sec-WebSocket-Accept` is for other clients to check.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use causeway_protocol::SUBPROTOCOL;
use causeway_protocol::frame::{self, FrameLimits, FrameReader, Inflater, Message, Opcode, Role, Violation};
use mio::event::{Event, Source};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::address::GatewayAddress;
use crate::clock::Moment;
use crate::scratch::Scratch;

/// A gateway may configure longer messages than the protocol's default.
const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 16 * 1024 * 1024, fragments_max: 1024 };
/// The longest answer to an upgrade that is worth reading.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// RFC 7692 §7.
const DEFLATE: &str = "permessage-deflate";
/// RFC 6455 §5.3 wants keys that cannot be guessed, to protect what stands between; nothing does here.
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A socket and what is incomplete on it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// The answer to the upgrade as far as it has arrived; `None` once the connection speaks WebSocket.
    response: Option<Vec<u8>>,
    reader: FrameReader,
    unsent: Vec<u8>,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The upgrade was answered with something else.
    #[error("the upgrade was refused: {0}")]
    Refused(String),
    /// The upgrade went through without the permessage-deflate that was asked for.
    #[error("the gateway does not compress")]
    NotCompressing,
    /// The gateway closed, with this status code.
    #[error("the gateway closed it with {0:?}")]
    Closed(Option<u16>),
    /// The gateway hung up without a word.
    #[error("the gateway hung up")]
    HungUp,
    /// The gateway sent what is no WebSocket frame.
    #[error("the gateway broke the framing: {0}")]
    Violation(#[from] Violation),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
    /// The gateway did not answer the upgrade or the subscribe.
    #[error("the gateway did not answer")]
    TimedOut,
    /// We left.
    #[error("it was closed on purpose")]
    Left,
}

impl Connection {
    /// Begins connecting from `source` (or as the kernel chooses); the upgrade is sent as soon as the socket is
    /// connected. Its messages shall come compressed if `compress` says so.
    pub(crate) fn open(
        gateway: &GatewayAddress,
        source: Option<IpAddr>,
        token: Option<&str>,
        compress: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::from_std(connecting_socket(gateway.socket, source)?.into()),
            response: Some(Vec::new()),
            reader: FrameReader::new(Role::Client),
            unsent: upgrade_request(&gateway.host, token, compress).into_bytes(),
        })
    }

    /// Has `registry` report everything about the socket under `token`, for good.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Sends one text.
    pub(crate) fn send(&mut self, text: &str) -> Result<(), Ended> {
        self.send_frame(Opcode::Text, text.as_bytes())
    }

    /// Does what the socket is ready for, and hands every text that arrived to `heard`, with the moment it was read.
    pub(crate) fn ready(
        &mut self,
        event: &Event,
        scratch: &mut Scratch,
        mut heard: impl FnMut(&str, Moment),
    ) -> Result<(), Ended> {
        if event.is_writable() && !self.unsent.is_empty() {
            self.flush()?;
        }
        while event.is_readable() {
            let read_len = match self.stream.read(&mut scratch.buffer) {
                Ok(0) => return Err(Ended::HungUp),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let now = Moment::now();
            self.take(read_len, scratch, &mut |text| heard(text, now))?;
            // A short read has emptied the socket (epoll(7)), unless the peer's FIN came with it.
            if read_len < scratch.buffer.len() && !event.is_read_closed() {
                break;
            }
        }
        Ok(())
    }

    /// Takes the first `read_len` bytes of the buffer.
    fn take(
        &mut self,
        read_len: usize,
        scratch: &mut Scratch,
        heard: &mut impl FnMut(&str),
    ) -> Result<(), Ended> {
        let Scratch { buffer, compress, inflater, wire_bytes, .. } = scratch;
        let bytes = &mut buffer[..read_len];
        *wire_bytes += read_len as u64;
        let Some(response) = &mut self.response else { return self.take_frames(bytes, inflater, heard) };
        response.extend_from_slice(bytes);
        let Some(mut frames) = frames_behind(response)? else { return Ok(()) };
        if *compress {
            agreed_on_deflate(response)?;
            self.reader = FrameReader::new(Role::Client).with_deflate();
        }
        self.response = None;
        self.take_frames(&mut frames, inflater, heard)
    }

    fn take_frames(
        &mut self,
        mut bytes: &mut [u8],
        inflater: &mut Inflater,
        heard: &mut impl FnMut(&str),
    ) -> Result<(), Ended> {
        while let Some(received) = self.reader.next(&mut bytes, &LIMITS)? {
            match self.reader.inflate(received, inflater, &LIMITS)? {
                Message::Text(text) => heard(&text),
                Message::Ping(payload) => self.send_frame(Opcode::Pong, &payload)?,
                Message::Close(code) => return Err(Ended::Closed(code)),
                Message::Binary(_) | Message::Pong(_) => {}
            }
        }
        Ok(())
    }

    fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Ended> {
        self.unsent.extend(frame::masked(opcode, payload, MASK));
        self.flush()
    }

    /// Says goodbye; dropping the connection then ends it.
    pub(crate) fn close(&mut self) {
        // The gateway notices the end of the socket in any case.
        let _ = self.send_frame(Opcode::Close, &1000_u16.to_be_bytes());
    }

    /// Writes until nothing is left or the kernel has no room; then the socket's next event goes on with it.
    fn flush(&mut self) -> Result<(), Ended> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }
}

fn connecting_socket(gateway: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(gateway), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&gateway.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(socket),
    }
}

pub(crate) fn upgrade_request(host: &str, token: Option<&str>, compress: bool) -> String {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let extensions =
        if compress { format!("Sec-WebSocket-Extensions: {DEFLATE}\r\n") } else { String::new() };
    format!(
        "GET /v1/connect HTTP/1.1\r\n\
         Host: {host}\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: Y2F1c2V3YXktbG9hZHRlcw==\r\n\
         Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
         {extensions}{authorization}\r\n"
    )
}

/// The bytes that arrived behind the response's head, which may be frames already; `None` until the head is whole.
pub(crate) fn frames_behind(response: &[u8]) -> Result<Option<Vec<u8>>, Ended> {
    let is_switching = response.starts_with(b"HTTP/1.1 101 ");
    let head_end = response.windows(4).position(|window| window == b"\r\n\r\n");
    match head_end {
        Some(end) if is_switching => Ok(Some(response[end + 4..].to_vec())),
        Some(end) => Err(Ended::Refused(refusal(response, end + 4))),
        None if response.len() > RESPONSE_BYTES_MAX => Err(Ended::Refused("an endless response".to_owned())),
        None => Ok(None),
    }
}

/// Whether the answer to an upgrade, now that it is whole, selects permessage-deflate. Nothing else was offered.
pub(crate) fn agreed_on_deflate(response: &[u8]) -> Result<(), Ended> {
    let response = String::from_utf8_lossy(response);
    let mut head =
        response.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let is_agreed = head.any(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-extensions") && value.trim_start().starts_with(DEFLATE)
    });
    if is_agreed { Ok(()) } else { Err(Ended::NotCompressing) }
}

/// The status line, and what has arrived of the body.
fn refusal(response: &[u8], body: usize) -> String {
    let response = String::from_utf8_lossy(response);
    let status = response.lines().next().unwrap_or_default();
    format!("{status} {}", response.get(body..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_may_arrive_right_behind_the_upgrade() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        for cut in 0..head.len() {
            assert!(frames_behind(&head[..cut]).unwrap().is_none(), "{cut} bytes");
        }
        let with_frame = [&head[..], &[0x81, 1, b'a']].concat();
        assert_eq!(frames_behind(&with_frame).unwrap().unwrap(), [0x81, 1, b'a']);
    }

    #[test]
    fn a_refusal_quotes_the_gateways_reason() {
        let response =
            b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 25\r\n\r\n{\"code\":\"unauthenticated\"}";
        let Err(Ended::Refused(reason)) = frames_behind(response) else { panic!("not refused") };
        assert_eq!(reason, "HTTP/1.1 401 Unauthorized {\"code\":\"unauthenticated\"}");
    }

    #[test]
    fn compression_is_agreed_on_or_refused() {
        let answer = |extension: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{extension}\r\nframes");
        let agreed = answer("sec-websocket-extensions: permessage-deflate; server_no_context_takeover\r\n");
        assert!(agreed_on_deflate(agreed.as_bytes()).is_ok());
        for other in ["", "upgrade: permessage-deflate\r\n", "sec-websocket-extensions:\r\n"] {
            assert!(agreed_on_deflate(answer(other).as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn a_quiet_connection_costs_little() {
        assert!(size_of::<Connection>() <= 80, "{}", size_of::<Connection>());
    }
}
