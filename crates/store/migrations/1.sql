-- Unsigned 64-bit numbers are stored as the signed number of the same bits.
-- Every table is clustered by its primary key, and what is longest stands last in a row, so that the columns before it
-- are read without it.

-- `opened` counts the writers that have opened the database: their first commit must change something, because SQLite
-- writes nothing where a row stays as it is.
CREATE TABLE schema_version (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    opened INTEGER NOT NULL
) STRICT;
INSERT INTO schema_version (id, version, opened) VALUES (1, 1, 0);

CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    commit_id BLOB NOT NULL,
    sealed BLOB NOT NULL
) STRICT;

CREATE TABLE barrier (
    version INTEGER NOT NULL,
    root TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (version, root)
) STRICT, WITHOUT ROWID;

CREATE TABLE "keys" (
    id TEXT NOT NULL PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    mac BLOB NOT NULL,
    meta BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- A destroyed version has no row. The length and the last 16 bytes of `data` are repeated, because a start needs them of
-- every version and `data` may have 10 MiB.
CREATE TABLE versions (
    key_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    version_id INTEGER NOT NULL,
    wrapped_key BLOB NOT NULL,
    data_len INTEGER NOT NULL,
    data_tag BLOB NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (key_id, incarnation, version_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    key_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    mac BLOB NOT NULL,
    meta BLOB NOT NULL,
    PRIMARY KEY (key_id, incarnation, epoch, revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE "grants" (
    prefix TEXT NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    mac BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstones (
    key_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    mac BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (key_id, incarnation)
) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    target TEXT NOT NULL,
    what TEXT NOT NULL,
    actor TEXT NOT NULL,
    request_id BLOB NOT NULL,
    made INTEGER NOT NULL,
    PRIMARY KEY (epoch, revision)
) STRICT, WITHOUT ROWID;
