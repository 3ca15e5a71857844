//! How many may come in: at once and per second, for the node and for each client address.
//!
//! Both stores are bounded. Addresses that have been quiet are swept out; while more than `ADDRESSES_MAX` are
//! not, all share one bucket, so that a flood of addresses cannot buy memory or a fresh allowance.
//!
//! Lock order: of the rules, the counts and the rate limiter no two are ever held together.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize};

use crate::client_addr::ClientAddr;
use crate::rejection::Rejection;

/// The most client addresses whose upgrade rate is remembered one by one.
const ADDRESSES_MAX: usize = 100_000;

/// The limits that admission keeps.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Connections of the whole node.
    pub connections: usize,
    /// Connections of one client address.
    pub connections_per_ip: usize,
    /// Upgrades of one client address in the long run, a second.
    pub upgrades_per_ip_per_second: NonZeroU32,
    /// Upgrades of one client address at once.
    pub upgrades_per_ip_burst: NonZeroU32,
}

/// Where connections come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// All connections.
    pub connections: usize,
    /// The client addresses they come from.
    pub addresses: usize,
    /// The address with the most of them, if there is any.
    pub busiest: Option<String>,
    /// How many it has.
    pub busiest_connections: usize,
}

/// Decides who is let in, and keeps the count.
#[derive(Debug)]
pub struct Admission {
    rules: RwLock<Rules>,
    is_closed: AtomicBool,
    connections: AtomicUsize,
    by_addr: Mutex<HashMap<ClientAddr, usize>>,
}

/// What a reload may change, while the counts go on.
#[derive(Clone, Debug)]
struct Rules {
    limits: AdmissionLimits,
    upgrades: Arc<UpgradeRate>,
}

/// How often each address upgrades.
#[derive(Debug)]
struct UpgradeRate<C: Clock = DefaultClock> {
    limiter: RateLimiter<ClientAddr, DefaultKeyedStateStore<ClientAddr>, C, NoOpMiddleware<C::Instant>>,
    started: C::Instant,
    /// The second since `started` of the last sweep that a flood made necessary.
    swept: AtomicU64,
}

/// A connection that was let in. Dropping it is leaving.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    client: ClientAddr,
}

