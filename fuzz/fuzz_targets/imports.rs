//! Fuzzes the files of other tools that are imported.
#![no_main]

// The command line is no library; its parsers use nothing else of it.
#[allow(dead_code, unreachable_pub)]
#[path = "../../crates/claviger/src/commands/import/formats/mod.rs"]
mod formats;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let all = [
        formats::dotenv::read,
        formats::tree::read,
        formats::vault::read,
        formats::kubernetes::read,
        formats::onepassword::read,
        formats::bundle::read,
    ];
    let Some((which, rest)) = data.split_first() else { return };
    let _ = all[usize::from(*which) % all.len()](rest);
});
