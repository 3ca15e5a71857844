//! The hub as its callers meet it: stories for each behaviour that clients are promised, and random histories
//! played against a naive model. Time is pretended and sockets are lists of bytes.
#![cfg(test)]

mod allocations;
mod deflate;
mod model;
mod simulation;
mod stories;
mod support;
