//! Fuzzes the HTTP/1 front against hyper: both must frame the same requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let stream = claviger_server::http::fuzz::stream(data);
    if let Some(why) = claviger_server::http::fuzz::disagreement(&stream) {
        panic!("{why}");
    }
});
