//! Fuzzes Tink keysets, and every primitive over what reads as one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| claviger_crypto::fuzz::tink_keyset(data));
