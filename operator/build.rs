#[path = "../build/image.rs"]
mod image;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../build/image.rs");
    image::link();
}
