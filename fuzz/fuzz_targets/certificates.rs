//! Fuzzes certificates, roots and credentials as callers send them.
#![no_main]

use claviger_authn::{Roots, fuzz};
use std::sync::LazyLock;

static ROOTS: LazyLock<Roots> = LazyLock::new(|| Roots::from_pem("root.pem", include_bytes!("../data/root.pem")).expect("a root"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else { return };
    match which % 3 {
        0 => fuzz::certificate(&ROOTS, rest),
        1 => fuzz::roots(rest),
        _ => fuzz::credential(rest),
    }
});
