//! Fuzzes the native surface's targets, conditions, principals, moments, ACLs and bodies.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_server::native::fuzz;
    let text = String::from_utf8_lossy(data);
    fuzz::target(&text);
    fuzz::conditions(&text);
    fuzz::words(&text);
    fuzz::acl(data);
    fuzz::body(data, "a value that no input has");
});
