//! The disk's own fdatasync time: what every durable answer waits for at least.
//!
//! 4 KiB are overwritten at changing places of a file whose blocks exist, so that no metadata of
//! the file system goes along: the case that a database and a log with reserved space are in.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::figure::Figure;

const BLOCK: usize = 4096;
const BLOCKS: usize = 256;
const WRITES: usize = 1_000;

/// Times of one write with its fdatasync.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Disk {
    /// Measures the disk that holds `folder`.
    pub(super) fn measure(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("fdatasync");
        let mut times = timed_writes(&path).context("measuring the disk")?;
        std::fs::remove_file(&path)?;
        times.sort_unstable();
        Ok(Self { p50: times[WRITES / 2], p99: times[WRITES * 99 / 100] })
    }

    /// Whether goals that depend on a fast disk are judged: p50 below 0.1 ms.
    pub(super) fn is_fast(&self) -> bool {
        self.p50 < Duration::from_micros(100)
    }
}

fn timed_writes(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = File::create(path)?;
    file.write_all(&vec![1; BLOCK * BLOCKS])?;
    file.sync_all()?;
    (0..WRITES)
        .map(|round| {
            // The low byte of the round suffices to write something new to each block.
            let block = [u8::try_from(round % 251).unwrap_or_default(); BLOCK];
            let place = (round * 7 % BLOCKS) * BLOCK;
            let begun = Instant::now();
            file.write_all_at(&block, place as u64)?;
            file.sync_data()?;
            Ok(begun.elapsed())
        })
        .collect()
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99 } = self;
        write!(f, "fdatasync of 4 KiB p50 {p50:.1?}, p99 {p99:.1?}")
    }
}

/// The figures of the line `disk`.
pub(super) fn figures(disk: &Disk) -> anyhow::Result<Vec<Figure>> {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(vec![Figure::new("disk/fdatasync-p50", "ms", &[millis(disk.p50)])?, Figure::new("disk/fdatasync-p99", "ms", &[millis(disk.p99)])?])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_has_ordered_quantiles_and_no_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::measure(dir.path()).unwrap();
        assert!(disk.p50 > Duration::ZERO && disk.p50 <= disk.p99);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
