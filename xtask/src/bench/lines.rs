//! The lines of the bench, as a table. A new line is a row here and a module of its own.

use super::figure::Figure;
use super::start::Goals;
use super::{Bench, commands, disk, floor, login, node, poll, read, revoke, start, streams, uses, writers};

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
    Line {
        name: "read-slow-fsync",
        measures: "the same with 2 ms added to each fsync of the audit log, 32 connections, of what they allow",
        needs_claviger: true,
        run: |bench| read::slow_fsync_figures(bench, "read-slow-fsync", 32),
    },
    Line {
        name: "encrypt-1k",
        measures: "1 KiB encrypted on the native API against the floor, mutual TLS, 32 connections",
        needs_claviger: true,
        run: |bench| uses::encrypt(bench, "encrypt-1k"),
    },
    Line {
        name: "sign-p256",
        measures: "signatures with P-256, 64 in a request: time of one core by the bare library over that of the server",
        needs_claviger: true,
        run: |bench| uses::sign(bench, "sign-p256"),
    },
    Line {
        name: "revoke",
        measures: "from sending a revocation to the first refused read, on an open connection and on new ones",
        needs_claviger: true,
        run: |bench| revoke::figures(bench, "revoke"),
    },
    Line {
        name: "poll-1000",
        measures: "Knox's poll of 1,000 ids in a store of 100,000 keys",
        needs_claviger: true,
        run: |bench| poll::figures(bench, "poll-1000"),
    },
    Line {
        name: "writers-64",
        measures: "new versions on Knox's surface, durable in store and audit log, 64 connections",
        needs_claviger: true,
        run: |bench| writers::figures(bench, "writers-64"),
    },
    Line {
        name: "watch-1000",
        measures: "from sending a change until the last of 1,000 event streams has it",
        needs_claviger: true,
        run: |bench| streams::arrival(bench, "watch-1000", 1_000),
    },
    Line {
        name: "idle-10000",
        measures: "memory and CPU of 10,000 event streams on which nothing happens but heartbeats, 30 s",
        needs_claviger: true,
        run: |bench| streams::idle(bench, "idle-10000", 10_000),
    },
    Line {
        name: "start-empty",
        measures: "from the start of the process until it is ready, with a prepared store without keys",
        needs_claviger: true,
        run: |bench| start::figures(bench, "start-empty", 0, &Goals { ms: 50.0, mb: 30.0 }),
    },
    Line {
        name: "start-100k",
        measures: "the same with 100,000 keys",
        needs_claviger: true,
        run: |bench| start::figures(bench, "start-100k", 100_000, &Goals { ms: 1_000.0, mb: 250.0 }),
    },
    Line {
        name: "start-1M",
        measures: "the same with 1,000,000 keys",
        needs_claviger: true,
        run: |bench| start::figures(bench, "start-1M", 1_000_000, &Goals { ms: 10_000.0, mb: 2_000.0 }),
    },
    Line {
        name: "cli-get",
        measures: "`claviger get` as a whole process",
        needs_claviger: true,
        run: |bench| commands::get(bench, "cli-get"),
    },
    Line {
        name: "cli-run",
        measures: "`claviger run` of a program that does nothing, over that program alone",
        needs_claviger: true,
        run: |bench| commands::run(bench, "cli-run"),
    },
    Line {
        name: "cli-scan",
        measures: "`claviger scan` of 1 GiB of text for 1,000 different values in all their forms, as a whole process",
        needs_claviger: true,
        run: |bench| commands::scan(bench, "cli-scan"),
    },
    Line {
        name: "node-read",
        measures: "reads of 1,000 cached secrets at the node agent's socket, 16 connections, and 1 for the latency",
        needs_claviger: true,
        run: |bench| node::read(bench, "node-read"),
    },
    Line {
        name: "node-memory",
        measures: "resident memory of the node agent with 1,000 secrets",
        needs_claviger: true,
        run: |bench| node::memory(bench, "node-memory"),
    },
    Line {
        name: "node-revoke-1000",
        measures: "from sending a revocation until the secret is off each of 1,000 node agents",
        needs_claviger: true,
        run: |bench| node::revoke(bench, "node-revoke-1000", 1_000),
    },
    Line {
        name: "login",
        measures: "`claviger login` with PKCE from start to exit, without what the provider and the person take",
        needs_claviger: true,
        run: |bench| login::figures(bench, "login"),
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
