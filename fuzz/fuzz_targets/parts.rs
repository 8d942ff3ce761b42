//! Fuzzes what looks into values: JSON, dotenv files, and which of them a value is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_wire::parts::fuzz;
    fuzz::parts(data);
    let text = String::from_utf8_lossy(data);
    fuzz::json(&text);
    fuzz::dotenv(&text);
});
