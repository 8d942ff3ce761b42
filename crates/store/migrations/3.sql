-- Requests for approval, with their votes and their end. There are some thousands at most.
CREATE TABLE approvals (
    id INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    mac BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
