//! Fuzzes certificates, roots, credentials and tokens as callers send them.
#![no_main]

use claviger_authn::{Roots, fuzz};
use std::sync::LazyLock;

static ROOTS: LazyLock<Roots> = LazyLock::new(|| Roots::from_pem("root.pem", include_bytes!("../data/root.pem")).expect("a root"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else { return };
    match which % 4 {
        0 => fuzz::certificate(&ROOTS, rest),
        1 => fuzz::roots(rest),
        2 => fuzz::credential(rest),
        _ => fuzz::token(rest),
    }
});
