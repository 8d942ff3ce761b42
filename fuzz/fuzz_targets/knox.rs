//! Fuzzes every parser of Knox's forms.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_wire::knox::fuzz;
    let Some((which, rest)) = data.split_first() else { return };
    [fuzz::form, fuzz::poll, fuzz::json, fuzz::base64, fuzz::route, fuzz::principal, fuzz::number][usize::from(which % 7)](rest);
});
