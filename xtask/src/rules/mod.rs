//! The house rules that no compiler checks; `cargo xtask check` does.

pub(crate) mod rooms;
pub(crate) mod text;
