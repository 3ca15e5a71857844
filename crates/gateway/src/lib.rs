//! Sockets, HTTP, tokens, limits, configuration and process life; the place where the parts are put together.
//!
//! This crate knows nothing of Redis's protocol or of the inside of a topic table. From a request's head to a
//! session the way is `upgrade` → `entrance` (admission, address, origin, token) → `worker` → `connection`; from the
//! broker to a socket it is `worker` → hub → `socket`. `app` builds every part and stops it again.

pub mod admin;
pub mod admission;
pub mod app;
pub mod client_addr;
pub mod config;
pub mod control;
pub mod dev;
pub mod doctor;
pub mod explain;
pub mod log;
pub mod metrics;
pub mod node;
pub mod origin;
pub mod public;
pub mod rejection;
pub mod reload;
pub mod revocation;
pub mod token;
pub mod traces;

mod budget;
mod canary;
mod connection;
mod crew;
mod descriptors;
mod drain;
mod entrance;
mod handshake;
mod leaders;
mod line;
mod order;
mod peers;
mod roll_call;
mod search;
mod settings;
mod socket;
mod tasks;
mod upgrade;
mod worker;
