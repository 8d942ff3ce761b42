//! The lines of the bench, as a table. A new line is a row here and a module of its own.

use super::figure::Figure;
use super::{Bench, disk, floor, read};

/// One line of work that is measured. It may give several figures, named after it.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) measures: &'static str,
    pub(super) needs_claviger: bool,
    pub(super) run: fn(&Bench) -> anyhow::Result<Vec<Figure>>,
}

pub(super) const LINES: &[Line] = &[
    Line {
        name: "disk",
        measures: "the disk's own fdatasync: 4 KiB overwritten in a file that was written before",
        needs_claviger: false,
        run: |bench| disk::figures(&bench.disk),
    },
    Line {
        name: "floor-32",
        measures: "stock axum with mutual TLS and a static body, 32 connections",
        needs_claviger: false,
        run: |bench| floor::figures(bench, "floor-32", 32),
    },
    Line {
        name: "floor-256",
        measures: "stock axum with mutual TLS and a static body, 256 connections",
        needs_claviger: false,
        run: |bench| floor::figures(bench, "floor-256", 256),
    },
    Line {
        name: "read-32",
        measures: "one key read on Knox's surface against the floor, mutual TLS, 32 connections",
        needs_claviger: true,
        run: |bench| read::figures(bench, "read-32", 32, 0.80),
    },
    Line {
        name: "read-256",
        measures: "one key read on Knox's surface against the floor, mutual TLS, 256 connections",
        needs_claviger: true,
        run: |bench| read::figures(bench, "read-256", 256, 0.85),
    },
];

/// Names of all lines.
pub(super) fn names() -> Vec<&'static str> {
    LINES.iter().map(|line| line.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lines_are_unique() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LINES.len());
    }
}
