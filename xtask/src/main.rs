//! `cargo xtask`: builds, boots and checks firn.

fn main() {}
