//! Fuzzes certificates, roots and credentials as callers send them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_authn::fuzz;
    let Some((which, rest)) = data.split_first() else { return };
    [fuzz::roots, fuzz::credential][usize::from(which % 2)](rest);
});
