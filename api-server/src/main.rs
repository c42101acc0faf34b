//! The server's process; see `sealpod_api_server::cli`.
#![forbid(unsafe_code)]

/// What a request allocates costs half as much as with the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The allocator asks for huge pages, which hold a third more memory than is used. Where the kernel refuses, they do.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing has chosen a TLS provider before main");
    sealpod_api_server::cli::run()
}
