//! The hub as its callers meet it: stories for each behaviour that clients are promised, and random histories
//! played against a naive model. Time is pretended and sockets are lists of bytes.
#![cfg(test)]

mod allocations;
mod counters;
mod deflate;
mod drains;
mod endings;
mod gaps;
mod model;
mod neighbours;
mod operators;
mod pings;
mod publishes;
mod simulation;
mod subscriptions;
mod support;
mod tokens;
