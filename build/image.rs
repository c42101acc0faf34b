//! For the build scripts of the programs in images: how those are linked.

use std::env;

/// Makes the program of an image smaller, on disk and in memory: equal functions are there once, and relocations, which
/// are read and thereby resident from the start on, take bits instead of 24 bytes each.
pub fn link() {
    if is_for_an_image() {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        println!("cargo::rustc-link-arg-bins=-Wl,--pack-dyn-relocs=relr");
    }
}

/// Static programs of this architecture are linked by the linker that comes with the compiler, which knows the arguments.
fn is_for_an_image() -> bool {
    let is =
        |variable: &str, value: &str| env::var(variable).is_ok_and(|text| text.split(',').any(|part| part == value));
    is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_FEATURE", "crt-static")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
}
