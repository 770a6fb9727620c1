//! The whole line against a real Redis that is killed, frozen, emptied and lied about.
#![cfg(feature = "chaos")]

mod by_hand;
mod outages;
mod seeds;
mod smoke;
mod support;
