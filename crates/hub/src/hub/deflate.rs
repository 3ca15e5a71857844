//! Compressed messages: a message is compressed once, where somebody takes it so, and everybody who does is owed the
//! same bytes.

use std::cell::OnceCell;
use std::mem;

use causeway_protocol::Publication;
use causeway_protocol::frame::DeflateAgreement;

use super::Hub;
use crate::outbox::SharedFrame;
use crate::topics::TopicKey;
use crate::{Moment, SessionKey};

impl Hub {
    /// The client of this session and the server agreed on permessage-deflate in their handshake: from here on its
    /// messages come compressed where that makes them shorter. To be called at most once for a session.
    pub fn agree_on_deflate(&mut self, key: SessionKey, agreement: DeflateAgreement) {
        let Some(session) = self.session_mut(key) else { return };
        session.deflate = Some(agreement);
        self.deflating_sessions += 1;
    }

    /// Owes a message to every subscriber of a topic, compressed to those who take it so.
    pub(super) fn fan_out_deflated(
        &mut self,
        topic: TopicKey,
        publication: &Publication,
        plain: &SharedFrame,
        received: Moment,
        now: Moment,
    ) -> usize {
        let mut deflater = mem::take(&mut self.deflater);
        let alive = self.frame_bytes.clone();
        let deflated = OnceCell::new();
        let mut compress = || {
            let frame = publication.deflated_frame(&mut deflater)?;
            Some(SharedFrame::message(frame.clone(), received, &alive))
        };
        let mut takers = 0;
        let offers = self.fan_out_by(
            topic,
            |session| {
                // The frame's header makes it seem a little longer than its message is.
                if session.deflate.is_none_or(|agreement| plain.len() > agreement.message_bytes_max()) {
                    return plain;
                }
                takers += 1;
                deflated.get_or_init(&mut compress).as_ref().unwrap_or(plain)
            },
            now,
        );
        self.deflater = deflater;
        // To compress a byte takes about as long as to offer a frame to an outbox (`docs/performance.md`).
        let work = if takers > 0 { plain.len() } else { 0 };
        if let Some(Some(deflated)) = deflated.get() {
            self.counters.deflate.plain_bytes += takers * plain.len() as u64;
            self.counters.deflate.deflated_bytes += takers * deflated.len() as u64;
        }
        offers + work
    }
}
