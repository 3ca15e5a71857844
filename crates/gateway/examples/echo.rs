//! An echo service for the Autobahn test suite: the gateway's own frames over blocking sockets, a thread for each
//! connection, with room for the suite's largest messages.
//!
//! `echo ADDRESS` prints the address it listens on. It is for tests: it checks nothing but frames.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use actix_http::ws::hash_key;
use bytes::Bytes;
use causeway_protocol::frame::{
    self, DeflateAgreement, Deflater, FrameBuilder, FrameLimits, FrameReader, Inflater, Message, Opcode, Role,
};

/// Cases 9.3.1 and 9.4.1 send one message in 65,536 fragments and an empty one; the longest messages have 16 MiB.
const LIMITS: FrameLimits = FrameLimits { message_bytes_max: 16 << 20, fragments_max: 65_537 };
/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that fails is the client's affair; the suite notices.
        thread::spawn(move || serve(&stream));
    }
    Ok(())
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // What comes behind the request's head stays in this reader: it is the first frames.
    let mut from_client = BufReader::new(stream);
    let head = read_head(&mut from_client)?;
    if let Some(key) = head.key {
        let agreed = DeflateAgreement::reach(head.extensions.iter().map(String::as_str));
        let agreed = agreed.map_err(io::Error::other)?;
        let accept = hash_key(key.as_bytes());
        let mut to_client = stream;
        to_client.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
        )?;
        if let Some(agreement) = agreed {
            write!(to_client, "sec-websocket-extensions: {}\r\n", agreement.response())?;
        }
        to_client.write_all(&[b"sec-websocket-accept: ", &accept[..], b"\r\n\r\n"].concat())?;
        echo(&mut from_client, &mut to_client, agreed)?;
    }
    stream.shutdown(Shutdown::Write)?;
    // To close a socket with unread bytes resets it, and a reset may overtake the close frame.
    io::copy(&mut from_client, &mut io::sink()).map(drop)
}

/// What matters of a request: its `Sec-WebSocket-Key`, if it has one, and what it offers.
#[derive(Default)]
struct Head {
    key: Option<String>,
    extensions: Vec<String>,
}

fn read_head(from_client: &mut impl BufRead) -> io::Result<Head> {
    let mut head = Head::default();
    for line in from_client.lines() {
        let line = line?;
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-key") => {
                head.key = Some(value.trim().to_owned());
            }
            Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-extensions") => {
                head.extensions.push(value.trim().to_owned());
            }
            None if line.is_empty() => break,
            _ => {}
        }
    }
    Ok(head)
}

/// Answers until one side closes.
fn echo(
    from_client: &mut impl Read,
    to_client: &mut impl Write,
    agreed: Option<DeflateAgreement>,
) -> io::Result<()> {
    let mut reader = FrameReader::new(Role::Server);
    if agreed.is_some() {
        reader = reader.with_deflate();
    }
    let (mut inflater, mut deflater) = (Inflater::default(), Deflater::default());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let received = from_client.read(&mut buffer)?;
        if received == 0 {
            return Ok(());
        }
        let mut bytes = &mut buffer[..received];
        loop {
            let outcome = match reader.next(&mut bytes, &LIMITS) {
                Ok(None) => break,
                Ok(Some(received)) => reader.inflate(received, &mut inflater, &LIMITS),
                Err(violation) => Err(violation),
            };
            match outcome {
                Ok(Message::Close(code)) => return to_client.write_all(&frame::close_echo(code)),
                Ok(message) => {
                    let plain = answer(&message);
                    let is_data = matches!(message, Message::Text(_) | Message::Binary(_));
                    let may_deflate =
                        is_data && agreed.is_some_and(|agreed| plain.len() <= agreed.message_bytes_max());
                    let deflated = may_deflate.then(|| deflater.compress(&plain)).flatten();
                    to_client.write_all(&deflated.unwrap_or(plain))?;
                }
                Err(violation) => return to_client.write_all(&frame::close(violation.close_code())),
            }
        }
    }
}

fn answer(message: &Message<'_>) -> Bytes {
    let whole = |opcode, payload: &[u8]| {
        let mut frame = FrameBuilder::new(payload.len());
        frame.put(payload);
        frame.finish(opcode)
    };
    match message {
        Message::Text(text) => whole(Opcode::Text, text.as_bytes()),
        Message::Binary(bytes) => whole(Opcode::Binary, bytes),
        Message::Ping(payload) => frame::pong(payload),
        Message::Pong(_) | Message::Close(_) => Bytes::new(),
    }
}
