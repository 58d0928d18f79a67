//! The xenstore client against daemons: friendly, odd and hostile.

mod offences;
mod puppet;
mod requests;
mod reset;
mod ring;
mod transactions;
mod watches;
mod world;
