//! One file per command.

pub(crate) mod build;
pub(crate) mod lab;
pub(crate) mod run;
