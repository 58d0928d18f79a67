//! Hands the linker script to the linker, for the bare-metal build only.
//!
//! `cfg(firn_bare)` comes from RUSTFLAGS (see `README.md` beside this file);
//! without it the crate builds as an ordinary host program that only says how
//! to build the real one, and must be linked like one.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=linker.ld");
    if env::var_os("CARGO_CFG_FIRN_BARE").is_none() {
        return;
    }
    let room = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let arguments = [
        format!("-T{room}/linker.ld"),
        "-static".into(),
        "-no-pie".into(),
        "--gc-sections".into(),
        "--build-id=sha1".into(),
        "-zmax-page-size=4096".into(),
        "-znoexecstack".into(),
    ];
    for argument in arguments {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
