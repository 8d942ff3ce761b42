//! Fuzzes what the node agent reads: requests of local programs, files of its cache and of Knox's folder, its configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_node::fuzz;
    let Some((which, rest)) = data.split_first() else { return };
    match which % 4 {
        0 => fuzz::request(rest),
        1 => fuzz::entry(rest),
        2 => fuzz::knox_files(rest),
        _ => fuzz::configuration(&String::from_utf8_lossy(rest)),
    }
});
