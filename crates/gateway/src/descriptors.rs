//! File descriptors: each connection is one, and the system allows a process so many.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a node needs besides its clients' sockets: listeners, Redis, epoll, log, admin requests.
const RESERVED: u64 = 200;

/// How many a node with so many connections needs.
pub(crate) fn needed(connections: usize) -> u64 {
    connections as u64 + RESERVED
}

/// The limit that this process cannot raise by itself.
pub(crate) fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the limit as far as the system lets us, and says so if that is too low.
pub fn provide_for(connections: usize) {
    let needed = needed(connections);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        // Refused where the hard limit moved meanwhile; the warning below holds all the same.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    if let Some(allowed) = getrlimit(Resource::Nofile).current.filter(|&allowed| allowed < needed) {
        tracing::warn!(
            allowed,
            needed,
            "limits.connections needs more file descriptors than the system allows"
        );
    }
}
