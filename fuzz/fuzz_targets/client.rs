//! Fuzzes what the client reads: answers, their JSON, streams of events, addresses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_client::fuzz;
    let Some((which, rest)) = data.split_first() else { return };
    match which % 5 {
        0 => fuzz::events(rest),
        1 => fuzz::answer(rest),
        2 => fuzz::json(rest, "a value that no input has"),
        3 => fuzz::landing(rest),
        _ => fuzz::address(&String::from_utf8_lossy(rest)),
    }
});
