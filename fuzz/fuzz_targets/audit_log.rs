//! Fuzzes the audit log's frames, checkpoints and keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_audit::fuzz;
    let Some((which, rest)) = data.split_first() else { return };
    [fuzz::fuzz_frame, fuzz::fuzz_checkpoint, fuzz::fuzz_verifier_key][usize::from(which % 3)](rest);
});
