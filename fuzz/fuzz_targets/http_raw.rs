//! Fuzzes the HTTP/1 front against hyper on raw bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(why) = claviger_server::http::fuzz::disagreement(data) {
        panic!("{why}");
    }
});
