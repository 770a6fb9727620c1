//! The whole line against a real Redis that is killed, frozen, emptied and lied about.
#![cfg(feature = "chaos")]

mod smoke;
mod support;
