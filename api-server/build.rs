//! Takes the two files of Swagger UI that `/docs` needs out of its archive, compressed as they are there: a zip entry
//! and a gzip stream hold the same deflate data, so browsers get the bytes of the archive.
#![allow(clippy::panic, reason = "this is how a build script says why there can be no build")]

#[path = "../build/image.rs"]
mod image;

use std::path::{Path, PathBuf};
use std::{env, fs};

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED as ARCHIVE;

const FILES: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../build/image.rs");
    image::link();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for name in FILES {
        let file = Entry::find(&format!("/dist/{name}")).gzip();
        let path = out.join(Path::new(name).with_added_extension("gz"));
        fs::write(&path, file).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}

/// A file of the archive, as its central directory describes it (APPNOTE.TXT 4.3.12).
struct Entry {
    crc32: u32,
    compressed: usize,
    size: u32,
    /// Where its local header stands.
    at: usize,
}

impl Entry {
    fn find(end_of_path: &str) -> Self {
        const SIGNATURE: u32 = 0x0201_4b50;
        const DEFLATE: u16 = 8;
        let end = ARCHIVE
            .windows(4)
            .rposition(|bytes| bytes == b"PK\x05\x06")
            .expect("the archive has an end of central directory");
        let mut at = number(end + 16);
        while u32_at(at) == SIGNATURE {
            let [name, extra, comment] = [28, 30, 32].map(|field| usize::from(u16_at(at + field)));
            let path = &ARCHIVE[at + 46..at + 46 + name];
            if path.ends_with(end_of_path.as_bytes()) && !path.windows(8).any(|part| part == b"flavors/") {
                assert_eq!(
                    u16_at(at + 10),
                    DEFLATE,
                    "{end_of_path} is compressed as gzip can carry it"
                );
                return Self {
                    crc32: u32_at(at + 16),
                    compressed: number(at + 20),
                    size: u32_at(at + 24),
                    at: number(at + 42),
                };
            }
            at += 46 + name + extra + comment;
        }
        panic!("Swagger UI's archive has no {end_of_path}: its layout changed");
    }

    /// The file as a gzip stream (RFC 1952): without a name and a time, so that every build makes the same bytes.
    fn gzip(&self) -> Vec<u8> {
        let [name, extra] = [26, 28].map(|field| usize::from(u16_at(self.at + field)));
        let data = self.at + 30 + name + extra;
        let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        gzip.extend_from_slice(&ARCHIVE[data..data + self.compressed]);
        gzip.extend_from_slice(&self.crc32.to_le_bytes());
        gzip.extend_from_slice(&self.size.to_le_bytes());
        gzip
    }
}

fn u16_at(at: usize) -> u16 {
    u16::from_le_bytes([ARCHIVE[at], ARCHIVE[at + 1]])
}

fn u32_at(at: usize) -> u32 {
    u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16
}

fn number(at: usize) -> usize {
    usize::try_from(u32_at(at)).expect("usize has at least 32 bits here")
}
