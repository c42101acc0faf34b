//! The server's process; see `sealpod_api_server::cli`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// With the C library's, a sixth fewer reads are answered in a second: a request makes many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Where the kernel gives huge pages to everybody, an idle server with them holds half as much memory again.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing has chosen a TLS provider before main");
    sealpod_api_server::cli::run()
}
