//! Fuzzes what the server reads besides requests: configuration, the callback's answers, notes, records of its own log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use claviger_server::fuzz;
    let Some((which, rest)) = data.split_first() else { return };
    let text = || String::from_utf8_lossy(rest);
    match which % 5 {
        0 => fuzz::configuration(&text()),
        1 => fuzz::callback_answer(&text()),
        2 => fuzz::break_glass_note(rest),
        3 => fuzz::recalled(rest),
        _ => claviger_audit::fuzz::fuzz_learn(rest),
    }
});
