-- Format 3. One row a session: its record is read, merged and written as a whole.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

-- In the order of the buckets, so that listing one reads neighbouring pages, and so that a new node, to which sessions
-- come in that order, appends. The place is a number and not the id: the pages above the rows then hold hundreds of
-- places each, and the index has no ids in it (`rows.place_of`). A million sessions lie four pages deep and not six,
-- and a row of 4 KB fits into its page; in a table without rowid only one of 1 KB would.
-- A row has no digest: whoever reads digests reads the pages with the records anyway, and makes one in 2 us.
CREATE TABLE sessions (
    place  INTEGER PRIMARY KEY,
    id     BLOB    NOT NULL,
    record BLOB    NOT NULL,
    held   BLOB,
    retain INTEGER NOT NULL,
    user   BLOB
);

-- In steps of 67 seconds (2^26 microseconds), and within them in the order of the table: what comes in that
-- order, as to a new node, then falls on few pages. By the exact instant each session would fall on one of its own.
CREATE INDEX sessions_by_end ON sessions (retain >> 26);
CREATE INDEX sessions_held ON sessions (id) WHERE held IS NOT NULL;
CREATE INDEX sessions_by_user ON sessions (user) WHERE user IS NOT NULL;

-- One row a transaction, as written. The last row is the node's clock and is never deleted.
CREATE TABLE log (
    stamp   INTEGER PRIMARY KEY,
    changes BLOB NOT NULL
);

-- All commits of a node up to the stamp are here, or were replaced here.
CREATE TABLE heard (
    node  BLOB PRIMARY KEY,
    stamp INTEGER NOT NULL,
    moved INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE members (
    address TEXT PRIMARY KEY,
    member  BLOB NOT NULL
) WITHOUT ROWID;
