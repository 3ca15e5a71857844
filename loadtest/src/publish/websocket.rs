//! Publishing as a client does: the command `publish`.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use causeway_protocol::frame::{
    Deflater, FrameBuilder, FrameLimits, FrameReader, Message, Opcode, Received, Role, mask_whole, masked,
};

use super::{Dialect, dial};
use crate::address::GatewayAddress;
use crate::connection::{MASK, agreed_on_deflate, frames_behind, upgrade_request};

/// How many commands may be unanswered: a gateway limits them to a few dozen a second.
const WINDOW: usize = 16;

/// One connection's state.
pub(super) struct WebSocket {
    /// It takes nothing compressed: a gateway leaves its replies plain.
    reader: FrameReader,
    next_id: u64,
    deflater: Option<Deflater>,
}

/// Connects and upgrades, to send compressed messages if `compress` says so.
pub(super) fn connect(
    gateway: &GatewayAddress,
    token: Option<&str>,
    compress: bool,
) -> io::Result<(TcpStream, WebSocket)> {
    let mut stream = dial(gateway.socket)?;
    stream.write_all(upgrade_request(&gateway.host, token, compress).as_bytes())?;
    let (mut response, mut byte) = (Vec::new(), [0]);
    // Byte by byte, so that no frame is taken along.
    while frames_behind(&response).map_err(io::Error::other)?.is_none() {
        stream.read_exact(&mut byte)?;
        response.push(byte[0]);
    }
    if compress {
        agreed_on_deflate(&response).map_err(io::Error::other)?;
    }
    Ok((stream, WebSocket::new(compress)))
}

impl WebSocket {
    fn new(compress: bool) -> Self {
        let deflater = compress.then(Deflater::default);
        Self { reader: FrameReader::new(Role::Client), next_id: 1, deflater }
    }
}

impl Dialect for WebSocket {
    fn window(&self) -> usize {
        WINDOW
    }

    fn request(&mut self, topic: &str, payload: &str, out: &mut Vec<u8>) {
        let id = self.next_id;
        self.next_id += 1;
        let command = format!(r#"{{"id":{id},"op":"publish","topic":"{topic}","data":{payload}}}"#);
        let mut plain = FrameBuilder::new(command.len());
        plain.put(command.as_bytes());
        let plain = plain.finish(Opcode::Text);
        let deflated = self.deflater.as_mut().and_then(|deflater| deflater.compress(&plain));
        out.extend(mask_whole(&deflated.unwrap_or(plain), MASK));
    }

    fn answers(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, String> {
        let (mut bytes, mut answers) = (&mut input[..], 0);
        let limits = FrameLimits::default();
        while let Some(Received::Plain(message)) =
            self.reader.next(&mut bytes, &limits).map_err(|violation| violation.to_string())?
        {
            match message {
                Message::Text(text) if text.starts_with(r#"{"op":"published""#) => answers += 1,
                Message::Text(text) if text.starts_with(r#"{"op":"error""#) => return Err(text.into_owned()),
                Message::Ping(payload) => out.extend(masked(Opcode::Pong, &payload, MASK)),
                Message::Close(code) => return Err(format!("a publisher was closed with {code:?}")),
                _ => {}
            }
        }
        input.clear();
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use causeway_protocol::frame::Inflater;
    use causeway_protocol::{CloseCode, Command, CommandId, ErrorCode, Push, Reply, frame};

    use super::*;

    fn websocket() -> WebSocket {
        WebSocket::new(false)
    }

    #[test]
    fn a_message_is_one_command() {
        let mut out = Vec::new();
        websocket().request("a.b", r#"{"x":1}"#, &mut out);
        let mut reader = FrameReader::new(Role::Server);
        let Ok(Some(Received::Plain(Message::Text(text)))) =
            reader.next(&mut &mut out[..], &FrameLimits::default())
        else {
            panic!("not a text frame")
        };
        let (id, command) = Command::parse(&text).unwrap();
        assert_eq!(id, CommandId::Number(1));
        assert!(matches!(command, Command::Publish { data: r#"{"x":1}"#, .. }));
    }

    #[test]
    fn a_message_goes_compressed_where_that_was_agreed_on_and_worth_it() {
        let sent = |payload: &str| {
            let mut out = Vec::new();
            WebSocket::new(true).request("a.b", payload, &mut out);
            out
        };
        let long = format!(r#""{}""#, "again and ".repeat(20));
        let mut reader = FrameReader::new(Role::Server).with_deflate();
        let mut bytes = sent(&long);
        assert!(bytes.len() < long.len());
        let received = reader.next(&mut &mut bytes[..], &FrameLimits::default()).unwrap().unwrap();
        let message = reader.inflate(received, &mut Inflater::default(), &FrameLimits::default());
        let Ok(Message::Text(text)) = message else { panic!("not a text message") };
        assert!(matches!(Command::parse(&text).unwrap().1, Command::Publish { data, .. } if data == long));
        assert_eq!(sent("1")[0], 0x81, "plain");
    }

    #[test]
    fn only_published_is_an_answer_and_pings_are_answered() {
        let welcome = Push::Welcome { session: "s", node: "n", ping_interval_ms: 1, expires_in_ms: 2 };
        let published = Reply::Published { id: &CommandId::Number(1) };
        let (mut input, mut out) = ([welcome.frame(), frame::ping(), published.frame()].concat(), Vec::new());
        assert_eq!(websocket().answers(&mut input, &mut out), Ok(1));
        assert_eq!(out, masked(Opcode::Pong, b"", MASK));
    }

    #[test]
    fn a_refusal_and_a_close_are_errors() {
        let error =
            Reply::Error { id: None, code: ErrorCode::Forbidden, message: "not yours", retryable: false };
        let close = frame::close(CloseCode::TooManyCommands);
        for (frame, said) in [(error.frame(), "not yours"), (close, "4429")] {
            let error = websocket().answers(&mut frame.to_vec(), &mut Vec::new()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