impl Admission {
    /// Open to all, within `limits`.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            rules: RwLock::new(Rules {
                limits,
                upgrades: Arc::new(UpgradeRate::new(limits, DefaultClock::default())),
            }),
            is_closed: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            by_addr: Mutex::default(),
        }
    }

    /// Keeps other limits from here on. Whoever is in stays in. Where the rate of upgrades is another, every
    /// address begins anew.
    pub(crate) fn set_limits(&self, limits: AdmissionLimits) {
        let Rules { limits: before, upgrades } = self.rules();
        let upgrades = match before.has_rate_of(limits) {
            true => upgrades,
            false => Arc::new(UpgradeRate::new(limits, DefaultClock::default())),
        };
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Rules { limits, upgrades };
    }

    /// Whether anybody is let in at all.
    ///
    /// # Errors
    /// [`Rejection::Draining`].
    pub(crate) fn check_open(&self) -> Result<(), Rejection> {
        if self.is_closed.load(Ordering::Relaxed) { Err(Rejection::Draining) } else { Ok(()) }
    }

    /// Whether the node has room.
    ///
    /// # Errors
    /// [`Rejection::NodeFull`].
    pub(crate) fn check_room(&self) -> Result<(), Rejection> {
        if self.connections() < self.limits().connections { Ok(()) } else { Err(Rejection::NodeFull) }
    }

    /// Counts one upgrade of an address, unless it comes too soon after the ones before it.
    ///
    /// # Errors
    /// [`Rejection::TooManyUpgrades`].
    pub(crate) fn check_rate(&self, client: ClientAddr) -> Result<(), Rejection> {
        self.rules().upgrades.check(client)
    }

    /// Counts one connection of an address, if it may have another.
    ///
    /// # Errors
    /// [`Rejection::TooManyConnections`].
    pub(crate) fn enter(self: &Arc<Self>, client: ClientAddr) -> Result<Admitted, Rejection> {
        let limit = self.limits().connections_per_ip;
        let mut by_addr = self.by_addr();
        let of_client = by_addr.entry(client).or_default();
        if *of_client >= limit {
            return Err(Rejection::TooManyConnections);
        }
        *of_client += 1;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Admitted { admission: Arc::clone(self), client })
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// How many connections are in.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many of them are one client's.
    pub(crate) fn connections_of(&self, client: ClientAddr) -> usize {
        self.by_addr().get(&client).copied().unwrap_or_default()
    }

    /// Where they come from.
    pub(crate) fn addresses(&self) -> Addresses {
        let by_addr = self.by_addr();
        let busiest = by_addr.iter().max_by_key(|(_, connections)| **connections);
        Addresses {
            connections: by_addr.values().sum(),
            addresses: by_addr.len(),
            busiest: busiest.map(|(client, _)| client.to_string()),
            busiest_connections: busiest.map_or(0, |(_, connections)| *connections),
        }
    }

    /// The limits it keeps.
    pub(crate) fn limits(&self) -> AdmissionLimits {
        self.rules().limits
    }

    fn rules(&self) -> Rules {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets the rates of addresses that have been quiet. To be called about once a minute.
    pub fn sweep(&self) {
        self.rules().upgrades.sweep();
    }

    fn by_addr(&self) -> MutexGuard<'_, HashMap<ClientAddr, usize>> {
        // A count is right whatever its holder was doing when it panicked.
        self.by_addr.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AdmissionLimits {
    fn has_rate_of(self, other: Self) -> bool {
        let rate = |limits: Self| (limits.upgrades_per_ip_per_second, limits.upgrades_per_ip_burst);
        rate(self) == rate(other)
    }
}

impl<C: Clock> UpgradeRate<C> {
    fn new(limits: AdmissionLimits, clock: C) -> Self {
        let quota =
            Quota::per_second(limits.upgrades_per_ip_per_second).allow_burst(limits.upgrades_per_ip_burst);
        let started = clock.now();
        Self { limiter: RateLimiter::dashmap_with_clock(quota, clock), started, swept: AtomicU64::new(0) }
    }

    fn check(&self, client: ClientAddr) -> Result<(), Rejection> {
        if self.limiter.len() >= ADDRESSES_MAX {
            self.sweep_once_a_second();
        }
        let bucket = if self.limiter.len() < ADDRESSES_MAX { client } else { ClientAddr::SHARED };
        self.limiter.check_key(&bucket).map_err(|until| Rejection::TooManyUpgrades {
            retry_after: until.wait_time_from(self.limiter.clock().now()),
        })
    }

    fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// A sweep visits every address, and a flood must not make every upgrade do that.
    fn sweep_once_a_second(&self) {
        let second = Duration::from(self.limiter.clock().now().duration_since(self.started)).as_secs();
        if self.swept.swap(second, Ordering::Relaxed) != second {
            self.sweep();
        }
    }
}

impl Admitted {
    /// Whose connection it is.
    pub fn client(&self) -> ClientAddr {
        self.client
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.connections.fetch_sub(1, Ordering::Relaxed);
        let mut by_addr = self.admission.by_addr();
        if let Some(of_client) = by_addr.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                by_addr.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use actix_http::header::HeaderMap;
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::client_addr::{PeerAddr, TrustedProxies};

    fn client(addr: &str) -> ClientAddr {
        TrustedProxies::default().client_of(PeerAddr(addr.parse().unwrap()), &HeaderMap::new())
    }

    fn admission(connections: usize, per_ip: usize, burst: u32) -> Arc<Admission> {
        Arc::new(Admission::new(AdmissionLimits {
            connections,
            connections_per_ip: per_ip,
            upgrades_per_ip_per_second: NonZeroU32::MIN,
            upgrades_per_ip_burst: NonZeroU32::new(burst).unwrap(),
        }))
    }

    /// All of its rules, in the order of the entrance.
    fn admit(admission: &Arc<Admission>, addr: &str) -> Result<Admitted, Rejection> {
        let client = client(addr);
        admission.check_open()?;
        admission.check_room()?;
        admission.check_rate(client)?;
        admission.enter(client)
    }

    #[test]
    fn leaving_makes_room() {
        let admission = admission(2, 1, 10);
        let first = admit(&admission, "1.1.1.1").unwrap();
        assert!(matches!(admit(&admission, "1.1.1.1"), Err(Rejection::TooManyConnections)));
        let _second = admit(&admission, "2.2.2.2").unwrap();
        assert!(matches!(admit(&admission, "3.3.3.3"), Err(Rejection::NodeFull)));
        drop(first);
        assert!(admit(&admission, "1.1.1.1").is_ok());
        assert_eq!(admission.connections(), 1, "the one let in just now has left again");
        assert_eq!(admission.by_addr().len(), 1, "an address without connections is forgotten");
    }

    #[test]
    fn each_address_has_its_own_burst() {
        let admission = admission(100, 100, 3);
        let admitted = |addr| (0..10).filter(|_| admit(&admission, addr).is_ok()).count();
        assert_eq!(admitted("1.1.1.1"), 3);
        assert_eq!(admitted("2.2.2.2"), 3);
        let Err(Rejection::TooManyUpgrades { retry_after }) = admit(&admission, "1.1.1.1") else {
            panic!("the burst is spent")
        };
        assert!(retry_after <= Duration::from_secs(1));
    }

    /// An IPv6 address of the network of this number.
    fn in_network(network: u64, host: u64) -> ClientAddr {
        let addr = Ipv6Addr::from_bits(u128::from(0x2001_0db8_0000_0000 + network) << 64 | u128::from(host));
        TrustedProxies::default().client_of(PeerAddr(addr.into()), &HeaderMap::new())
    }

    fn with_clock(burst: u32) -> (UpgradeRate<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (UpgradeRate::new(admission(1, 1, burst).limits(), clock.clone()), clock)
    }

    #[test]
    fn t16_a_million_addresses_of_one_network_are_one_client() {
        let (rate, clock) = with_clock(100);
        let mut admitted = (0..1_000_000).filter(|&host| rate.check(in_network(7, host)).is_ok());
        assert_eq!(admitted.by_ref().count(), 100);
        assert_eq!(rate.limiter.len(), 1);
        clock.advance(Duration::from_secs(2));
        assert_eq!((0..1_000).filter(|&host| rate.check(in_network(7, host)).is_ok()).count(), 2);
    }

    #[test]
    fn t16_a_million_networks_share_what_is_left_and_are_forgotten() {
        let (rate, clock) = with_clock(100);
        let admitted = (0..1_000_000).filter(|&network| rate.check(in_network(network, 1)).is_ok()).count();
        // One of the places is the shared bucket's, which has a burst as everybody has.
        assert_eq!(admitted, ADDRESSES_MAX + 100);
        assert!(rate.limiter.len() <= ADDRESSES_MAX + 1, "{}", rate.limiter.len());
        // Each bucket is full again after the second that its one upgrade cost; the shared one needs a hundred.
        clock.advance(Duration::from_secs(2));
        assert!(rate.check(in_network(2_000_000, 1)).is_ok(), "a flood that is over leaves room");
        assert!(rate.limiter.len() <= 2, "{}", rate.limiter.len());
        clock.advance(Duration::from_secs(200));
        rate.sweep();
        assert_eq!(rate.limiter.len(), 0);
    }

    #[test]
    fn other_limits_hold_at_once_and_whoever_is_in_stays_counted() {
        let admission = admission(100, 100, 100);
        let limits = admission.limits();
        let held: Vec<_> = (0..5).map(|_| admit(&admission, "1.1.1.1").unwrap()).collect();
        admission.set_limits(AdmissionLimits { connections_per_ip: 3, ..limits });
        assert_eq!(admission.connections(), 5);
        assert!(matches!(admit(&admission, "1.1.1.1"), Err(Rejection::TooManyConnections)));
        assert!(admit(&admission, "2.2.2.2").is_ok());
        admission.set_limits(AdmissionLimits { connections: 5, ..limits });
        assert!(matches!(admit(&admission, "2.2.2.2"), Err(Rejection::NodeFull)));
        drop(held);
        assert!(admit(&admission, "2.2.2.2").is_ok());
        assert_eq!((admission.connections(), admission.by_addr().len()), (0, 0));
    }

    #[test]
    fn other_limits_are_no_fresh_burst_unless_the_rate_is_another() {
        let admission = admission(100, 100, 3);
        let limits = admission.limits();
        let admitted = || (0..10).filter(|_| admit(&admission, "1.1.1.1").is_ok()).count();
        assert_eq!(admitted(), 3);
        admission.set_limits(AdmissionLimits { connections: 50, ..limits });
        assert_eq!(admitted(), 0);
        let upgrades_per_ip_burst = NonZeroU32::new(5).unwrap();
        admission.set_limits(AdmissionLimits { upgrades_per_ip_burst, ..limits });
        assert_eq!(admitted(), 5);
    }

    #[test]
    fn a_closed_node_lets_nobody_in() {
        let admission = admission(100, 100, 100);
        admission.close();
        assert!(matches!(admit(&admission, "1.1.1.1"), Err(Rejection::Draining)));
    }
}
