//! One file per command.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod check;
pub(crate) mod image;
pub(crate) mod lab;
pub(crate) mod mutants;
pub(crate) mod run;
pub(crate) mod soak;
pub(crate) mod test;
