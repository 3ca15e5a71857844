//! File descriptors: each connection is one, and the system allows a process so many.
//!
//! They are shared out before anybody comes, because whoever runs out of them can neither accept nor reach Redis,
//! and is told nothing: some are the node's own, some are for requests that are not yet read, the rest is for
//! connections. Beyond its share nobody gets one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a node needs besides its clients' sockets: listeners, Redis, epoll, log, admin requests.
const RESERVED: usize = 200;

/// For so many connections one more client may be arriving: its request is not yet read.
const CONNECTIONS_PER_ARRIVING: usize = 8;

/// The most requests that are worth being read at once by one worker.
const ARRIVING_MAX: usize = 25_600;

/// How the descriptors of this process are shared out, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Requests that may be read at once, of all workers.
    pub(crate) arriving: usize,
    /// The most connections that there can ever be.
    connections_max: usize,
}

/// How many a node with so many connections needs.
pub(crate) fn needed(connections: usize) -> usize {
    connections + connections / CONNECTIONS_PER_ARRIVING + RESERVED
}

/// The limit that this process cannot raise by itself.
pub(crate) fn hard_limit() -> Option<usize> {
    getrlimit(Resource::Nofile).maximum.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Raises the limit as far as the system lets us, and shares out what that gives.
pub(crate) fn share_out(connections: usize, workers: usize) -> Share {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused where the hard limit moved meanwhile; what is in force is read again.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
    Share::of(allowed, connections, workers)
}

impl Share {
    fn of(allowed: usize, connections: usize, workers: usize) -> Self {
        let room = allowed.saturating_sub(RESERVED);
        let connections = connections.min(room - room / (CONNECTIONS_PER_ARRIVING + 1));
        let arriving = (room - connections).min(workers * ARRIVING_MAX);
        Self { arriving, connections_max: room - arriving }
    }

    /// How many connections there may be where `wanted` are wished for. Says so if that is fewer.
    pub(crate) fn connections(&self, wanted: usize) -> usize {
        let connections = wanted.min(self.connections_max);
        if connections < wanted {
            tracing::warn!(
                wanted,
                connections,
                needed = needed(wanted),
                "limits.connections needs more file descriptors than the system allows: so many are let in"
            );
        }
        connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all_where_the_system_allows_it() {
        for connections in [1, 100, 1_000, 100_000] {
            let share = Share::of(needed(connections), connections, 1);
            assert_eq!(share.connections(connections), connections);
        }
        let share = Share::of(1 << 20, 1_000, 2);
        assert_eq!(share.arriving, 2 * ARRIVING_MAX, "no more than can be of use");
        assert_eq!(share.connections(500_000), 500_000, "a reload may ask for more than the start did");
    }

    #[test]
    fn what_is_short_is_short_for_clients_and_not_for_the_node() {
        for allowed in [0, 64, 199, 200, 201, 300, 1_024, 20_000] {
            let share = Share::of(allowed, 100_000, 2);
            let connections = share.connections(100_000);
            assert!(connections + share.arriving <= allowed.saturating_sub(RESERVED), "{allowed}: {share:?}");
            assert!(connections >= allowed.saturating_sub(RESERVED) * 8 / 9, "{allowed}: {share:?}");
        }
    }
}
