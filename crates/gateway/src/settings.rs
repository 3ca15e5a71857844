//! What a reload replaces: one value, so that it is replaced as a whole or not at all.
//!
//! Requests look at it as they come; workers look at it when they tick. What is not in here needs a restart.

use std::sync::Arc;

use causeway_hub::HubLimits;
use causeway_protocol::frame::FrameLimits;

use crate::admin::access::AdminAccess;
use crate::config::Config;
use crate::entrance::Entrance;
use crate::revocation::Revocations;

/// Who is let in, who may act, and what a session may cost. How many are let in is kept by the admission, which
/// also counts them.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) entrance: Entrance,
    pub(crate) admin_access: AdminAccess,
    pub(crate) hub: HubLimits,
    pub(crate) frames: FrameLimits,
    /// Whether permessage-deflate is agreed on with clients that offer it.
    pub(crate) may_deflate: bool,
}

impl Settings {
    /// As a configuration means them, with the `revocations` of the node.
    pub(crate) fn new(config: Config, revocations: Arc<Revocations>) -> Self {
        Self {
            entrance: Entrance::new(config.auth, config.allowed_origins, config.trusted_proxies, revocations),
            admin_access: AdminAccess::new(config.admin_token, config.admin_listen),
            hub: config.hub,
            frames: config.frames,
            may_deflate: config.may_deflate,
        }
    }
}
