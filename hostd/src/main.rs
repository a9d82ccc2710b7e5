//! `hostd`: see the library.
fn main() {}
