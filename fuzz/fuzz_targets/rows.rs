//! Fuzzes stored rows: canonical forms, heads, headers and the root file; and the clear part of ciphertexts, wrapped material and encrypted files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_crypto::fuzz;
    let Some((which, rest)) = data.split_first() else { return };
    [fuzz::key_meta, fuzz::prefix_grant, fuzz::tombstone, fuzz::approval, fuzz::head, fuzz::header, fuzz::root_file, fuzz::ciphertext, fuzz::import, fuzz::sealed_file]
        [usize::from(which % 10)](rest);
});
