//! The load tester against a gateway that is as it should be, or does something wrong: it must notice, and its exit
//! status must say so.

#![expect(clippy::unwrap_used, reason = "clippy.toml's exception for tests does not reach their helpers")]

mod expectations;
mod faults;
mod scenarios;
mod support;
