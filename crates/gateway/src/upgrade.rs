//! The upgrade: takes the socket from the HTTP machinery and gives it to the worker.
//!
//! This service sees every upgrade request before any route does, so it checks the path itself and writes its
//! own refusals. Bytes that came behind the request head lie in the framed parts' read buffer: they are the
//! first frames.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use actix_codec::Framed;
use actix_http::{Request, h1};
use actix_rt::net::TcpStream;

use tracing::field::Empty;

use crate::client_addr::PeerAddr;
use crate::entrance::Guest;
use crate::handshake::Handshake;
use crate::public::CONNECT_PATH;
use crate::rejection::Rejection;
use crate::socket::Socket;
use crate::traces;
use crate::worker::Worker;

/// The longest request target, in bytes.
const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Answers one upgrade request, either way.
pub(crate) fn answer(worker: &Rc<Worker>, request: &Request, framed: Framed<TcpStream, h1::Codec>) {
    let began = Instant::now();
    let span = tracing::info_span!(
        target: traces::TARGET, "upgrade", otel.kind = "server", error.type = Empty, otel.status_code = Empty
    )
    .entered();
    let mut parts = framed.into_parts();
    // The answer to a request that was sent ahead of this one.
    if !parts.write_buf.is_empty() && Socket::write_first(&parts.io, &parts.write_buf).is_err() {
        return;
    }
    match admit(worker, request) {
        Ok((guest, handshake)) => match take_over(worker, guest, &handshake, parts.io, &mut parts.read_buf) {
            Ok(()) => worker.node.metrics.count_accepted(began.elapsed()),
            Err(error) => tracing::debug!(%error, "the client left during its upgrade"),
        },
        Err(rejection) => {
            worker.node.metrics.count_refused(&rejection);
            traces::failed(&span, rejection.cause());
            worker.node.tell_refused("upgrade", request.head(), &rejection);
            // A client that has gone needs no answer. Dropping the socket closes it behind the answer.
            let _ = Socket::write_first(&parts.io, &rejection.http1());
        }
    }
}

fn admit(worker: &Rc<Worker>, request: &Request) -> Result<(Guest, Handshake), Rejection> {
    if request.path() != CONNECT_PATH {
        return Err(Rejection::NotFound);
    }
    if request.uri().path_and_query().is_some_and(|target| target.as_str().len() > TARGET_BYTES_MAX) {
        return Err(Rejection::BadHandshake("the request target is too long"));
    }
    let peer = request.head().peer_addr.ok_or(Rejection::BadHandshake("the peer has no address"))?;
    let (guest, mut handshake) = worker.node.admit(PeerAddr::from(peer), request.head(), Handshake::check)?;
    if !worker.node.settings().may_deflate {
        handshake.deflate = None;
    }
    Ok((guest, handshake))
}

fn take_over(
    worker: &Rc<Worker>,
    guest: Guest,
    handshake: &Handshake,
    stream: TcpStream,
    early: &mut [u8],
) -> io::Result<()> {
    Socket::write_first(&stream, &handshake.response())?;
    let Guest { admitted, verified } = guest;
    worker.connect(verified, handshake.deflate, Socket::new(stream, admitted)?, early);
    Ok(())
}
