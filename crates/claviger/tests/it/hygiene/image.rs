//! A running process's memory, read from outside.

use super::sentinels::{Hit, Sentinels};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

/// Pieces found in one mapping.
pub(crate) struct Found {
    pub(crate) region: String,
    pub(crate) hits: Vec<Hit>,
    /// Some of the places, shown with what is around them, to see whose buffer it is.
    pub(crate) samples: Vec<String>,
}

/// Searches all of the memory that `pid` can read, while it stands still.
///
/// # Errors
/// When the memory may not be read: the process is not dumpable, so only root with CAP_SYS_PTRACE may.
pub(crate) fn search(pid: u32, sentinels: &Sentinels) -> std::io::Result<Vec<Found>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    signal(pid, "STOP");
    let found = regions(pid).map(|regions| {
        let mut all = Vec::new();
        for (name, start, len) in regions {
            let bytes = read(&memory, start, len);
            let hits = sentinels.search(&bytes);
            if !hits.is_empty() {
                let samples = hits.iter().step_by(hits.len().div_ceil(4)).map(|h| show(&bytes, start, h)).collect();
                all.push(Found { region: name, hits, samples });
            }
        }
        all
    });
    signal(pid, "CONT");
    found
}

/// The pieces in all regions together.
pub(crate) fn hits(found: &[Found]) -> Vec<Hit> {
    found.iter().flat_map(|f| f.hits.clone()).collect()
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Name, start and length of every mapping that can hold data: all that is readable, except the kernel's own and the
/// unwritable parts of files.
fn regions(pid: u32) -> std::io::Result<Vec<(String, u64, usize)>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut regions = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let name = fields.nth(3).unwrap_or("anonymous");
        let is_program = name.starts_with('/') && !rights.contains('w');
        if !rights.starts_with('r') || is_program || name.starts_with("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        regions.push((name.to_owned(), start, usize::try_from(end - start).unwrap()));
    }
    Ok(regions)
}

/// What cannot be read is left zero, page by page: a page may be past a mapped file's end.
fn read(memory: &File, start: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if memory.read_exact_at(&mut bytes, start).is_err() {
        bytes.fill(0);
        for (page, offset) in bytes.chunks_mut(4096).zip((start..).step_by(4096)) {
            let _ = memory.read_exact_at(page, offset);
        }
    }
    bytes
}

fn show(bytes: &[u8], start: u64, hit: &Hit) -> String {
    let from = hit.offset.saturating_sub(160);
    let around = &bytes[from..(hit.offset + 64).min(bytes.len())];
    format!("{:#x} secret {} as {}: {}", start + hit.offset as u64, hit.secret, hit.form, around.escape_ascii())
}
