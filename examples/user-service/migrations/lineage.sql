-- One row: which database this is, and the mark of its last published change. Numbers of changes are the same in any
-- database; a mark is in one history only, so that a database that was put back is told apart from what it was.
CREATE TABLE lineage (
    id BIGINT PRIMARY KEY,
    database_id TEXT NOT NULL,
    mark TEXT NOT NULL,
    -- The mark of the change before it.
    previous TEXT NOT NULL
);
